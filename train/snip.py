"""SNIP, Scale Normalisation for Image Pyramids (Singh and Davis, CVPR 2018), over any SSH model.

Each resolution of a picture trains and finds only the faces of its own range; what falls outside is neither face nor
background there. At test the resolutions' detections are merged by soft-NMS (Bodla et al., ICCV 2017) or NMS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from facestream.engines.boxes import F32, Array, Bool, area_xyxy, iou_xyxy
from facestream.engines.types import Detections


@dataclass(frozen=True, slots=True)
class Level:
    """A resolution: shorter side `shortest` unless the longer would exceed `longest`, in pixels; and its range of
    faces: side (root of the area) in low..high, in pixels of the stored image."""

    shortest: int
    longest: int
    low: float
    high: float

    def has(self, xyxy: Array) -> Bool:
        """Which boxes [N, 4], in the stored picture's pixels, are in this level's range: bool [N]."""
        side = np.sqrt(area_xyxy(xyxy))
        inside: Bool = (side >= self.low) & (side <= self.high)
        return inside


# The paper's three resolutions with the ranges of its COCO training; 1e9 is no bound.
LEVELS = (Level(1400, 2000, 0, 80), Level(800, 1200, 40, 160), Level(480, 800, 120, 1e9))
SIGMA = 0.55  # of soft-NMS, from the authors' released configuration of SNIPER


def soft_nms(xyxy: F32, scores: F32, sigma: float = SIGMA, min_score: float = 0.001) -> Detections:
    """Gaussian soft-NMS: a box lowers the scores of those it overlaps by exp(-IoU^2 / sigma) instead of removing them.

    xyxy [N, 4], scores [N]; what falls below `min_score` goes. Best first.
    """
    scores = scores.astype(np.float32).copy()
    left = np.flatnonzero(scores >= min_score)
    order = []
    while len(left):
        at = int(scores[left].argmax())
        best = left[at]
        order.append(best)
        left = np.delete(left, at)
        scores[left] *= np.exp(-(iou_xyxy(xyxy[best : best + 1], xyxy[left])[0] ** 2) / sigma)
        left = left[scores[left] >= min_score]
    kept = np.asarray(order, np.intp)
    return Detections(xyxy[kept], scores[kept])


def merge(found: Sequence[Detections], nms_iou: float, soft: bool = False, min_score: float = 0.001) -> Detections:
    """Detections of the same picture at several resolutions, in its pixels, as one set."""
    xyxy = np.concatenate([f.xyxy for f in found])
    scores = np.concatenate([f.scores for f in found])
    if soft:
        return soft_nms(xyxy, scores, min_score=min_score)
    return Detections(xyxy, scores).nms(nms_iou)


def selected(found: Detections, level: Level) -> Detections:
    """The detections in a level's range."""
    keep = level.has(found.xyxy)
    return Detections(found.xyxy[keep], found.scores[keep])
