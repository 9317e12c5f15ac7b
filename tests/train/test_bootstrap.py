from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.base import Detector
from facestream.engines.boxes import F32, Array
from facestream.engines.errors import BadInput
from facestream.engines.letterbox import ImageView
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.train.bootstrap import false_boxes, read_mined, write_mined
from facestream.train.data import read_split

from tests.pack import make_pack


class Says(Detector):
    """Finds the same boxes in every picture."""

    def __init__(self, xyxy: list[list[float]]) -> None:
        super().__init__(DetectorOptions())
        self.xyxy = np.asarray(xyxy, np.float32)

    def infer(self, images: Array) -> tuple[F32, F32]:
        raise NotImplementedError

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        return [Detections(self.xyxy, np.linspace(0.9, 0.5, len(self.xyxy), dtype=np.float32)) for _ in images]


def test_what_touches_no_label_is_mined_and_read_again(tmp_path: Path) -> None:
    root = make_pack(tmp_path)
    item = next(i for i in read_split(root, "train") if len(i.xyxy))
    face = item.xyxy[0].tolist()
    far = [0.0, 0.0, 8.0, 8.0]
    xyxy, scores = false_boxes(Says([face, far]), item)
    assert xyxy.tolist() == [far]
    assert scores.tolist() == [0.5]
    nothing = np.zeros((0, 4), np.float32)
    assert write_mined(tmp_path / "mined.jsonl", root, [(item, xyxy, scores), (item, nothing, nothing[:, 0])]) == 1
    mined = read_mined(tmp_path / "mined.jsonl", root)
    assert list(mined) == [item.path]
    assert mined[item.path].tolist() == [far]


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("no json\n")
    with pytest.raises(BadInput, match="mined"):
        read_mined(tmp_path / "x.jsonl", tmp_path)
    with pytest.raises(BadInput, match="not found"):
        read_mined(tmp_path / "y.jsonl", tmp_path)
