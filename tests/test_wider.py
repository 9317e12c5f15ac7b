from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from engines.types import Detections
from train.wider import average_precision, evaluate, match

FACE = [0.0, 0.0, 10.0, 10.0]
FAR = [100.0, 100.0, 110.0, 110.0]
NO = np.zeros(1, bool)


def found(*rows: tuple[list[float], float]) -> Detections:
    return Detections(
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4), np.array([r[1] for r in rows], np.float32)
    )


def truth(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_area_under_the_curve_by_hand() -> None:
    """Recall 0.5 at precision 1, then 1.0 at 0.5: 0.5 * 1 + 0.5 * 0.5."""
    assert average_precision(np.array([1.0, 0.5]), np.array([0.5, 1.0])) == pytest.approx(0.75)


def test_a_dip_in_precision_is_filled_from_the_right() -> None:
    assert average_precision(np.array([1.0, 0.2, 0.6]), np.array([0.2, 0.4, 1.0])) == pytest.approx(0.2 + 0.8 * 0.6)


def test_all_found_and_nothing_else_is_one() -> None:
    assert evaluate([found((FACE, 0.9), (FAR, 0.4))], [truth(FACE, FAR)], [np.zeros(2, bool)]).ap == pytest.approx(1)


def test_a_false_alarm_ranked_first_costs_half() -> None:
    assert evaluate([found((FAR, 0.9), (FACE, 0.5))], [truth(FACE)], [NO]).ap == pytest.approx(0.5)


def test_a_detection_on_an_ignored_face_counts_for_nothing() -> None:
    detections = found((FAR, 0.9), (FACE, 0.5))
    assert evaluate([detections], [truth(FACE, FAR)], [np.array([False, True])]).ap == pytest.approx(1)
    _, counts = match(detections, truth(FACE, FAR), np.array([False, True]))
    assert counts.tolist() == [False, True]


def test_a_second_detection_of_a_face_is_false() -> None:
    recalled, counts = match(found((FACE, 0.9), (FACE, 0.8)), truth(FACE), NO)
    assert recalled.tolist() == [1, 1]
    assert counts.tolist() == [True, True]


def test_a_miss_limits_recall() -> None:
    curve = evaluate([found((FACE, 0.9)), Detections.none()], [truth(FACE), truth(FACE)], [NO, NO])
    assert curve.recall.max() == pytest.approx(0.5)
    assert curve.ap == pytest.approx(0.5)


def test_false_alarms_on_images_without_faces_count() -> None:
    empty = np.zeros(0, bool)
    assert evaluate([found((FAR, 0.9)), found((FACE, 0.5))], [truth(), truth(FACE)], [empty, NO]).ap == pytest.approx(
        0.5
    )
