from __future__ import annotations

import numpy as np
import pytest
from facestream.engines.types import LARGE_SIDE, SMALL_SIDE, Detections


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_how_sure_a_detection_must_be_rises_with_its_side_in_the_input(scale: float) -> None:
    sides = np.array(
        [4, SMALL_SIDE, np.sqrt(SMALL_SIDE * LARGE_SIDE), LARGE_SIDE, 9 * LARGE_SIDE], np.float32
    ) / np.float32(scale)
    needed = [0.2, 0.2, 0.25, 0.3, 0.3]
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], 1)
    for above, kept in ((0.001, len(sides)), (-0.001, 0)):
        found = Detections(boxes, np.array(needed, np.float32) + np.float32(above))
        assert len(found.filter_by_score(0.2, 0.1, scale)) == kept
        assert len(found.filter_by_score(0.19, 0.0, scale)) == len(sides)


def test_long_boxes_count_by_their_area_and_empty_ones_as_small() -> None:
    boxes = np.array([[0, 0, 2 * LARGE_SIDE, LARGE_SIDE / 2], [5, 5, 5, 5]], np.float32)
    assert Detections(boxes, np.float32([0.29, 0.2])).filter_by_score(0.2, 0.1, 1).xyxy.tolist() == [[5, 5, 5, 5]]
    assert len(Detections.empty().filter_by_score(0.2, 0.1, 1)) == 0
