"""What flows into and out of a detector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from facestream.engines.boxes import F32, Array, Bool, area_xyxy
from numpy.typing import NDArray

SMALL_SIDE, LARGE_SIDE = 24.0, 72.0  # sides in the detector's input between which a face needs more and more of a score


@dataclass(frozen=True, slots=True)
class Detections:
    """Faces found in one image, best first.

    xyxy: float32 [N, 4], left, top, right, bottom in pixels of the *source* image (the one the
    caller described, not the resized detector input); may reach past its edges.
    scores: float32 [N] in 0..1.
    """

    xyxy: F32
    scores: F32

    def __len__(self) -> int:
        return len(self.scores)

    def at_least(self, score: float) -> Detections:
        """Those with at least this score."""
        return self.select(self.scores >= score)

    def filter_by_score(self, threshold: float, large_face_margin: float, scale: float) -> Detections:
        """Those whose score is high enough for their size: `threshold` up to SMALL_SIDE px in the detector's input,
        `large_face_margin` more from LARGE_SIDE px on, evenly in the side's logarithm between.

        What a small net takes for a face in vain is large, and small faces have low scores: docs/training-log.md, 14.
        scale: pixels of the detector's input for one of the boxes' pixels.
        """
        if not large_face_margin or not len(self):
            return self.at_least(threshold)
        side = np.sqrt(np.maximum(area_xyxy(self.xyxy), 1e-9)) * scale
        share = np.clip(np.log(side / SMALL_SIDE) / math.log(LARGE_SIDE / SMALL_SIDE), 0, 1)
        return self.select(self.scores >= threshold + large_face_margin * share)

    def nms(self, iou: float) -> Detections:
        """The better one of any two that overlap by more than this, best first (greedy NMS)."""
        if not len(self):
            return self
        xywh: Any = np.concatenate([self.xyxy[:, :2], self.xyxy[:, 2:] - self.xyxy[:, :2]], 1).astype(np.float64)
        ranks: Any = self.scores
        return self.select(np.asarray(cv2.dnn.NMSBoxes(xywh, ranks, 0.0, iou), np.intp).reshape(-1))

    def select(self, which: Bool | NDArray[np.intp]) -> Detections:
        """Some of them, by a mask or by their numbers."""
        return Detections(self.xyxy[which], self.scores[which])

    @staticmethod
    def empty() -> Detections:
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


@dataclass(frozen=True, slots=True)
class HostFrame:
    """A stored picture in host memory: one of gpu_frame.LAYOUTS, its planes as uint8 [h, w], [h, w, 2] or [h, w, 3].

    rotation: degrees counter-clockwise for display. fitted: width and height, upright, to which it is shrunk for the
    net. width, height: of the picture in whose pixels, upright, its boxes are wanted.
    """

    layout: str
    planes: tuple[Array, ...]
    fitted: tuple[int, int]
    width: int
    height: int
    rotation: int = 0
    full_range: bool = False

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height of the first plane."""
        return self.planes[0].shape[1], self.planes[0].shape[0]

    @property
    def key(self) -> tuple[Any, ...]:
        return self.layout, self.stored, self.fitted, self.rotation, self.full_range
