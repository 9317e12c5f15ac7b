"""One detector for several cameras: each may have one picture waiting, and they are served in the order of asking."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from engines.detector import Detector
from engines.letterbox import ImageView
from engines.types import Detections


class LookFailed(Exception):
    """A picture was not looked at: the detector raised, hangs or came too late."""


class Request:
    """A picture that somebody waits for."""

    def __init__(self, view: ImageView, threshold: float) -> None:
        self.view, self.threshold = view, threshold
        self.done = threading.Event()
        self.found: Detections | None = None
        self.error = ""
        self.given_up = False


class Desk:
    """Runs the detector on a thread of its own. batch: pictures of different cameras that go in together."""

    def __init__(self, detector: Detector, batch: int = 1) -> None:
        self.detector, self.batch = detector, batch
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

    def ask(self, view: ImageView, deadline_s: float, threshold: float | None = None) -> Detections:
        """The faces of a picture with at least this score (None: the detector's), within the deadline.

        Raises LookFailed.

        While the detector hangs for longer than that on an earlier picture, the answer comes at once: waiting for
        each would turn a detector that hangs into a camera that does.
        """
        request = Request(view, self.threshold if threshold is None else threshold)
        with self._lock:
            if self._stopped:
                raise LookFailed("the detector has been stopped")
            if self._busy_s and time.monotonic() - self._busy_s > deadline_s:
                raise LookFailed("the detector hangs")
            self._waiting.append(request)
            self._lock.notify_all()
        if not request.done.wait(deadline_s):
            request.given_up = True
            raise LookFailed(f"the detector took longer than {deadline_s:g} s")
        if request.found is None:
            raise LookFailed(request.error)
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
        found = self.detector.detect([request.view for request in requests])
        return [
            faces if request.threshold == lowest else _sure(faces, request.threshold)
            for request, faces in zip(requests, found, strict=True)
        ]

    def _take(self) -> list[Request] | None:
        """Those that come next; None at the end."""
        with self._lock:
            while True:
                self._waiting = deque(request for request in self._waiting if not request.given_up)
                if self._stopped:
                    return None
                if self._waiting:
                    break
                self._lock.wait()
            taken = [self._waiting.popleft() for _ in range(min(self.batch, len(self._waiting)))]
            self._busy_s = time.monotonic()
            return taken


def _sure(found: Detections, threshold: float) -> Detections:
    sure = found.scores >= threshold
    return Detections(found.xyxy[sure], found.scores[sure])


class Asked(Detector):
    """The desk, as a detector for one camera. threshold: may be changed at any time; None: the detector's."""

    def __init__(self, desk: Desk, deadline_s: float, threshold: float | None = None) -> None:
        super().__init__(desk.detector.options)
        self.desk, self.deadline_s, self.threshold = desk, deadline_s, threshold

    def infer(self, images: object) -> tuple[object, object]:  # type: ignore[override]
        raise NotImplementedError("it is asked for whole pictures")

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        if not coarsest:
            raise NotImplementedError("it is asked for faces of all sizes")
        return [self.desk.ask(image, self.deadline_s, self.threshold) for image in images]
