"""A browser's own camera: its pictures come in as JPEG and leave covered. Each visitor has a thread, a ring of one
picture and a tracker; all ask the one detector, and nothing of one visitor waits for another."""

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
from facestream.pipeline.live.screen import boxed, encode, shrunk
from facestream.pipeline.live.tuning import Tuner
from facestream.pipeline.ring import Cancelled, Policy, Ring
from facestream.pipeline.types import Frame, TrackedFrame
from facestream.pipeline.video.picture import to_planar
from facestream.pipeline.video.uri import redact

MOST_BYTES = 1 << 20  # of a picture
MOST_PIXELS = 1920 * 1088
PATIENCE = 100  # messages without a picture, one after the other, after which a visitor is sent away


class Full(Exception):
    """As many visitors as are allowed are here already."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A visitor's picture. stamp: whatever it gave with it, and gets back with the covered one."""

    stamp: bytes
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """A visitor's figures so far. done: pictures that are dealt with, however; dropped: of them, those that came while
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
    """JPEG to planes, nothing else, and nothing larger than MOST_PIXELS."""

    def __init__(self) -> None:
        self._context: Any = av.CodecContext.create("mjpeg", "r")
        self._context.thread_count = 1  # more would keep pictures back
        self._context.options = {"max_pixels": str(MOST_PIXELS)}

    def decode(self, jpeg: bytes) -> av.VideoFrame:
        """Raises BadInput."""
        try:
            pictures = self._context.decode(av.Packet(jpeg)) if jpeg else []
        except (av.FFmpegError, ValueError):
            pictures = []
        if not pictures:
            raise BadInput("that is no JPEG, or too large a one", "your camera", f"at most {MOST_PIXELS} pixels")
        picture: av.VideoFrame = pictures[0]
        if min(picture.width, picture.height) < 16:
            raise BadInput("the picture is too small", "your camera")
        return to_planar(picture)


class Visitor:
    """One visitor. send: called on its thread with each picture that may leave, and with None when one more is done
    with; said: with words for it; gone: when it has been sent away. They must not wait."""

    def __init__(
        self, desk: BatchingDetector, config: Config, tuner: Tuner,
        send: Callable[[Shot | None], None], said: Callable[[str], None], gone: Callable[[], None],
    ) -> None:  # fmt: skip
        self.tuner, self._send, self._said, self._gone = tuner, send, said, gone
        self._stall_s = config.live.stall_s
        self._ring: Ring[Shot] = Ring(1, Policy.DROP_OLDEST, droppable=lambda shot: True)
        self._asked = DetectorClient(desk, config.live.deadline_s)
        self._guard = FailClosedPipeline(self._asked, config, config.live.seldom)
        self._decoder = JpegDecoder()
        self._clock = LiveClock(time.monotonic())
        self._stamps: dict[int, bytes] = {}  # of the frames inside
        self._taken = self._done = self._left = self._broken = self._faces = 0
        self._in_a_row = 0  # broken ones
        self.tune({})
        self._thread = threading.Thread(target=self._run, name="visitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ring.cancel()

    def join(self, timeout_s: float) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def take(self, shot: Shot) -> None:
        """Never waits: a picture that was not begun on yet gives way."""
        try:
            self._ring.put(shot)
        except Cancelled:
            self._gone()

    def tune(self, wish: Mapping[str, Any]) -> None:
        """Raises BadConfig for what may not be."""
        self._asked.threshold = self.tuner.change(wish).threshold

    @property
    def seen(self) -> Seen:
        counts = self._guard.counts
        dropped = self._ring.counts.dropped
        return Seen(
            self._done + dropped, self._left, dropped, self._broken,
            counts.fully_covered, counts.withheld, self._faces, redact(self._guard.trouble),
        )  # fmt: skip

    def _run(self) -> None:
        last = 0.0
        try:
            for shot in self._ring:
                now = time.monotonic()
                if now - last > self._stall_s:  # nobody wants to see what lies so far back
                    self._guard.flush()
                    self._stamps.clear()
                last = now
                self._look(shot)
                self._done += 1
                self._send(None)
        except Cancelled:
            pass
        except Exception as error:  # nothing more leaves
            self._said(f"it cannot go on: {type(error).__name__}: {error}".splitlines()[0])
            self._ring.cancel()
            self._gone()

    def _look(self, shot: Shot) -> None:
        try:
            picture = self._decoder.decode(shot.jpeg)
        except BadInput as error:
            self._broken, self._in_a_row = self._broken + 1, self._in_a_row + 1
            self._said(str(error))
            if self._in_a_row >= PATIENCE:
                self._ring.cancel()
                self._gone()
            return
        self._in_a_row = 0
        index, self._taken = self._taken, self._taken + 1
        pts = self._clock.tick(None, time.monotonic())
        picture.pts, picture.time_base = pts, TICK
        self._stamps[index] = shot.stamp
        # Each picture is looked at: a browser sends the next ones only as these are done with.
        for tracked in self._guard.push(Frame(index, pts, TICK, picture)):
            self._leave(tracked)
        self._stamps = {at: stamp for at, stamp in self._stamps.items() if at > index - 1000}

    def _leave(self, tracked: TrackedFrame) -> None:
        stamp = self._stamps.pop(tracked.frame.index, None)
        try:
            covered = self.tuner.coverer.cover(tracked)
            bgr = shrunk(covered, tracked.frame.size[0])
            jpeg = encode(boxed(bgr, covered) if self.tuner.boxes else bgr)
        except Exception as error:  # what cannot be covered does not leave
            self._guard.counts.withheld += 1
            self._guard.trouble = f"pictures are held back: {type(error).__name__}: {error}".splitlines()[0]
            return
        if stamp is not None:
            self._faces = sum(box.id > 0 for box in tracked.boxes)
            self._left += 1
            self._send(Shot(stamp, jpeg))


class Visitors:
    """All visitors of a run, at most config.live.visitors at a time."""

    def __init__(self, desk: BatchingDetector, config: Config, drawn: bool = False, bare: bool = False) -> None:
        lag = min(config.live.visitor_lookahead, config.tracker.lookahead)
        # A browser sends few pictures a second, between which faces move far: each is looked at.
        self.config = changed(config, {"tracker.lookahead": lag, "detector.every": 1}, "live.visitor_lookahead")
        self._desk, self._drawn, self._bare = desk, drawn, bare
        self._here: set[Visitor] = set()
        self._lock = threading.Lock()
        self._over = False
        self.came = self.refused = 0

    @property
    def most(self) -> int:
        return self.config.live.visitors

    @property
    def here(self) -> int:
        return len(self._here)

    def enter(
        self, send: Callable[[Shot | None], None], said: Callable[[str], None], gone: Callable[[], None]
    ) -> Visitor:
        """Raises Full."""
        with self._lock:
            if self._over or len(self._here) >= self.most:
                self.refused += 1
                raise Full
            tuner = Tuner(self.config, self._drawn, self._bare, self._desk.detector.adjustable)
            visitor = Visitor(self._desk, self.config, tuner, send, said, gone)
            visitor.start()
            self._here.add(visitor)
            self.came += 1
            return visitor

    def leave(self, visitor: Visitor) -> None:
        """Its place is free at once; its thread ends when the detector lets go of it."""
        visitor.stop()
        with self._lock:
            self._here.discard(visitor)

    def stop(self) -> list[Visitor]:
        """No more; those that are to be joined."""
        with self._lock:
            self._over = True
            here = list(self._here)
        for visitor in here:
            visitor.stop()
        return here
