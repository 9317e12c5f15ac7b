"""Batching detector: one detector shared by several cameras, first come, first served, one waiting frame per camera.

If the detector benefits from batches, the first frame waits briefly for those of other cameras.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from facestream.engines.base import Detector, YuvDetector
from facestream.engines.letterbox import ImageView
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections, HostFrame
from facestream.pipeline.errors import InferenceFailed

Picture = ImageView | HostFrame


class Request:
    """A frame submitted for detection."""

    def __init__(self, picture: Picture, threshold: float) -> None:
        self.picture = picture
        self.threshold = threshold
        self.since_s = time.monotonic()
        self.done = threading.Event()
        self.found: Detections | None = None
        self.error = ""
        self.given_up = False


@dataclass(slots=True)
class Flight:
    """Requests that the detector is processing. lowest: the lowest of their thresholds. pending: the batch of YUV
    frames among them. views: results of the others. error: why the detection failed."""

    requests: list[Request]
    lowest: float
    pending: Any = None
    views: list[Detections] = field(default_factory=list)
    error: str = ""
    since_s: float = field(default_factory=time.monotonic)


def _message(problem: Exception) -> str:
    return f"the detector failed ({type(problem).__name__}: {problem})".splitlines()[0]


def queue_delay_s(waited_s: float, waiting: int, clients: int, batch: int, max_queue_delay_s: float) -> float:
    """Seconds to keep collecting before running a batch of `waiting` frames, whose first has waited for waited_s: until
    it is full, no client is left who could join it, or the first has waited for max_queue_delay_s."""
    if waiting >= min(batch, max(1, clients)):
        return 0.0
    return max(0.0, max_queue_delay_s - waited_s)


class BatchingDetector:
    """Runs the detector on its own thread. batch: maximum number of frames of different cameras per batch.
    max_queue_delay_s: how long the first of them waits for others, see `queue_delay_s`. clients: number of cameras."""

    def __init__(self, detector: Detector, batch: int = 1, max_queue_delay_s: float = 0.0) -> None:
        self.detector = detector
        self.batch = batch
        self.max_queue_delay_s = max_queue_delay_s
        self.clients = 0
        self.threshold = detector.options.threshold
        self._waiting: deque[Request] = deque()
        self._lock = threading.Condition()
        self._stopped = False
        self._warm: set[tuple[Any, ...]] = set()  # sizes of frames and batches that were warmed up
        self._busy_s = 0.0  # since when the detector has been at work, 0 when it rests
        self._thread = threading.Thread(target=self._run, name="detector", daemon=True)

    @property
    def thread(self) -> threading.Thread:
        return self._thread

    @property
    def busy_s(self) -> float:
        """Seconds since the detector started the current batch; 0 while idle."""
        since = self._busy_s
        return time.monotonic() - since if since else 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            self._lock.notify_all()

    def join(self, timeout_s: float) -> bool:
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def submit(self, picture: Picture, deadline_s: float, threshold: float | None = None) -> Detections:
        """Faces of a frame with at least this score (None: the detector's threshold), within the deadline.

        Raises InferenceFailed; at once if the detector has been hanging on an earlier frame for longer than the
        deadline, since waiting for each frame would make the camera hang as well.
        """
        request = Request(picture, self.threshold if threshold is None else threshold)
        with self._lock:
            if self._stopped:
                raise InferenceFailed("the detector has been stopped")
            if self._busy_s and time.monotonic() - self._busy_s > deadline_s:
                raise InferenceFailed("the detector hangs")
            self._waiting.append(request)
            self._lock.notify_all()
        if not request.done.wait(deadline_s):
            request.given_up = True
            raise InferenceFailed(f"the detector took longer than {deadline_s:g} s")
        if request.found is None:
            raise InferenceFailed(request.error)
        return request.found

    def _run(self) -> None:
        """The thread's loop. A detector that can process several batches at once gets the next one before the previous
        one has finished."""
        flight: deque[Flight] = deque()
        depth = self.detector.in_flight if isinstance(self.detector, YuvDetector) else 1
        while (requests := self._take(wait=not flight)) is not None:
            if requests:
                flight.append(self._begin(requests))
            if flight and (not requests or len(flight) >= depth):
                self._finish(flight.popleft())
                with self._lock:
                    self._busy_s = flight[0].since_s if flight else 0.0
        while flight:
            self._finish(flight.popleft())

    def _begin(self, requests: list[Request]) -> Flight:
        """Frames as they are stored go in as one batch, and so do views. Each one's own threshold is applied
        at the end: what has a lower score suppresses nothing with a higher."""
        flight = Flight(requests, min(request.threshold for request in requests))
        if flight.lowest != self.detector.options.threshold:
            self.detector.options = replace(self.detector.options, threshold=flight.lowest)
        pictures = [request.picture for request in requests]
        stored = [p for p in pictures if isinstance(p, HostFrame)]
        views = [p for p in pictures if isinstance(p, ImageView)]
        try:
            if stored:
                assert isinstance(self.detector, YuvDetector)
                self._warm_up(stored)
                flight.pending = self.detector.submit(stored)
            if views:
                flight.views = self.detector.detect(views)
        except Exception as problem:  # whatever it is: nobody has looked at these pictures
            flight.error = _message(problem)
        return flight

    def _warm_up(self, stored: list[HostFrame]) -> None:
        """Warm up for the first frame of a new size, and when more cameras make batches larger, so that later batches
        do not wait for it."""
        assert isinstance(self.detector, YuvDetector)
        largest = max(1, min(self.batch, self.clients))
        for frame in stored:
            kind = frame.key, (largest - 1).bit_length()  # batches are padded to powers of two
            if kind not in self._warm:
                self._warm.add(kind)
                self.detector.warm_up([frame] * largest)

    def _finish(self, flight: Flight) -> None:
        found: list[Detections | None] = [None] * len(flight.requests)
        if not flight.error:
            try:
                planes: list[Detections] = []
                if flight.pending is not None:
                    assert isinstance(self.detector, YuvDetector)
                    planes = self.detector.collect(flight.pending)
                of_stored = iter(planes)
                of_views = iter(flight.views)
                for i, request in enumerate(flight.requests):
                    faces = next(of_stored if isinstance(request.picture, HostFrame) else of_views)
                    found[i] = faces.filter_by_score(request.threshold)  # a GPU's own threshold is fixed, and lower
            except Exception as problem:
                flight.error = _message(problem)
                found = [None] * len(flight.requests)
        for request, result in zip(flight.requests, found, strict=True):
            request.found = result
            request.error = flight.error
            request.done.set()

    def _take(self, wait: bool) -> list[Request] | None:
        """The next batch of requests; None at the end. wait: block until there are some, else return none."""
        with self._lock:
            while True:
                self._waiting = deque(request for request in self._waiting if not request.given_up)
                if self._stopped:
                    return None
                if not self._waiting:
                    if not wait:
                        return []
                    self._lock.wait()
                    continue
                waited_s = time.monotonic() - self._waiting[0].since_s
                more_s = queue_delay_s(waited_s, len(self._waiting), self.clients, self.batch, self.max_queue_delay_s)
                if more_s <= 0:
                    break
                if not wait:
                    return []
                self._lock.wait(more_s)
            taken = [self._waiting.popleft() for _ in range(min(self.batch, len(self._waiting)))]
            self._busy_s = self._busy_s or time.monotonic()
            return taken


class DetectorClient:
    """One camera's client of the shared detector: what FacePipeline needs of a detector, with a deadline.

    threshold: may be changed at any time; None: the detector's.
    """

    def __init__(self, shared: BatchingDetector, deadline_s: float, threshold: float | None = None) -> None:
        self.shared = shared
        self.deadline_s = deadline_s
        self.threshold = threshold
        shared.clients += 1

    @property
    def options(self) -> DetectorOptions:
        return self.shared.detector.options

    @property
    def takes_yuv(self) -> bool:
        return self.shared.detector.takes_yuv

    @property
    def any_size(self) -> bool:
        return self.shared.detector.any_size

    def detect(self, images: Sequence[ImageView]) -> list[Detections]:
        """Faces of each image. Raises InferenceFailed."""
        return [self.shared.submit(image, self.deadline_s, self.threshold) for image in images]

    def detect_yuv(self, pictures: Sequence[HostFrame]) -> list[Detections]:
        """Faces of each stored picture. Raises InferenceFailed."""
        return [self.shared.submit(picture, self.deadline_s, self.threshold) for picture in pictures]
