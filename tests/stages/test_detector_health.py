from __future__ import annotations

import numpy as np
from facestream.engines.types import Detections
from facestream.pipeline.stages.detector_health import DetectorHealth
from facestream.pipeline.stages.settings import DEFAULTS


def faces(count: int, score: float = 0.9) -> Detections:
    return Detections(np.zeros((count, 4), np.float32), np.full(count, score, np.float32))


def healthy(count: int, detections: int = 60, score: float = 0.9) -> DetectorHealth:
    health = DetectorHealth()
    for _ in range(detections):
        assert not health.is_blind(False, faces(count, score), 0.5)
    return health


def test_a_frame_that_shows_nothing_is_enough() -> None:
    assert DetectorHealth().is_blind(True, faces(3), 0.5)
    assert not DetectorHealth().is_blind(False, None, 0.5)


def test_where_two_faces_go_at_once_the_detector_failed() -> None:
    assert healthy(2).is_blind(False, faces(0), 0.5)
    assert not healthy(2).is_blind(False, faces(1), 0.5)
    assert not healthy(1).is_blind(False, faces(0), 0.5), "one person may leave"


def test_only_confirmed_faces_count_but_any_face_shows_that_it_works() -> None:
    assert not healthy(5, score=0.4).is_blind(False, faces(0), 0.5)
    health = healthy(2)
    assert health.is_blind(False, faces(0), 0.5)
    assert not health.is_blind(False, faces(1, 0.3), 0.5)


def test_a_few_detections_are_not_enough_to_expect_anybody() -> None:
    assert not healthy(2, detections=5).is_blind(False, faces(0), 0.5)


def test_it_stays_blind_between_detections_and_for_longer_the_more_faces_there_were() -> None:
    lasted = []
    for count in (2, 5):
        health = healthy(count)
        assert health.is_blind(False, faces(0), 0.5)
        assert health.is_blind(False, None, 0.5)
        detections = 0
        while health.is_blind(False, faces(0), 0.5):
            detections += 1
        lasted.append(detections)
    assert 50 < lasted[0] < 70  # about two seconds at 30 detections/s
    assert 3.5 * lasted[0] < lasted[1] < 5 * lasted[0]


def test_the_mean_is_a_running_one() -> None:
    health = DetectorHealth()
    health.is_blind(False, faces(10), 0.5)
    assert health.mean_faces == 10 * (1 - DEFAULTS.detector_health.mean_decay)
