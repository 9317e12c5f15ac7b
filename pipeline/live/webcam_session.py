"""Webcam sessions: a browser's own camera sends JPEG frames and gets them back covered. Each session has a thread, a
queue of one frame and a tracker; all share the detector, and no session waits for another."""

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
from facestream.pipeline.types import BoxKind, Frame, TrackedFrame
from facestream.pipeline.url import redact
from facestream.pipeline.video.picture import to_planar

MAX_JPEG_BYTES = 1 << 20  # of a frame
MAX_PIXELS = 1920 * 1088
MAX_BROKEN_IN_A_ROW = 100  # consecutive invalid frames after which a session is ended


class TooManySessions(Exception):
    """The maximum number of sessions is active."""


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """A session's frame. correlation_id: set by the browser, returned with the covered frame."""

    correlation_id: bytes
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class SessionStats:
    """A session's counts so far. done: frames that are finished in any way; dropped: those of them that came while it
    was busy; broken: invalid ones."""

    done: int
    left: int
    dropped: int
    broken: int
    fully_covered: int
    withheld: int
    faces: int
    trouble: str


class JpegDecoder:
    """Decodes JPEG, no other format, up to MAX_PIXELS."""

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
    """One session. send: called on its thread with each covered frame, and with None for each finished frame without
    one; on_message: with messages for the browser; on_end: when the session was ended. They must not block."""

    def __init__(
        self, shared_detector: BatchingDetector, config: Config, tuner: Tuner,
        send: Callable[[JpegFrame | None], None], on_message: Callable[[str], None], on_end: Callable[[], None],
    ) -> None:  # fmt: skip
        self.tuner = tuner
        self._send = send
        self._on_message = on_message
        self._on_end = on_end
        self._stall_s = config.run.stall_s
        self._ring: Ring[JpegFrame] = Ring(1, Policy.DROP_OLDEST, droppable=lambda jpeg_frame: True)
        self._client = DetectorClient(shared_detector, config.run.deadline_s)
        self._fail_closed = FailClosedPipeline(self._client, config, config.run.max_detect_interval)
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
        """Queue a frame without waiting; replaces one that is not processed yet."""
        try:
            self._ring.put(jpeg_frame)
        except Cancelled:
            self._on_end()

    def tune(self, settings_patch: Mapping[str, Any]) -> None:
        """Change settings. Raises BadConfig for values that are not allowed."""
        self._client.threshold = self.tuner.change(settings_patch).threshold

    @property
    def stats(self) -> SessionStats:
        counts = self._fail_closed.counts
        dropped = self._ring.counts.dropped
        return SessionStats(
            self._done + dropped, self._left, dropped, self._broken,
            counts.fully_covered, counts.withheld, self._faces, redact(self._fail_closed.trouble),
        )  # fmt: skip

    def _run(self) -> None:
        last = 0.0
        try:
            for jpeg_frame in self._ring:
                now = time.monotonic()
                if now - last > self._stall_s:  # too old to be shown
                    self._fail_closed.flush()
                    self._correlation_ids.clear()
                last = now
                self._detect(jpeg_frame)
                self._done += 1
                self._send(None)
        except Cancelled:
            pass
        except Exception as error:  # nothing more leaves
            self._on_message(f"it cannot go on: {type(error).__name__}: {error}".splitlines()[0])
            self._ring.cancel()
            self._on_end()

    def _detect(self, jpeg_frame: JpegFrame) -> None:
        try:
            picture = self._decoder.decode(jpeg_frame.jpeg)
        except BadInput as error:
            self._broken = self._broken + 1
            self._in_a_row = self._in_a_row + 1
            self._on_message(str(error))
            if self._in_a_row >= MAX_BROKEN_IN_A_ROW:
                self._ring.cancel()
                self._on_end()
            return
        self._in_a_row = 0
        index = self._taken
        self._taken = self._taken + 1
        pts = self._clock.tick(None, time.monotonic())
        picture.pts = pts
        picture.time_base = TICK
        self._correlation_ids[index] = jpeg_frame.correlation_id
        # Detection runs on every frame: a browser sends the next one only when one is finished.
        for tracked in self._fail_closed.push(Frame(index, pts, TICK, picture)):
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
            self._fail_closed.counts.withheld += 1
            self._fail_closed.trouble = f"pictures are withheld: {type(error).__name__}: {error}".splitlines()[0]
            return
        if correlation_id is not None:
            self._faces = sum(box.kind is BoxKind.FACE for box in tracked.boxes)
            self._left += 1
            self._send(JpegFrame(correlation_id, jpeg))


class WebcamSessions:
    """All webcam sessions of a run, at most config.run.webcam_sessions at a time."""

    def __init__(
        self, shared_detector: BatchingDetector, config: Config, drawn: bool = False, bare: bool = False
    ) -> None:
        lag = min(config.run.webcam_lookahead, config.tracker.lookahead)
        # A browser sends few frames per second, between which faces move far: detection runs on each.
        self.config = changed(config, {"tracker.lookahead": lag, "detector.every": 1}, "run.webcam_lookahead")
        self._shared_detector = shared_detector
        self._drawn = drawn
        self._bare = bare
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
        """Start a session. Raises TooManySessions."""
        with self._lock:
            if self._over or len(self._active) >= self.limit:
                self.refused += 1
                raise TooManySessions
            tuner = Tuner(self.config, self._drawn, self._bare, self._shared_detector.detector.adjustable)
            session = WebcamSession(self._shared_detector, self.config, tuner, send, on_message, on_end)
            session.start()
            self._active.add(session)
            self.total += 1
            return session

    def leave(self, session: WebcamSession) -> None:
        """End a session. Its place is free at once; its thread ends when the detector returns."""
        session.stop()
        with self._lock:
            self._active.discard(session)

    def stop(self) -> list[WebcamSession]:
        """Refuse new sessions and end all; returns those to be joined."""
        with self._lock:
            self._over = True
            active = list(self._active)
        for session in active:
            session.stop()
        return active
