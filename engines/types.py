"""Input and output types of detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from facestream.engines.boxes import F32, Array, Bool
from numpy.typing import NDArray


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

    def filter_by_score(self, threshold: float) -> Detections:
        """Those with a score of `threshold` or more. Scores that are NaN are dropped."""
        return self.select(self.scores >= threshold)

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
