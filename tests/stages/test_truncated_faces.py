from __future__ import annotations

import numpy as np
import pytest
from facestream.engines.types import Detections
from facestream.pipeline.stages.settings import DEFAULTS
from facestream.pipeline.stages.truncated_faces import extrapolate_truncated
from hypothesis import given
from hypothesis import strategies as st

SIZE = (640, 360)
NARROW = DEFAULTS.truncated_faces.min_width_over_height
FLAT = DEFAULTS.truncated_faces.min_height_over_width


def one(*xyxy: float) -> np.ndarray:
    return extrapolate_truncated(Detections(np.array([xyxy], np.float32), np.ones(1, np.float32)), SIZE).xyxy[0]


def test_a_face_that_an_edge_cuts_goes_on_beyond_it() -> None:
    assert one(0, 100, 10, 160) == pytest.approx([10 - NARROW * 60, 100, 10, 160])
    assert one(628, 100, 639, 160) == pytest.approx([628, 100, 628 + NARROW * 60, 160])
    assert one(100, 1, 160, 20) == pytest.approx([100, 20 - FLAT * 60, 160, 20])
    assert one(100, 330, 160, 360) == pytest.approx([100, 330, 160, 330 + FLAT * 60])


def test_other_faces_stay_as_they_are() -> None:
    for box in ((100, 100, 110, 160), (0, 100, 50, 160), (100, 0, 140, 60), (0, 0, 640, 360), (5, 100, 15, 160)):
        assert one(*box) == pytest.approx(box)
    assert len(extrapolate_truncated(Detections.empty(), SIZE)) == 0


@given(st.lists(st.tuples(*[st.floats(-20, 660, width=32)] * 2, *[st.floats(1, 300, width=32)] * 2), min_size=1))
def test_a_box_never_loses_anything_and_gains_nothing_inside(rows: list[tuple[float, float, float, float]]) -> None:
    xyxy = np.array([(x, y, x + w, y + h) for x, y, w, h in rows], np.float32)
    made = extrapolate_truncated(Detections(xyxy, np.ones(len(rows), np.float32)), SIZE).xyxy
    assert (made[:, :2] <= xyxy[:, :2]).all()
    assert (made[:, 2:] >= xyxy[:, 2:]).all()
    moved = np.abs(made - xyxy) > 1e-3
    near = 0.05 * (xyxy[:, 2:] - xyxy[:, :2]).max(1, keepdims=True)
    at_edge = np.concatenate([xyxy[:, :2] <= near, xyxy[:, 2:] >= np.array(SIZE) - near], 1)
    assert not (moved & ~at_edge).any()
