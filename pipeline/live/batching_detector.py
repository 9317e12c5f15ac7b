"""One detector for several cameras: each may have one picture waiting, and they are served in the order of asking.

Where the detector gains from batches, the first picture waits a little for those of other cameras.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from facestream.engines.base import Detector, YuvDetector
from facestream.engines.letterbox import ImageView
from facestream.engines.types import Detections, HostFrame

Picture = ImageView | HostFrame


class InferenceFailed(Exception):
    """A picture was not looked at: the detector raised, hangs or came too late."""


class Request:
    """A picture that somebody waits for."""

    def __init__(self, picture: Picture, threshold: float) -> None:
        self.picture, self.threshold = picture, threshold
        self.since_s = time.monotonic()
        self.done = threading.Event()
        self.found: Detections | None = None
        self.error = ""
        self.given_up = False


def queue_delay_s(waited_s: float, waiting: int, clients: int, batch: int, max_queue_delay_s: float) -> float:
    """For how long a batch of `waiting` pictures, whose first has waited for waited_s, is still held open for more:
    until it is full, nobody is left who could join it, or the first has waited for max_queue_delay_s."""
    if waiting >= min(batch, max(1, clients)):
        return 0.0
    return max(0.0, max_queue_delay_s - waited_s)


class BatchingDetector:
    """Runs the detector on a thread of its own. batch: frames of different cameras that go in together.
    max_queue_delay_s: how long the first of them waits for the others, see `queue_delay_s`. clients: how many cameras
    there are."""

    def __init__(self, detector: Detector, batch: int = 1, max_queue_delay_s: float = 0.0) -> None:
        self.detector, self.batch, self.max_queue_delay_s, self.clients = detector, batch, max_queue_delay_s, 0
        self.threshold = detector.options.threshold
        self._waiting: deque[Request] = deque()
        self._lock = threading.Condition()
        self._stopped = False
        self._busy_s = 0.0  # since when the detector has been at work, 0 when it rests
        self._thread = threading.Thread(target=self._run, name="detector", daemon=True)

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
        """The faces of a picture with at least this score (None: the detector's), within the deadline.

        Raises InferenceFailed.

        While the detector hangs for longer than that on an earlier picture, the answer comes at once: waiting for
        each would turn a detector that hangs into a camera that does.
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
        while (requests := self._take()) is not None:
            found: Sequence[Detections | None] = [None] * len(requests)
            error = ""
            try:
                found = self._look(requests)
            except Exception as problem:  # whatever it is: nobody has looked at these pictures
                error = f"the detector failed ({type(problem).__name__}: {problem})".splitlines()[0]
            with self._lock:
                self._busy_s = 0.0
            for request, faces in zip(requests, found, strict=True):
                request.found, request.error = faces, error
                request.done.set()

    def _look(self, requests: list[Request]) -> list[Detections]:
        """Each one's own threshold is applied afterwards: what has a lower score suppresses nothing with a higher."""
        lowest = min(request.threshold for request in requests)
        if lowest != self.detector.options.threshold:
            self.detector.options = replace(self.detector.options, threshold=lowest)
        found = self._found([request.picture for request in requests])
        return [
            faces if request.threshold == lowest else faces.at_least(request.threshold)
            for request, faces in zip(requests, found, strict=True)
        ]

    def _found(self, pictures: list[Picture]) -> list[Detections]:
        """Pictures as they are stored go in as one batch, and so do views."""
        stored = [p for p in pictures if isinstance(p, HostFrame)]
        views = [p for p in pictures if isinstance(p, ImageView)]
        planes: list[Detections] = []
        if stored:
            assert isinstance(self.detector, YuvDetector)
            planes = self.detector.detect_yuv(stored)
        of_stored, of_views = iter(planes), iter(self.detector.detect(views) if views else [])
        return [next(of_stored if isinstance(p, HostFrame) else of_views) for p in pictures]

    def _take(self) -> list[Request] | None:
        """Those that come next; None at the end."""
        with self._lock:
            while True:
                self._waiting = deque(request for request in self._waiting if not request.given_up)
                if self._stopped:
                    return None
                if not self._waiting:
                    self._lock.wait()
                    continue
                waited_s = time.monotonic() - self._waiting[0].since_s
                more_s = queue_delay_s(waited_s, len(self._waiting), self.clients, self.batch, self.max_queue_delay_s)
                if more_s <= 0:
                    break
                self._lock.wait(more_s)
            taken = [self._waiting.popleft() for _ in range(min(self.batch, len(self._waiting)))]
            self._busy_s = time.monotonic()
            return taken


class DetectorClient(YuvDetector):
    """The desk, as a detector for one camera. threshold: may be changed at any time; None: the detector's."""

    def __init__(self, desk: BatchingDetector, deadline_s: float, threshold: float | None = None) -> None:
        super().__init__(desk.detector.options)
        self.desk, self.deadline_s, self.threshold = desk, deadline_s, threshold
        desk.clients += 1

    @property
    def takes_yuv(self) -> bool:  # type: ignore[override]
        return self.desk.detector.takes_yuv

    @property
    def any_size(self) -> bool:  # type: ignore[override]
        return self.desk.detector.any_size

    @property
    def min_score(self) -> float:
        return self.desk.threshold if self.threshold is None else self.threshold

    def infer(self, images: object) -> tuple[object, object]:  # type: ignore[override]
        raise NotImplementedError("it is asked for whole pictures")

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        if not coarsest:
            raise NotImplementedError("it is asked for faces of all sizes")
        return [self.desk.submit(image, self.deadline_s, self.threshold) for image in images]

    def detect_yuv(self, pictures: Sequence[HostFrame]) -> list[Detections]:
        return [self.desk.submit(picture, self.deadline_s, self.threshold) for picture in pictures]
