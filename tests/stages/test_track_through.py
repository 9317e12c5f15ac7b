"""Tracking a face through waiting frames, with pictures in which it moves as it is told to."""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from facestream.pipeline.stages.delay_line import BufferedFrame
from facestream.pipeline.stages.settings import DEFAULTS, Heuristics, TrackThroughSettings
from facestream.pipeline.stages.track_through import (
    motion_between,
    moved_inward,
    track_through,
    warp_box,
)
from facestream.pipeline.types import Frame

PICTURE = av.VideoFrame(320, 120, "yuv420p")
SIZE = (320, 120)
SETTINGS = DEFAULTS.track_through
FACE = np.array([40.0, 40, 80, 80])


def waiting(index: int, x: float | None, affine: np.ndarray | None = None, scale: float = 0.5) -> BufferedFrame:
    """A frame of 320x120 whose luma is half as large, with a face of 40 pixels at x, 40, if any."""
    rng = np.random.default_rng(1)
    luma = (90 + rng.integers(0, 12, (60, 160))).astype(np.uint8)
    if x is not None:
        rough = np.random.default_rng(2).integers(0, 256, (10, 10)).astype(np.uint8)
        face = cv2.resize(rough, (20, 20), interpolation=cv2.INTER_CUBIC)
        left = round(x / 2)
        shown = face[:, max(0, -left) : max(0, min(20, 160 - left))]
        luma[20:40, max(0, left) : max(0, left) + shown.shape[1]] = shown
    return BufferedFrame(Frame(index, index, Fraction(1, 30), PICTURE), {}, luma, scale, affine=affine)


def centres(places: list[np.ndarray] | None) -> list[float]:
    assert places is not None
    return [float((place[0] + place[2]) / 2) for place in places]


def test_a_face_is_found_where_it_moves_and_its_box_grows_a_little_with_each_step() -> None:
    chain = [waiting(i, 40 + 6 * i) for i in range(6)]
    places = track_through(chain, FACE)
    assert centres(places) == pytest.approx([66, 72, 78, 84, 90], abs=2.1)
    assert places is not None
    growth = [(place[2] - place[0]) / 40 - 1 for place in places]
    assert growth == pytest.approx([SETTINGS.matched_growth * step for step in range(1, 6)])


def test_backwards_it_is_the_same() -> None:
    chain = [waiting(i, 40 + 6 * (9 - i)) for i in range(9, 3, -1)]
    assert centres(track_through(chain, FACE)) == pytest.approx([66, 72, 78, 84, 90], abs=2.1)


def test_after_the_match_is_lost_it_goes_on_along_its_motion_for_a_while() -> None:
    chain = [waiting(i, 40 + 6 * i if i < 6 else None) for i in range(14)]
    places = track_through(chain, FACE)
    assert places is not None
    assert len(places) == 5 + SETTINGS.grace_frames
    assert centres(places)[5:] == pytest.approx([96, 102, 108], abs=4)
    assert places[-1][2] - places[-1][0] > 1.1 * (places[4][2] - places[4][0])
    assert len(track_through(chain, FACE, lost=0) or ()) == 5


def test_without_luma_and_too_small_it_cannot_be_tracked() -> None:
    bare = BufferedFrame(waiting(1, 40).frame, {})
    assert track_through([waiting(0, 40), bare], FACE) is None
    assert track_through([waiting(0, 40), waiting(1, 40)], np.array([40.0, 40, 46, 46])) is None


def test_the_camera_takes_it_along() -> None:
    """It jumps by more than the search range, as the camera does."""
    pan = np.array([[1.0, 0, 60], [0, 1, 0]])
    chain = [waiting(0, 40), waiting(1, 100, pan), waiting(2, 160, pan)]
    assert centres(track_through(chain, FACE)) == pytest.approx([120, 180], abs=2.1)
    back = [waiting(2, 160, pan), waiting(1, 100, pan), waiting(0, 40)]
    assert centres(track_through(back, FACE + np.array([120, 0, 120, 0]))) == pytest.approx([120, 60], abs=2.1)


def test_motion_between_neighbours_is_inverted_backwards() -> None:
    affine = np.array([[1.1, 0, 30], [0, 1.1, -5]])
    first, second = waiting(0, None), waiting(1, None, affine)
    assert np.allclose(motion_between(first, second), affine)
    there = warp_box(warp_box(FACE, affine), motion_between(second, first))
    assert np.allclose(there, FACE)
    assert motion_between(waiting(1, None), waiting(0, None)) is None


def test_a_warped_box_stays_upright_and_grows_by_the_zoom() -> None:
    turned = 2 * np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    assert warp_box(np.array([10.0, 20, 30, 24]), turned) == pytest.approx([-64, 36, -24, 44])
    assert warp_box(np.array([10.0, 20, 30, 24]), None) == pytest.approx([10, 20, 30, 24])


@pytest.mark.parametrize(
    ("box", "moved", "inward"),
    [
        ([-10, 40, 30, 80], [3.9, 0], False),
        ([-10, 40, 30, 80], [4.1, 0], True),
        ([-10, 40, 30, 80], [-9, 0], False),  # outward
        ([300, 40, 340, 80], [-4.1, 0], True),
        ([300, 40, 340, 80], [9, 0], False),
        ([100, -10, 140, 30], [0, 4.1], True),
        ([100, 100, 140, 140], [0, -4.1], True),
        ([100, 40, 140, 80], [30, 30], False),  # no edge cuts it
    ],
)
def test_who_is_cut_by_an_edge_does_not_move_inward_going_back(
    box: list[float], moved: list[float], inward: bool
) -> None:
    place = np.array(box, float)
    assert moved_inward(place, place + np.array(moved * 2), SIZE) is inward


def test_its_constants_can_be_set() -> None:
    chain = [waiting(i, 40 + 6 * i if i < 6 else None) for i in range(14)]
    patient = Heuristics(track_through=TrackThroughSettings(grace_frames=5))
    assert len(track_through(chain, FACE, heuristics=patient) or ()) == 10
