from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.base import Detector
from facestream.engines.letterbox import ImageView
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.train.snip import LEVELS, Level, merge, selected, soft_nms
from facestream.train.test_scales import Scales


def detections(*rows: tuple[list[float], float]) -> Detections:
    return Detections(np.array([r[0] for r in rows], np.float32), np.array([r[1] for r in rows], np.float32))


A, SHIFTED, FAR = [0.0, 0, 10, 10], [0.0, 0, 10, 5], [50.0, 50, 90, 90]


def test_soft_nms_lowers_scores_by_the_overlap() -> None:
    found = detections((A, 0.9), (SHIFTED, 0.8), (FAR, 0.5))
    kept = soft_nms(found.xyxy, found.scores, sigma=0.5)
    assert kept.xyxy.tolist() == [A, FAR, SHIFTED] or kept.xyxy.tolist() == [A, SHIFTED, FAR]
    by_box = {tuple(b): s for b, s in zip(kept.xyxy.tolist(), kept.scores.tolist(), strict=True)}
    assert by_box[tuple(A)] == pytest.approx(0.9)
    assert by_box[tuple(FAR)] == pytest.approx(0.5)
    assert by_box[tuple(SHIFTED)] == pytest.approx(0.8 * math.exp(-(0.5**2) / 0.5))  # IoU 0.5
    assert (np.diff(kept.scores) <= 0).all()


def test_hard_nms_removes_what_soft_nms_keeps() -> None:
    levels = [detections((A, 0.9)), detections((SHIFTED, 0.8))]
    assert merge(levels, 0.3).scores.tolist() == pytest.approx([0.9])
    assert len(merge(levels, 0.3, soft=True)) == 2


def test_soft_nms_of_nothing_is_nothing() -> None:
    assert len(merge([Detections.empty(), Detections.empty()], 0.3, soft=True)) == 0


def test_a_level_keeps_its_own_range() -> None:
    kept = selected(detections((A, 0.9), (FAR, 0.8)), Level(100, 200, 20, 80))
    assert kept.xyxy.tolist() == [FAR]


def test_the_papers_levels() -> None:
    assert [(x.shortest, x.longest) for x in LEVELS] == [(1400, 2000), (800, 1200), (480, 800)]
    assert [x.high for x in LEVELS[:2]] == [80, 160]
    assert [x.low for x in LEVELS] == [0, 40, 120]


def test_at_test_each_resolution_speaks_of_its_faces_only() -> None:
    """`Eyes` finds a small and a large face at every resolution; each comes from the level it belongs to."""
    shown = []

    class Eyes(Detector):
        def infer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            raise AssertionError("not asked")

        def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
            shown.append(images[0].rgb.shape[:2])
            score = 0.5 + 0.1 * len(shown)
            return [detections((A, score), (FAR, score))]

    scales = Scales(levels=(Level(200, 400, 0, 20), Level(100, 200, 20, 100)))
    found = scales.detect(Eyes(DetectorOptions()), np.zeros((100, 200, 3), np.uint8))
    assert shown == [(200, 400), (100, 200)]
    assert sorted(zip(found.xyxy.tolist(), found.scores.round(3).tolist(), strict=True)) == [
        (A, pytest.approx(0.6)), (FAR, pytest.approx(0.7)),
    ]  # fmt: skip
