"""Frames of a file submitted to the detector before their turn comes, as batches: a GPU gains from that, and works on
one batch while the frames of the next are decoded and those before it are tracked and covered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from facestream.engines.base import Detector, YuvDetector
from facestream.engines.boxes import F32, Array
from facestream.engines.letterbox import ImageView
from facestream.engines.types import Detections, HostFrame
from facestream.pipeline.config import DetectorConfig
from facestream.pipeline.types import Frame
from facestream.pipeline.video.planes import host_frame

T = TypeVar("T")


@dataclass(slots=True)
class Batch:
    """frames: as long as they are held nothing else can lie where they lie. found: None until it was asked for."""

    frames: list[Frame]
    pending: Any
    found: list[Detections] | None = None


class ReadAhead(YuvDetector):
    """Stands for a detector that takes frames as they are stored: those that `items` has let through were submitted
    before, where the settings have them detected on, and are only waited for here."""

    def __init__(self, detector: YuvDetector, config: DetectorConfig) -> None:
        super().__init__(detector.options)
        self.detector = detector
        self.size = config.size
        self.every = 1 if config.every == "auto" else int(config.every)
        self.any_size = detector.any_size
        self.batch = detector.batch
        self.block = detector.batch * self.every  # frames of which a batch is looked at
        self._batches: deque[Batch] = deque()
        self._known: dict[int, tuple[Batch, int]] = {}  # by where a frame's first plane lies

    @staticmethod
    def of(detector: Detector, config: DetectorConfig) -> ReadAhead | None:
        """None for a detector that gains nothing from it."""
        if isinstance(detector, YuvDetector) and detector.takes_yuv and detector.in_flight > 1:
            return ReadAhead(detector, config)
        return None

    def items(self, source: Iterable[T]) -> Iterator[T]:
        """The same in the same order, frames up to two blocks later. What the source raises comes after all else."""
        waiting: deque[T] = deque()
        fresh: list[Frame] = []
        frames = 0
        error: Exception | None = None
        try:
            for item in source:
                waiting.append(item)
                if not isinstance(item, Frame):
                    continue
                fresh.append(item)
                frames += 1
                if len(fresh) == self.block:
                    self._start(fresh)
                    fresh = []
                while frames > 2 * self.block:
                    frames -= isinstance(waiting[0], Frame)
                    yield waiting.popleft()
        except Exception as e:
            error = e
        self._start(fresh)
        yield from waiting
        if error is not None:
            raise error

    def _start(self, frames: list[Frame]) -> None:
        due = [(frame, host_frame(frame, self.size)) for frame in frames if frame.index % self.every == 0]
        submitted = [(frame, picture) for frame, picture in due if picture is not None]
        while len(self._batches) > 3:  # their frames have left
            oldest = self._batches.popleft()
            self._known = {at: entry for at, entry in self._known.items() if entry[0] is not oldest}
        if not submitted:
            return
        batch = Batch([frame for frame, _ in submitted], self.detector.submit([picture for _, picture in submitted]))
        self._batches.append(batch)
        for i, (_, picture) in enumerate(submitted):
            self._known[_place(picture)] = batch, i

    def detect_yuv(self, frames: Sequence[HostFrame]) -> list[Detections]:
        return [self._one(frame) for frame in frames]

    def _one(self, frame: HostFrame) -> Detections:
        batch, i = self._known.pop(_place(frame), (None, 0))
        if batch is None:
            return self.detector.detect_yuv([frame])[0]
        if batch.found is None:
            batch.found = self.detector.collect(batch.pending)
        return batch.found[i]

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        return self.detector.detect(images, coarsest)

    def infer(self, images: Array) -> tuple[F32, F32]:
        return self.detector.infer(images)


def _place(frame: HostFrame) -> int:
    return int(frame.planes[0].ctypes.data)
