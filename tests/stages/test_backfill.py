"""Backfill in waiting frames without luma: extrapolation. Template matching: test_track_through.py."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from facestream.pipeline.stages.backfill import Backfill
from facestream.pipeline.stages.delay_line import BufferedFrame, DelayLine
from facestream.pipeline.stages.settings import DEFAULTS
from facestream.pipeline.types import Box, BoxState, Frame

PICTURE = av.VideoFrame(640, 360, "yuv420p")
SETTINGS = DEFAULTS.backfill
GROWTH = DEFAULTS.track_through.lost_growth
SURE = 0.9


def box(x: float, score: float = SURE, state: BoxState = BoxState.OBSERVED) -> Box:
    return Box(1, (x, 100, x + 40, 140), score, state)


class Case:
    """A backfill whose waiting frames come one by one, as from look-ahead."""

    def __init__(self) -> None:
        self.line = DelayLine()
        self.known: set[int] = set()
        self.backfill = Backfill(self.line)

    def wait(self, count: int, scene: int = 0, affine: np.ndarray | None = None) -> None:
        for _ in range(count):
            index = len(self.line)
            frame = Frame(index, index, Fraction(1, 30), PICTURE)
            self.line.frames.append(BufferedFrame(frame, {}, scene=scene, affine=affine))

    def detect(self, one: Box, scene: int = 0, affine: np.ndarray | None = None) -> None:
        new = one.id not in self.known
        self.wait(1, scene, affine)
        self.known.add(one.id)
        if new:
            self.backfill.begin(one.id, scene)
        self.line.put(len(self.line) - 1, one)
        self.backfill.cover(one, len(self.line) - 1)

    def covered(self) -> list[int]:
        faces = [self.line.face(at, 1) for at in range(len(self.line))]
        return [at for at, face in enumerate(faces) if face is not None and face.state is BoxState.BACKFILLED]


def test_frames_before_a_confirmed_face_get_growing_boxes_as_far_back_as_allowed() -> None:
    case = Case()
    case.wait(20)
    case.detect(box(200))
    assert case.covered() == list(range(20 - SETTINGS.max_extrapolated, 20))
    widths = []
    for at in (19, 18, 17):
        face = case.line.face(at, 1)
        assert face is not None
        widths.append(face.xyxy[2] - face.xyxy[0])
    assert widths == pytest.approx([40 * (1 + GROWTH * step) for step in (1, 2, 3)])


def test_one_with_a_low_score_too_since_it_may_be_confirmed_later() -> None:
    case = Case()
    case.wait(5)
    case.detect(box(200, 0.1))
    assert case.covered() == [0, 1, 2, 3, 4]


def test_not_over_a_cut() -> None:
    case = Case()
    case.wait(4, scene=0)
    case.wait(3, scene=1)
    case.detect(box(200), scene=1)
    assert case.covered() == [4, 5, 6]


def test_three_detections_show_the_motion() -> None:
    case = Case()
    case.wait(4)
    for x in (200, 210, 220):
        case.detect(box(x))
    face = case.line.face(1, 1)
    assert face is not None
    assert (face.xyxy[0] + face.xyxy[2]) / 2 == pytest.approx(220 - 3 * 10)  # 3 frames before the first


def test_boxes_move_with_the_camera() -> None:
    case = Case()
    pan = np.array([[1.0, 0, 5], [0, 1, 0]])
    case.wait(4, affine=pan)
    case.detect(box(200), affine=pan)
    face = case.line.face(2, 1)
    assert face is not None
    assert (face.xyxy[0] + face.xyxy[2]) / 2 == pytest.approx(220 - 2 * 5)


def test_a_tracks_motion_is_judged_for_some_detections_and_forgotten_with_its_frames() -> None:
    case = Case()
    case.wait(2)
    for _ in range(SETTINGS.onset_detections - 1):
        case.detect(box(200))
    assert 1 in case.backfill.onsets
    case.backfill.forget(1)
    assert 1 in case.backfill.onsets
    case.backfill.forget(2)  # its first frame
    assert case.backfill.onsets == {}


def test_a_known_track_is_not_backfilled() -> None:
    case = Case()
    case.wait(3)
    case.known.add(1)
    case.detect(box(200))
    assert case.covered() == []
