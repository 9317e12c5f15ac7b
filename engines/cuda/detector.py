"""A detector whose frames are prepared, looked at and suppressed on the GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from facestream.engines.base import DetectorOptions, YuvDetector
from facestream.engines.boxes import F32, Array
from facestream.engines.cuda.pipeline import GpuPipeline, Ticket
from facestream.engines.types import Detections, HostFrame


class GpuDetector(YuvDetector):
    """Detects in batches on a GPU; `submit` and `collect` let the next batch be filled while one is worked on."""

    adjustable = False  # the GPU applies the threshold

    def __init__(self, loop: GpuPipeline, max_batch: int, options: DetectorOptions) -> None:
        super().__init__(options)
        self.loop = loop
        self.max_batch = max_batch
        self.batch = max_batch

    def submit(self, pictures: Sequence[HostFrame]) -> Ticket:
        """Start on at most `max_batch` pictures, copied before this returns."""
        return self.loop.submit(pictures)

    def collect(self, ticket: Ticket) -> list[Detections]:
        """Faces of each picture of a batch, in its own pixels."""
        out = []
        for picture, (xyxy, scores) in zip(ticket.pictures, self.loop.result(ticket), strict=True):
            scale = np.array([picture.width / picture.fitted[0], picture.height / picture.fitted[1]] * 2, np.float32)
            out.append(Detections(xyxy * scale, scores))
        return out

    def detect_yuv(self, pictures: Sequence[HostFrame]) -> list[Detections]:
        tickets = [self.submit(pictures[at : at + self.max_batch]) for at in range(0, len(pictures), self.max_batch)]
        return [found for ticket in tickets for found in self.collect(ticket)]

    def infer(self, images: Array) -> tuple[F32, F32]:
        """As Detector.infer, but what comes is suppressed already, and filled up with zeros."""
        size = images.shape[2], images.shape[1]
        found = self.detect_yuv([HostFrame("rgb24", (image,), size, *size) for image in images])
        longest = max((len(f) for f in found), default=0)
        xyxy, scores = np.zeros((len(images), longest, 4), np.float32), np.zeros((len(images), longest), np.float32)
        for i, f in enumerate(found):
            xyxy[i, : len(f)], scores[i, : len(f)] = f.xyxy, f.scores
        return xyxy, scores
