"""Regions that records name for single frames."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from facestream.pipeline.config import Config
from facestream.pipeline.errors import BadInput
from facestream.pipeline.jobs.replay import RecordReplay
from facestream.pipeline.records import read_records, record
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.types import Frame

from tests.conftest import picture

TRIANGLE = [[20, 20], [100, 20], [20, 100]]


def written(folder: Path, masks: object) -> Path:
    path = folder / "r.jsonl"
    path.write_text(json.dumps({"frame": 0, "width": 160, "height": 120, "faces": [], "masks": masks}) + "\n")
    return path


@pytest.mark.parametrize("rotation", [0, 180])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "nv12"])
def test_a_polygon_is_covered_and_nothing_else(tmp_path: Path, rotation: int, pix_fmt: str) -> None:
    path = written(tmp_path, [TRIANGLE])
    frame = Frame(0, 0, Fraction(1, 25), picture(0, pix_fmt=pix_fmt), rotation)
    raw = picture(0, pix_fmt=pix_fmt).to_ndarray(format="rgb24").astype(int)
    (tracked,) = RecordReplay(read_records(path), path).push(frame)
    assert record(tracked, "")["masks"] == [TRIANGLE]
    shown = Anonymizer(Config().cover).cover(tracked).picture.to_ndarray(format="rgb24").astype(int)
    if rotation == 180:
        shown, raw = shown[::-1, ::-1], raw[::-1, ::-1]
    y, x = np.mgrid[:120, :160]
    inside = (x >= 21) & (y >= 21) & (x + y <= 117)
    outside = (x < 17) | (y < 17) | (x + y > 125)
    assert np.ptp(shown[inside], axis=0).max() <= 2
    assert np.abs(shown - raw)[outside].max() <= 3


@pytest.mark.parametrize("masks", [[[[1, 2], [3, 4]]], [[[1, 2], [3, 4], [5, float("inf")]]], [[1, 2, 3, 4]], 3])
def test_what_is_no_polygon_is_refused(tmp_path: Path, masks: object) -> None:
    with pytest.raises(BadInput, match=r"masks.*r\.jsonl:1|r\.jsonl:1.*masks"):
        read_records(written(tmp_path, masks))
