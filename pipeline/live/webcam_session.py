"""A browser's own camera: its pictures come in as JPEG and leave covered. Each session has a thread, a ring of one
picture and a tracker; all ask the one detector, and nothing of one session waits for another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import av
from facestream.pipeline.config import Config, changed
from facestream.pipeline.errors import BadInput
from facestream.pipeline.live.batching_detector import BatchingDetector, DetectorClient
from facestream.pipeline.live.clock import TICK, LiveClock
from facestream.pipeline.live.fail_closed import FailClosedPipeline
from facestream.pipeline.live.screen import draw_boxes, encode, scaled_bgr
from facestream.pipeline.live.tuning import Tuner
from facestream.pipeline.ring import Cancelled, Policy, Ring
from facestream.pipeline.types import Frame, TrackedFrame
from facestream.pipeline.url import redact
from facestream.pipeline.video.picture import to_planar

MAX_JPEG_BYTES = 1 << 20  # of a picture
MAX_PIXELS = 1920 * 1088
MAX_BROKEN_IN_A_ROW = 100  # messages without a picture, one after the other, after which a session is sent away


class TooManySessions(Exception):
    """As many sessions as are allowed are active already."""


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """A session's picture. correlation_id: whatever it gave with it, and gets back with the covered one."""

    correlation_id: bytes
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class SessionStats:
    """A session's figures so far. done: pictures that are dealt with, however; dropped: of them, those that total while
    it was busy; broken: those that were none."""

    done: int
    left: int
    dropped: int
    broken: int
    veiled: int
    held: int
    faces: int
    trouble: str


class JpegDecoder:
    """JPEG to planes, nothing else, and nothing larger than MAX_PIXELS."""

    def __init__(self) -> None:
        self._context: Any = av.CodecContext.create("mjpeg", "r")
        self._context.thread_count = 1  # more would keep pictures back
        self._context.options = {"max_pixels": str(MAX_PIXELS)}

    def decode(self, jpeg: bytes) -> av.VideoFrame:
        """Raises BadInput."""
        try:
            pictures = self._context.decode(av.Packet(jpeg)) if jpeg else []
        except (av.FFmpegError, ValueError):
            pictures = []
        if not pictures:
            raise BadInput("that is no JPEG, or too large a one", "your camera", f"at limit {MAX_PIXELS} pixels")
        picture: av.VideoFrame = pictures[0]
        if min(picture.width, picture.height) < 16:
            raise BadInput("the picture is too small", "your camera")
        return to_planar(picture)


class WebcamSession:
    """One session. send: called on its thread with each picture that may leave, and with None when one more is done
    with; on_message: with words for it; on_end: when it has been sent away. They must not wait."""

    def __init__(
        self, desk: BatchingDetector, config: Config, tuner: Tuner,
        send: Callable[[JpegFrame | None], None], on_message: Callable[[str], None], on_end: Callable[[], None],
    ) -> None:  # fmt: skip
        self.tuner, self._send, self._on_message, self._on_end = tuner, send, on_message, on_end
        self._stall_s = config.run.stall_s
        self._ring: Ring[JpegFrame] = Ring(1, Policy.DROP_OLDEST, droppable=lambda jpeg_frame: True)
        self._asked = DetectorClient(desk, config.run.deadline_s)
        self._guard = FailClosedPipeline(self._asked, config, config.run.max_detect_interval)
        self._decoder = JpegDecoder()
        self._clock = LiveClock(time.monotonic())
        self._correlation_ids: dict[int, bytes] = {}  # of the frames inside
        self._taken = self._done = self._left = self._broken = self._faces = 0
        self._in_a_row = 0  # broken ones
        self.tune({})
        self._thread = threading.Thread(target=self._run, name="webcam session", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ring.cancel()

    def join(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def take(self, jpeg_frame: JpegFrame) -> None:
        """Never waits: a picture that was not begun on yet gives way."""
        try:
            self._ring.put(jpeg_frame)
        except Cancelled:
            self._on_end()

    def tune(self, settings_patch: Mapping[str, Any]) -> None:
        """Raises BadConfig for what may not be."""
        self._asked.threshold = self.tuner.change(settings_patch).threshold

    @property
    def stats(self) -> SessionStats:
        counts = self._guard.counts
        dropped = self._ring.counts.dropped
        return SessionStats(
            self._done + dropped, self._left, dropped, self._broken,
            counts.fully_covered, counts.withheld, self._faces, redact(self._guard.trouble),
        )  # fmt: skip

    def _run(self) -> None:
        last = 0.0
        try:
            for jpeg_frame in self._ring:
                now = time.monotonic()
                if now - last > self._stall_s:  # nobody wants to see what lies so far back
                    self._guard.flush()
                    self._correlation_ids.clear()
                last = now
                self._look(jpeg_frame)
                self._done += 1
                self._send(None)
        except Cancelled:
            pass
        except Exception as error:  # nothing more leaves
            self._on_message(f"it cannot go on: {type(error).__name__}: {error}".splitlines()[0])
            self._ring.cancel()
            self._on_end()

    def _look(self, jpeg_frame: JpegFrame) -> None:
        try:
            picture = self._decoder.decode(jpeg_frame.jpeg)
        except BadInput as error:
            self._broken, self._in_a_row = self._broken + 1, self._in_a_row + 1
            self._on_message(str(error))
            if self._in_a_row >= MAX_BROKEN_IN_A_ROW:
                self._ring.cancel()
                self._on_end()
            return
        self._in_a_row = 0
        index, self._taken = self._taken, self._taken + 1
        pts = self._clock.tick(None, time.monotonic())
        picture.pts, picture.time_base = pts, TICK
        self._correlation_ids[index] = jpeg_frame.correlation_id
        # Each picture is looked at: a browser sends the next ones only as these are done with.
        for tracked in self._guard.push(Frame(index, pts, TICK, picture)):
            self._leave(tracked)
        self._correlation_ids = {
            at: correlation_id for at, correlation_id in self._correlation_ids.items() if at > index - 1000
        }

    def _leave(self, tracked: TrackedFrame) -> None:
        correlation_id = self._correlation_ids.pop(tracked.frame.index, None)
        try:
            covered = self.tuner.coverer.cover(tracked)
            bgr = scaled_bgr(covered, tracked.frame.size[0])
            jpeg = encode(draw_boxes(bgr, covered) if self.tuner.boxes else bgr)
        except Exception as error:  # what cannot be covered does not leave
            self._guard.counts.withheld += 1
            self._guard.trouble = f"pictures are held back: {type(error).__name__}: {error}".splitlines()[0]
            return
        if correlation_id is not None:
            self._faces = sum(box.id > 0 for box in tracked.boxes)
            self._left += 1
            self._send(JpegFrame(correlation_id, jpeg))


class WebcamSessions:
    """All webcam sessions of a run, at limit config.run.webcam_sessions at a time."""

    def __init__(self, desk: BatchingDetector, config: Config, drawn: bool = False, bare: bool = False) -> None:
        lag = min(config.run.webcam_lookahead, config.tracker.lookahead)
        # A browser sends few pictures a second, between which faces move far: each is looked at.
        self.config = changed(config, {"tracker.lookahead": lag, "detector.every": 1}, "run.webcam_lookahead")
        self._desk, self._drawn, self._bare = desk, drawn, bare
        self._active: set[WebcamSession] = set()
        self._lock = threading.Lock()
        self._over = False
        self.total = self.refused = 0

    @property
    def limit(self) -> int:
        return self.config.run.webcam_sessions

    @property
    def active(self) -> int:
        return len(self._active)

    def enter(
        self, send: Callable[[JpegFrame | None], None], on_message: Callable[[str], None], on_end: Callable[[], None]
    ) -> WebcamSession:
        """Raises Full."""
        with self._lock:
            if self._over or len(self._active) >= self.limit:
                self.refused += 1
                raise TooManySessions
            tuner = Tuner(self.config, self._drawn, self._bare, self._desk.detector.adjustable)
            session = WebcamSession(self._desk, self.config, tuner, send, on_message, on_end)
            session.start()
            self._active.add(session)
            self.total += 1
            return session

    def leave(self, session: WebcamSession) -> None:
        """Its place is free at once; its thread ends when the detector lets go of it."""
        session.stop()
        with self._lock:
            self._active.discard(session)

    def stop(self) -> list[WebcamSession]:
        """No more; those that are to be joined."""
        with self._lock:
            self._over = True
            active = list(self._active)
        for session in active:
            session.stop()
        return active
