from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from facestream.pipeline.config import read
from facestream.pipeline.errors import BadConfig
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.stages.regions import in_pixels, to_cover
from facestream.pipeline.types import XYXY, Box, BoxState, Frame, TrackedFrame

from tests.conftest import picture


def box(*xyxy: float) -> Box:
    x0, y0, x1, y1 = xyxy
    return Box(1, (x0, y0, x1, y1), 0.9, BoxState.OBSERVED)


def covered(masks: list[XYXY], allow: list[XYXY], boxes: tuple[Box, ...], rotation: int = 0) -> np.ndarray:
    """Which displayed pixels of a 160x120 picture changed."""
    settings = {"cover.masks": masks, "cover.allow": allow, "cover.hide": "solid", "cover.shape": "box"}
    frame = Frame(0, 0, Fraction(1, 30), picture(0, pix_fmt="yuv444p"), rotation)
    before = frame.picture.to_ndarray().copy()
    Anonymizer(read(None, settings).cover).cover(TrackedFrame(frame, boxes))
    changed = (frame.picture.to_ndarray() != before).any(0)
    return np.rot90(changed, rotation // 90)


def bounds(changed: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def test_a_mask_covers_its_pixels_in_a_frame_without_faces() -> None:
    assert bounds(covered([(20, 10, 60, 50)], [], ())) == (20, 10, 60, 50)
    assert bounds(covered([(0.5, 0.5, 1, 1)], [], ())) == (80, 60, 160, 120)  # shares of the picture
    assert not covered([], [], ()).any()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_mask_lies_where_the_viewer_sees_it(rotation: int) -> None:
    assert bounds(covered([(20, 10, 60, 50)], [], (), rotation)) == (20, 10, 60, 50)


def test_a_mask_beyond_the_edge_is_cut_and_one_outside_covers_nothing() -> None:
    assert bounds(covered([(140, 100, 900, 900)], [], ())) == (140, 100, 160, 120)
    assert not covered([(400, 400, 500, 500)], [], ()).any()


def test_a_face_in_an_allowed_region_stays_and_one_that_reaches_out_does_not() -> None:
    inside, across = box(20, 20, 40, 40), box(70, 20, 90, 40)
    changed = covered([], [(0, 0, 80, 120)], (inside, across))
    assert not changed[20:40, 20:40].any()
    assert changed[22:38, 72:88].all()
    assert to_cover((inside, across), [(0.0, 0.0, 0.5, 1.0)], (160, 120)) == [across]
    assert covered([(10, 10, 50, 50)], [(0, 0, 80, 120)], (inside,))[12:48, 12:48].all()  # a mask wins


@pytest.mark.parametrize("value", [[[5, 5, 5, 9]], [[9, 5, 5, 9]], [[-1, 0, 5, 5]], [[1, 2, 3]], "all"])
def test_bad_regions_are_refused(value: object) -> None:
    with pytest.raises(BadConfig, match=r"cover\.masks") as caught:
        read(None, {"cover.masks": value})
    assert "\n" not in str(caught.value)


def test_shares_and_pixels() -> None:
    assert in_pixels((0.0, 0.25, 0.5, 1.0), (200, 100)) == (0, 25, 100, 100)
    assert in_pixels((0, 10, 50, 100), (200, 100)) == (0, 10, 50, 100)
