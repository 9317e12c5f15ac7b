"""Gaps in waiting frames without luma: what interpolation alone does. Template matching: test_track_through.py."""

from __future__ import annotations

from fractions import Fraction

import av
import pytest
from facestream.pipeline.stages.delay_line import BufferedFrame, DelayLine
from facestream.pipeline.stages.fill_gaps import GapFiller
from facestream.pipeline.stages.settings import DEFAULTS
from facestream.pipeline.stages.track_memory import TrackMemory
from facestream.pipeline.types import Box, BoxState, Frame

PICTURE = av.VideoFrame(640, 120, "yuv420p")
SETTINGS = DEFAULTS.fill_gaps


def box(x: float, state: BoxState = BoxState.OBSERVED, side: float = 40) -> Box:
    return Box(1, (x, 40, x + side, 40 + side), 0.9, state)


def line_of(*boxes: Box | None, scenes: tuple[int, ...] = ()) -> DelayLine:
    line = DelayLine()
    for index, one in enumerate(boxes):
        found = {} if one is None else {one.key: one}
        scene = scenes[index] if scenes else 0
        line.frames.append(BufferedFrame(Frame(index, index, Fraction(1, 30), PICTURE), found, scene=scene))
    return line


def fill(line: DelayLine, last: Box) -> bool:
    return GapFiller(line, TrackMemory(0.5, None)).fill(last)


def centre(line: DelayLine, at: int) -> float:
    face = line.face(at, 1)
    assert face is not None
    return (face.xyxy[0] + face.xyxy[2]) / 2


def test_a_short_gap_is_a_straight_line_of_boxes_that_are_a_little_larger() -> None:
    line = line_of(box(40), None, box(300, BoxState.COASTED), None, box(80))
    assert fill(line, box(80))
    assert [centre(line, at) for at in (1, 2, 3)] == pytest.approx([70, 80, 90])
    for at in (1, 2, 3):
        face = line.face(at, 1)
        assert face is not None
        assert face.state is BoxState.BACKFILLED
        assert face.xyxy[2] - face.xyxy[0] == pytest.approx(40 * (1 + SETTINGS.short_growth))
    assert line.face(0, 1) == box(40)
    assert line.face(4, 1) == box(80)


def test_in_a_longer_gap_the_prediction_stays_covered() -> None:
    count = SETTINGS.short_gap + 1
    guess = box(140, BoxState.COASTED)
    line = line_of(box(40), guess, *[None] * (count - 2), box(40 + 10 * count))
    assert fill(line, box(40 + 10 * count))
    face = line.face(1, 1)
    assert face is not None
    assert face.xyxy == pytest.approx((50, 40, 180, 80))  # the line's place and the prediction
    face = line.face(2, 1)
    assert face is not None
    assert face.xyxy == pytest.approx((60, 40, 100, 80))


def test_only_a_detection_begins_a_gap_and_only_one_that_still_waits() -> None:
    line = line_of(box(20, BoxState.COASTED), box(30, BoxState.BACKFILLED), box(40))
    assert not fill(line, box(40))
    assert line.face(1, 1) == box(30, BoxState.BACKFILLED)


def test_a_flash_within_the_gap_is_filled_and_another_scene_begins_none() -> None:
    line = line_of(box(40), None, box(60), scenes=(0, 1, 0))
    assert fill(line, box(60))
    assert centre(line, 1) == pytest.approx(70)
    assert not fill(line_of(box(40), None, box(60), scenes=(0, 0, 1)), box(60))
