"""A detector with preprocessing, inference and NMS on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from facestream.engines.base import YuvDetector
from facestream.engines.boxes import F32, Array
from facestream.engines.cuda.pipeline import GpuPipeline, Ticket
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections, HostFrame

# Frames of two shapes go in as one batch where its input has at most this many times the pixels of two batches: beyond
# that, grey costs more than the launches that it saves.
WASTE = 1.25


@dataclass(frozen=True, slots=True)
class Pending:
    """Frames that the GPU is processing. order: for each batch, the indices of its frames."""

    frames: tuple[HostFrame, ...]
    tickets: tuple[Ticket, ...]
    order: tuple[tuple[int, ...], ...]


class GpuDetector(YuvDetector):
    """Detects in batches on a GPU; between `submit` and `collect` the caller may fill the next batch."""

    adjustable = False  # the GPU applies the threshold
    in_flight = 2  # batches that are worth having on their way at once: one is worked on, one is being filled

    def __init__(self, pipeline: GpuPipeline, max_batch: int, options: DetectorOptions) -> None:
        super().__init__(options)
        self.pipeline = pipeline
        self.max_batch = max_batch
        self.batch = max_batch

    def submit(self, frames: Sequence[HostFrame]) -> Pending:
        """Start on frames, copied before this returns; those of one shape go in together, at most `max_batch`."""
        order = tuple(self._batches(frames))
        tickets = tuple(self.pipeline.submit([frames[i] for i in batch]) for batch in order)
        return Pending(tuple(frames), tickets, order)

    def collect(self, pending: Pending) -> list[Detections]:
        """Faces of each frame, in its own pixels."""
        out = [Detections.empty()] * len(pending.frames)
        for ticket, batch in zip(pending.tickets, pending.order, strict=True):
            for i, (xyxy, scores) in zip(batch, self.pipeline.result(ticket), strict=True):
                frame = pending.frames[i]
                scale = np.array([frame.width / frame.fitted[0], frame.height / frame.fitted[1]] * 2, np.float32)
                out[i] = Detections(xyxy * scale, scores)
        return out

    def detect_yuv(self, frames: Sequence[HostFrame]) -> list[Detections]:
        return self.collect(self.submit(frames))

    def warm_up(self, frames: Sequence[HostFrame]) -> None:
        for batch in self._batches(frames):
            self.pipeline.warm_up([frames[i] for i in batch])

    def infer(self, images: Array) -> tuple[F32, F32]:
        """As Detector.infer, but what comes is suppressed already, and filled up with zeros."""
        size = images.shape[2], images.shape[1]
        found = self.detect_yuv([HostFrame("rgb24", (image,), size, *size) for image in images])
        longest = max((len(f) for f in found), default=0)
        xyxy = np.zeros((len(images), longest, 4), np.float32)
        scores = np.zeros((len(images), longest), np.float32)
        for i, f in enumerate(found):
            xyxy[i, : len(f)] = f.xyxy
            scores[i, : len(f)] = f.scores
        return xyxy, scores

    def _batches(self, frames: Sequence[HostFrame]) -> list[tuple[int, ...]]:
        """Indices of the frames that go in together, sorted by what they are shrunk to."""
        made: list[list[int]] = []
        for i in sorted(range(len(frames)), key=lambda i: (frames[i].fitted, i)):
            if made and len(made[-1]) < self.max_batch and _fits([frames[k] for k in made[-1]], frames[i]):
                made[-1].append(i)
            else:
                made.append([i])
        return [tuple(batch) for batch in made]


def _fits(batch: Sequence[HostFrame], frame: HostFrame) -> bool:
    width, height = (max(f.fitted[k] for f in (*batch, frame)) for k in (0, 1))
    own = sum(f.fitted[0] * f.fitted[1] for f in (*batch, frame))
    return width * height * (len(batch) + 1) <= WASTE * own
