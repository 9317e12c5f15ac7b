"""A live source that is kept alive: opened, watched, and opened again for as long as it takes.

One thread opens, decodes and closes, since FFmpeg crashes when another one closes what is being read. Who watches it
only looks at the clock. A thread that hangs where FFmpeg has no time-out (a device that does not answer, a name server
that is gone) cannot be ended from outside: it is left behind, told to stop should it ever wake, and a new one starts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import av
from facestream.pipeline.connection import STEADY_S, Backoff, State
from facestream.pipeline.errors import Refused, SourceLost, UserError
from facestream.pipeline.live.audio import AudioPacket
from facestream.pipeline.live.clock import TICK, LiveClock
from facestream.pipeline.live.state import CameraOptions, Status
from facestream.pipeline.ring import Cancelled
from facestream.pipeline.types import Frame, SidePacket, StreamInfo
from facestream.pipeline.url import redact
from facestream.pipeline.video.pace import Pace
from facestream.pipeline.video.source import open_source
from facestream.pipeline.video.uri import Kind, Uri

_FINITE = (Kind.FILE, Kind.IMAGE, Kind.LAVFI)
LEFT_BEHIND = 3  # threads that may hang at a time


class Camera:
    """Gives the frames of one source to `put`, on a thread of its own, until stop().

    Frames are numbered through, over all connections; their time base is clock.TICK, counted from start().
    on_event: called with each new state or message, on any thread; it must not block.
    put may drop and must not wait; Cancelled from it ends the camera. on_audio: called with each audio packet, where it
    is set before start(); audio_stream is the stream that it belongs to, None where there is none.
    """

    def __init__(
        self,
        name: str,
        uri: Uri,
        options: CameraOptions,
        put: Callable[[Frame], None],
        on_event: Callable[[Status], None] = lambda status: None,
    ) -> None:
        self.name, self.uri, self.options = name, uri, options
        self.epoch_s = 0.0  # wall-clock time of tick 0
        self.on_audio: Callable[[AudioPacket], None] | None = None
        self.audio_stream: av.AudioStream | None = None
        self._early: list[SidePacket] = []  # sound that came before the next picture
        self._put, self._on_event = put, on_event
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._turn = self._began = 0  # the number of the thread that may act, and of the last one that was started
        self._hanging: list[threading.Thread] = []
        self._thread: threading.Thread | None = None
        self._status = Status(name, State.CONNECTING)
        self._backoff = Backoff(max_s=options.max_backoff_s, refused_s=options.refused_wait_s)
        self._pace, self._paced = Pace(), False
        self._sign_s = self._frame_s = self._live_s = 0.0  # last sign of life, last frame, begin of the connection
        self._resting = False  # between two tries
        self._over = False  # nothing is tried any more

    @property
    def status(self) -> Status:
        return self._status

    @property
    def over(self) -> bool:
        """Nothing is tried any more: a file's end, or a fault that cannot pass."""
        return self._over

    def start(self) -> None:
        self.epoch_s = time.time()
        self._clock = LiveClock(time.monotonic())
        self._begin()

    def stop(self) -> None:
        """Ask it to end; returns at once."""
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for its thread; False when that still hangs in FFmpeg."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def check(self) -> None:
        """The watchdog, to be called a few times a second from another thread."""
        with self._lock:
            now, state = time.monotonic(), self._status.state
            if self._stop.is_set() or self._resting or self._over:
                return
            if state is State.LIVE and now - self._frame_s > self._patience():
                what = f"no picture for {now - self._frame_s:.1f} s"
                self._become(State.STALLED, what, stalls=self._status.stalls + 1)
            if now - self._sign_s > self.options.hang_s:
                self._leave_behind()

    def _begin(self) -> None:
        self._turn += 1
        self._sign_s = time.monotonic()
        turn = self._began = self._turn
        self._thread = threading.Thread(target=self._run, args=(turn,), name=f"camera {self.name}", daemon=True)
        self._thread.start()

    def _leave_behind(self) -> None:
        """Give the thread that hangs up; a new one starts as long as few of them hang."""
        assert self._thread is not None
        if self._turn == self._began:  # not yet given up
            self._turn += 1
            self._hanging.append(self._thread)
            self._become(State.RECONNECTING, "it hangs and is opened anew", hangs=self._status.hangs + 1)
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) < LEFT_BEHIND:
            self._begin()
        else:
            self._become(State.FAILED, "it hangs, again and again; it is opened anew when it lets go")

    def _patience(self) -> float:
        """Slow cameras are not stalled between two pictures."""
        rate = self._status.rate
        return max(self.options.stall_s, 3 / rate if rate > 0 else 0.0)

    def _run(self, turn: int) -> None:
        try:
            while True:
                refused = False
                try:
                    self._connect(turn)
                    if not self.options.loop:
                        self._end(turn, State.ENDED, "")
                        return
                    continue
                except UserError as error:
                    what, refused = _words(error), isinstance(error, Refused)
                    final = self.uri.kind in _FINITE and not (self.options.loop and isinstance(error, SourceLost))
                    state = State.ENDED if isinstance(error, SourceLost) else State.FAILED
                except Cancelled:
                    raise
                except Exception as error:  # a fault of ours or FFmpeg's must not end a camera for good
                    what, final = redact(f"{type(error).__name__}: {error}".splitlines()[0]), False
                    state = State.FAILED
                if final:
                    self._end(turn, state, what)
                    return
                self._rest(turn, what, refused)
        except Cancelled:
            pass

    def _connect(self, turn: int) -> None:
        """Open, deliver, close: one connection, to its end."""
        options, now = self.options, time.monotonic()
        with self._lock:
            self._check_turn(turn)
            self._sign_s = self._frame_s = now
            self._limit_s, self._live_s = options.first_frame_s, 0.0
            self._clock.restart()
        source = open_source(self.uri, replace(options.source, interrupt_callback=lambda: self._check_interrupt(turn)))
        try:
            info = source.open()
            self._pace.restart(segmented=info.container == "hls")
            self._paced = options.paced and (self.uri.kind in _FINITE or not info.live or self._pace.segmented)
            self.audio_stream = next((side for side in info.side_streams if isinstance(side, av.AudioStream)), None)
            self._early, first = [], True
            for item in source.items():
                if isinstance(item, SidePacket):
                    self._queue_audio(item)
                elif not self._pace.seen(item.time_s):
                    self._take(turn, item, info if first else None)
                    self._send_audio()
                    first = False
        finally:
            source.close()

    def _queue_audio(self, item: SidePacket) -> None:
        """Sound waits for the next picture: only that tells where both are in time."""
        if (
            self.on_audio is not None
            and self.audio_stream is not None
            and item.packet.stream_index == self.audio_stream.index
        ):
            self._early = [*self._early[-999:], item]

    def _send_audio(self) -> None:
        early, self._early = self._early, []
        for item in early:
            packet = item.packet
            time = packet.pts if packet.pts is not None else packet.dts
            ticks = None if time is None else self._clock.place(float(time * packet.time_base))
            if ticks is not None and self.on_audio is not None:
                self.on_audio(AudioPacket(packet, ticks))

    def _check_interrupt(self, turn: int) -> None:
        """Between two packets: is it to end, and do pictures come out of all these packets?"""
        self._check_turn(turn)
        self._sign_s = now = time.monotonic()
        if now - self._frame_s > self._limit_s:
            raise SourceLost(f"data came, but no picture for {now - self._frame_s:.0f} s", self.uri.shown)

    def _check_turn(self, turn: int) -> None:
        if self._stop.is_set() or turn != self._turn:
            raise Cancelled

    def _take(self, turn: int, frame: Frame, info: StreamInfo | None) -> None:
        if self._paced:
            self._await(frame)
        with self._lock:
            self._check_turn(turn)
            now, status = time.monotonic(), self._status
            ticks = self._clock.tick(frame.time_s, now)
            self._sign_s = self._frame_s = now
            self._limit_s = self.options.dead_s
            counts: dict[str, Any] = {
                "frames": status.frames + 1,
                "damaged": status.damaged + bool(frame.picture.is_corrupt),
            }
            width, height = frame.size
            if info is not None:
                self._live_s = now
                rate = float(info.rate) if info.rate else 0.0
                counts["connects"] = status.connects + 1
                self._status = replace(status, rate=rate)
            if status.state is not State.LIVE or (width, height) != (status.width, status.height):
                sized = replace(self._status, width=width, height=height)
                self._status = sized
                self._become(State.LIVE, f"{width}x{height}", **counts)
            else:
                self._status = replace(self._status, **counts)
            index = status.frames
        self._put(replace(frame, index=index, pts=ticks, time_base=TICK))

    def _await(self, frame: Frame) -> None:
        """Wait until a frame is due that could be had earlier, as if it came from a camera."""
        while (wait := self._pace.wait_s(frame.time_s, time.monotonic())) > 0 and not self._stop.is_set():
            self._sign_s = time.monotonic()
            self._stop.wait(min(wait, 0.5))

    def _rest(self, turn: int, what: str, refused: bool) -> None:
        with self._lock:
            self._check_turn(turn)
            if self._live_s and time.monotonic() - self._live_s > STEADY_S:
                self._backoff.reset()
            wait = self._backoff.next(refused)
            losses = self._status.losses + bool(self._live_s)
            self._resting = True
            if refused:
                self._become(
                    State.FAILED, f"{what}; tried again every {self.options.refused_wait_s:.0f} s", losses=losses
                )
            else:
                self._become(State.RECONNECTING, what, losses=losses)
        self._stop.wait(wait)
        with self._lock:
            self._resting = False
            self._sign_s = time.monotonic()
            self._check_turn(turn)

    def _end(self, turn: int, state: State, message: str) -> None:
        with self._lock:
            self._check_turn(turn)
            self._over = True
            self._become(state, message)

    def _become(self, state: State, message: str, **counts: Any) -> None:
        """Under the lock."""
        before = self._status
        self._status = replace(before, state=state, message=message, **counts)
        if (state, message) != (before.state, before.message):
            self._status = replace(self._status, since_s=time.monotonic())
            self._on_event(self._status)


def _words(error: UserError) -> str:
    return redact(error.what + (f" ({error.do})" if error.do else ""))
