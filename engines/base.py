"""The interface of all detectors; `loader` creates one from a name or a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from facestream.engines.boxes import F32, Array
from facestream.engines.letterbox import ImageView, pad
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections, HostFrame


class Detector(ABC):
    """A face detector for RGB images."""

    def __init__(self, options: DetectorOptions) -> None:
        self.options = options

    @abstractmethod
    def infer(self, images: Array) -> tuple[F32, F32]:
        """uint8 [N, H, W, 3] RGB, H and W multiples of 32 -> xyxy [N, K, 4] in input pixels and scores [N, K],
        before NMS, in any order."""

    takes_yuv = False  # see YuvDetector
    batch = 1  # pictures that it gains from being given together
    any_size = True  # pictures of ever new sizes cost it no more than those of one
    adjustable = True  # a lower options.threshold than it was made with takes effect
    chosen = ""  # what runs it and why, where there was a choice
    coarsest_anchors = 0  # a cell of the coarsest detection module, whose boxes come last; 0: not known
    coarsest_boxes = 1000  # that this module keeps at most
    COARSEST_STRIDE = 32

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        """Faces of each image, in pixels of the picture that the view shows. Views of one size run as one batch.

        coarsest=False leaves out what the module for the largest faces finds, where it is known which that is.
        """
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        padded = [pad(image.rgb) if image.padded is None else image.padded for image in images]
        for i, array in enumerate(padded):
            groups[array.shape].append(i)
        found = [Detections.empty()] * len(images)
        for indices in groups.values():
            batch = padded[indices[0]][None] if len(indices) == 1 else np.stack([padded[i] for i in indices])
            boxes, scores = self.infer(batch)
            if not coarsest and self.coarsest_anchors:
                cells = batch.shape[1] // self.COARSEST_STRIDE * (batch.shape[2] // self.COARSEST_STRIDE)
                rest = boxes.shape[1] - min(self.coarsest_boxes, cells * self.coarsest_anchors)
                boxes = boxes[:, :rest]
                scores = scores[:, :rest]
            for i, xyxy, score in zip(indices, boxes, scores, strict=True):
                found[i] = self._finish(xyxy, score, images[i])
        return found

    def _finish(self, xyxy: F32, scores: F32, image: ImageView) -> Detections:
        """Apply threshold and NMS, and scale to the source image's pixels."""
        found = Detections(xyxy, scores).filter_by_score(self.options.threshold).nms(self.options.nms_iou)
        h, w = image.rgb.shape[:2]
        scale = np.array([image.width / w, image.height / h] * 2, np.float32)
        return Detections(found.xyxy * scale, found.scores)


class YuvDetector(Detector):
    """A detector that takes frames as stored (YUV), and resizes, rotates and converts them itself."""

    takes_yuv = True
    in_flight = 1  # batches that are worth having on their way at once

    @abstractmethod
    def detect_yuv(self, frames: Sequence[HostFrame]) -> list[Detections]:
        """Faces of each frame, best first, in the pixels that it asks for."""

    def submit(self, frames: Sequence[HostFrame]) -> Any:
        """Start detection on frames; `collect` waits for the results. If in_flight is 1, all work is done here."""
        return self.detect_yuv(frames)

    def collect(self, pending: Any) -> list[Detections]:
        """Wait for the results of `submit`: faces of each frame, as from `detect_yuv`."""
        found: list[Detections] = pending
        return found

    def warm_up(self, frames: Sequence[HostFrame]) -> None:
        """Warm up for batches of up to this many such frames."""
