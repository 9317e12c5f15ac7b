"""Input and output types of detectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from facestream.engines.boxes import F32, Array, Bool, area_xyxy
from numpy.typing import NDArray

# sides in the detector's input between which a face needs more and more of a score
SMALL_SIDE = 24.0
LARGE_SIDE = 72.0


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

    def filter_by_score(
        self,
        threshold: float,
        large_face_margin: float = 0.0,
        scale: float = 1.0,
        ramp: tuple[float, float] = (SMALL_SIDE, LARGE_SIDE),
    ) -> Detections:
        """Filter by a size-dependent score: `threshold` for boxes with a side up to ramp[0] px in the detector's input,
        `large_face_margin` more from ramp[1] px on, interpolated linearly in the side's logarithm.

        Scores that are NaN are dropped.

        A small net's false alarms are large, and small faces have low scores (training log, run 14).
        scale: from the boxes' pixels to the detector's input.
        """
        if not large_face_margin or not len(self):
            return self.select(self.scores >= threshold)
        small, large = ramp
        side = np.sqrt(np.maximum(area_xyxy(self.xyxy), 1e-9)) * scale
        share = np.clip(np.log(side / small) / math.log(large / small), 0, 1)
        return self.select(self.scores >= threshold + large_face_margin * share)

    def nms(self, iou: float) -> Detections:
        """Greedy non-maximum suppression (NMS), best first. iou: NMS threshold; of two boxes that overlap by more, the
        one with the lower score is removed. The only NMS of the product; engines/cuda/nms.cu does the same."""
        if not len(self):
            return self
        xywh: Any = np.concatenate([self.xyxy[:, :2], self.xyxy[:, 2:] - self.xyxy[:, :2]], 1).astype(np.float64)
        ranks: Any = self.scores
        return self.select(np.asarray(cv2.dnn.NMSBoxes(xywh, ranks, 0.0, iou), np.intp).reshape(-1))

    def select(self, which: Bool | NDArray[np.intp]) -> Detections:
        """Some of the detections, by mask or indices."""
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
