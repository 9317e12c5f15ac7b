"""Labelled pictures at less light: the figures by which the exposure of dark regions is judged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from facestream.benchmarks.dark_images import command, dark_items, frame_of
from facestream.engines.errors import BadInput

from tests.pack import demo_frames, make_pack


def test_a_frame_has_that_share_of_the_light() -> None:
    rgb = demo_frames([20])[0]
    full, half = (frame_of(rgb, light).picture.to_ndarray(format="rgb24").mean() for light in (1.0, 0.5))
    assert half == pytest.approx(full / 2, rel=0.05)


def test_only_dark_pictures_count(tmp_path: Path) -> None:
    pack = make_pack(tmp_path)
    assert len(dark_items([pack], 256)) == 4
    with pytest.raises(BadInput, match="no dark picture"):
        dark_items([pack], 1)


def test_faces_in_the_dark_are_missed_without_exposure_and_found_with_it(tmp_path: Path) -> None:
    words = ["--data", str(make_pack(tmp_path)), "--median", "256", "--light", "1", "--light", "0.02"]
    done = CliRunner().invoke(command, words, catch_exceptions=False)
    missed = [float(share) for share in re.findall(r"missed ([\d.]+)%", done.output)]
    assert re.search(r"4 pictures, \d+ faces", done.output)
    light, light_exposed, dark, dark_exposed = missed
    assert light == light_exposed
    assert dark > 50
    assert dark_exposed < 20
