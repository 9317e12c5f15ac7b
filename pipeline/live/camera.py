"""A live source with a watchdog: opens it, and reconnects with backoff whenever it fails.

One thread opens, decodes and closes, since FFmpeg crashes when another thread closes a source that is being read. The
watchdog only compares times. A thread that hangs where FFmpeg has no time-out (an unresponsive device, DNS lookup)
cannot be stopped from outside: it is abandoned, asked to stop should it ever continue, and replaced by a new one.
"""

from __future__ import annotations

import gc
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import av
from facestream.pipeline.connection import STEADY_S, Backoff, State
from facestream.pipeline.errors import BadInput, Refused, SourceLost, UserError
from facestream.pipeline.live.audio import AudioPacket
from facestream.pipeline.live.clock import TICK, LiveClock
from facestream.pipeline.live.state import CameraOptions, Status
from facestream.pipeline.ring import Cancelled
from facestream.pipeline.rtsp.client import PushOptions, answers
from facestream.pipeline.rtsp.relay import RtspRelay
from facestream.pipeline.types import Frame, SidePacket, StreamInfo
from facestream.pipeline.url import redact
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.pace import Pace
from facestream.pipeline.video.source import Source, open_source
from facestream.pipeline.video.uri import TRANSPORT_REFUSED, Kind, Uri

_FINITE = (Kind.FILE, Kind.IMAGE, Kind.LAVFI)
QUIET_INTERVALS = 4  # times the usual time between pictures after which a connection counts as dead
DRAIN_S = 3.0  # after the first picture, for which a backlog may be left out
FEW = 5  # pictures of a connection with which a time-out says that it was too short
MOST_PATIENCE = 32  # times the time-outs that were asked for
SILENT_PATIENCE = 9  # times the time-outs, after which an RTSP transport over which nothing came is given up
LONGEST_OPEN_S = 40.0  # for a camera to answer
CLOCK_SET_S = 0.1  # by which the machine's clock must have moved to count as set anew
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
        self.name = name
        self.uri = uri
        self.options = options
        self._epoch_s = 0.0
        self._start_s = time.monotonic()
        self.on_audio: Callable[[AudioPacket], None] | None = None
        self.audio_stream: av.AudioStream | None = None
        self._early: list[SidePacket] = []  # sound that came before the next picture
        self._put = put
        self._on_event = on_event
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._turn = self._began = 0  # the number of the thread that may act, and of the last one that was started
        self._hanging: list[threading.Thread] = []
        self._thread: threading.Thread | None = None
        self._status = Status(name, State.CONNECTING)
        self._backoff = Backoff(max_s=options.max_backoff_s, refused_s=options.refused_wait_s)
        self._pace = Pace()
        self._paced = False
        self._sign_s = self._frame_s = self._live_s = 0.0  # last sign of life, last frame, begin of the connection
        self._packet_s = 0.0  # arrival of the last packet
        self._transport = "tcp"  # of an RTSP camera, where the choice is ours
        self._logged_transports: set[str] = set()
        self._resting = False  # between two tries
        self._needs_relay = False
        self._opened = False
        self._connect_s = self._answer_s = 0.0  # begin of the connection, and how long its first frame took
        self._patience_factor = 1  # by which time-outs are longer than asked for
        self._frames_before = 0  # when this connection began
        self._drain_until_s = 0.0
        self._came: tuple[float, float] = (0.0, 0.0)  # time and arrival of the last frame
        self._over = False  # nothing is tried any more

    @property
    def status(self) -> Status:
        return self._status

    @property
    def over(self) -> bool:
        """Nothing is tried any more: a file's end, or a fault that cannot pass."""
        return self._over

    def start(self) -> None:
        self._start_s = time.monotonic()
        self._clock = LiveClock(self._start_s)
        self._begin()

    @property
    def epoch_s(self) -> float:
        """Wall-clock time of tick 0, in seconds. It follows the machine's clock where that is set during the run, as on
        machines that start with a wrong time, or that slept."""
        epoch_s = time.time() - (time.monotonic() - self._start_s)
        if abs(epoch_s - self._epoch_s) > CLOCK_SET_S:
            self._epoch_s = epoch_s
        return self._epoch_s

    @property
    def ticks(self) -> int:
        """The present time on the camera's time line, in units of clock.TICK."""
        return round((time.monotonic() - self._start_s) / TICK)

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
            now = time.monotonic()
            state = self._status.state
            if self._stop.is_set() or self._resting or self._over:
                return
            if state is State.LIVE and now - self._frame_s > self._patience():
                what = f"no picture for {now - self._frame_s:.1f} s"
                self._become(State.STALLED, what, stalls=self._status.stalls + 1)
            # For as long FFmpeg itself may wait: for an answer, and for the next picture of a slow camera.
            opening_s = 2 * self.options.source.open_timeout_s * self._patience_factor
            blocked_s = 3 * self._read_timeout_s if self._opened else opening_s
            if now - self._sign_s > max(self.options.hang_s, blocked_s):
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
        return max(self.options.stall_s, 3 / rate if rate > 0 else 0.0, 3 * self._status.interval_s)

    def _run(self, turn: int) -> None:
        try:
            while True:
                refused = False
                # PyAV's containers and streams refer to each other, and only a collection frees them. Each holds more
                # than 100 KB that the collector does not count: without this, months of reconnecting add up.
                gc.collect()
                try:
                    self._connect(turn)
                    if not self.options.loop:
                        self._end(turn, State.ENDED, "")
                        return
                    continue
                except UserError as error:
                    if self._learn(turn, error):
                        continue
                    what = _message(error)
                    refused = isinstance(error, Refused)
                    final = self.uri.kind in _FINITE and not (self.options.loop and isinstance(error, SourceLost))
                    state = State.ENDED if isinstance(error, SourceLost) else State.FAILED
                except Cancelled:
                    raise
                except Exception as error:  # a fault of ours or FFmpeg's must not end a camera for good
                    what = redact(f"{type(error).__name__}: {error}".splitlines()[0])
                    final = False
                    state = State.FAILED
                if final:
                    self._end(turn, state, what)
                    return
                self._rest(turn, what, refused)
        except Cancelled:
            pass

    def _connect(self, turn: int) -> None:
        """Open, deliver, close: one connection, to its end."""
        options = self.options
        now = time.monotonic()
        with self._lock:
            self._check_turn(turn)
            self._sign_s = self._frame_s = self._connect_s = now
            self._limit_s = options.first_frame_s * self._patience_factor
            self._live_s = 0.0
            self._opened = False
            self._frames_before = self._status.frames
            self._drain_until_s = 0.0
            self._clock.restart()
        relay = self._relay()
        uri = self.uri if relay is None else replace(self.uri, text=relay.address)
        source = open_source(uri, self._source_options(turn))
        try:
            info = self._open(source)
            self._opened = True
            self._pace.restart(segmented=info.container == "hls")
            self._paced = options.paced and (self.uri.kind in _FINITE or not info.live or self._pace.segmented)
            self.audio_stream = next((side for side in info.side_streams if isinstance(side, av.AudioStream)), None)
            self._early = []
            first = True
            for item in source.items():
                if isinstance(item, SidePacket):
                    self._queue_audio(item)
                elif not self._pace.seen(item.time_s):
                    self._take(turn, item, info if first else None)
                    self._send_audio()
                    first = False
        finally:
            source.close()
            if relay is not None:
                relay.close()

    def _open(self, source: Source) -> StreamInfo:
        """Raises UserError; where FFmpeg gave up waiting, that is what it says."""
        began = time.monotonic()
        limit_s = self._source_options(self._turn).open_timeout_s
        try:
            return source.open()
        except BadInput as error:
            took_s = time.monotonic() - began
            if took_s > 0.9 * limit_s and error.what.startswith("what it sent is no video"):
                raise BadInput(f"it did not answer in time ({took_s:.0f} s)", self.uri.redacted) from None
            raise

    def _relay(self) -> RtspRelay | None:
        """What proves the password for FFmpeg, once the camera has refused it."""
        if not self._needs_relay or self.uri.url is None:
            return None
        relay = RtspRelay(self.uri.url, self.options.source.tls_verify, self.options.source.ca_file)
        relay.start()
        return relay

    def _source_options(self, turn: int) -> SourceOptions:
        """Time-outs grow with each one that was too short: some cameras take half a minute to answer, or give a picture
        every few seconds."""
        source = self.options.source
        longest_s = max(source.open_timeout_s, LONGEST_OPEN_S)
        transport = self._transport if source.rtsp_transport == "auto" else source.rtsp_transport
        return replace(
            source,
            rtsp_transport=transport,
            interrupt_callback=lambda: self._check_interrupt(turn),
            open_timeout_s=min(longest_s, source.open_timeout_s * self._patience_factor),
            read_timeout_s=self._read_timeout_s,
        )

    @property
    def _read_timeout_s(self) -> float:
        return max(self.options.source.read_timeout_s * self._patience_factor, 2 * self._status.interval_s)

    def _learn(self, turn: int, error: UserError) -> bool:
        """Take from a failure what the next try should do otherwise; True where that may come at once."""
        is_denied = isinstance(error, Refused) and "401" in error.what
        url = self.uri.url
        if is_denied and self.uri.kind is Kind.RTSP and url is not None and url.user and not self._needs_relay:
            self._needs_relay = True
            return True
        if self._changes_transport(turn, error):
            return True
        if re.search("in time|no picture for|what it sent is no video|broke off", error.what):
            frames = self._status.frames - self._frames_before
            if frames < FEW and self._patience_factor < MOST_PATIENCE:
                self._patience_factor *= 3
        return False

    def _calm_down(self) -> None:
        """The camera is there: time-outs that grew while it was away shrink to what it took to answer."""
        needed = 1
        while needed < self._patience_factor and needed * self.options.source.open_timeout_s < 2 * self._answer_s:
            needed *= 3
        self._patience_factor = needed

    def _changes_transport(self, turn: int, error: UserError) -> bool:
        """Where the choice is ours: the other transport next time, if this one is refused or nothing comes over it.
        Said once in each direction. True where the next try may come at once."""
        if self.uri.kind is not Kind.RTSP or self.options.source.rtsp_transport != "auto":
            return False
        is_refused = error.what == TRANSPORT_REFUSED
        is_silent = (
            self._status.frames == self._frames_before
            and self._patience_factor >= SILENT_PATIENCE
            and re.search("in time|no picture for|what it sent is no video", error.what) is not None
            and self._answers()  # else it is not there at all, and the transport is not to blame
        )
        if not is_refused and not is_silent:
            return False
        given_up = self._transport
        self._transport = "udp" if given_up == "tcp" else "tcp"
        change = f"to {self._transport}"
        if change in self._logged_transports:
            return False
        self._logged_transports.add(change)
        why = "it refuses" if is_refused else "nothing comes over"
        with self._lock:
            self._check_turn(turn)
            self._become(State.RECONNECTING, f"{why} {given_up.upper()}; {self._transport.upper()} is used from now on")
        return is_refused

    def _answers(self) -> bool:
        """Whether the RTSP camera says anything at all; FFmpeg does not tell that from silence after PLAY."""
        source = self.options.source
        return answers(
            self.uri.text, PushOptions(source.open_timeout_s, tls_verify=source.tls_verify, ca_file=source.ca_file)
        )

    def _queue_audio(self, item: SidePacket) -> None:
        """Sound waits for the next picture: only that tells where both are in time."""
        if (
            self.on_audio is not None
            and self.audio_stream is not None
            and item.packet.stream_index == self.audio_stream.index
        ):
            self._early = [*self._early[-999:], item]

    def _send_audio(self) -> None:
        early = self._early
        self._early = []
        for item in early:
            packet = item.packet
            time = packet.pts if packet.pts is not None else packet.dts
            ticks = None if time is None else self._clock.place(float(time * packet.time_base))
            if ticks is not None and self.on_audio is not None:
                self.on_audio(AudioPacket(packet, ticks))

    def _check_interrupt(self, turn: int) -> None:
        """Between two packets: is it to end, and do pictures come out of all these packets?"""
        self._check_turn(turn)
        self._sign_s = self._packet_s = now = time.monotonic()
        if now - self._frame_s > self._limit_s:
            raise SourceLost(f"data came, but no picture for {now - self._frame_s:.0f} s", self.uri.redacted)

    def _check_turn(self, turn: int) -> None:
        if self._stop.is_set() or turn != self._turn:
            raise Cancelled

    def _take(self, turn: int, frame: Frame, info: StreamInfo | None) -> None:
        if self._paced:
            self._await(frame)
        with self._lock:
            self._check_turn(turn)
            now = time.monotonic()
            status = self._status
            if self._is_backlog(frame.time_s, now, info is not None):
                self._sign_s = self._frame_s = now
                return
            ticks = self._clock.tick(frame.time_s, now)
            if info is None:
                step = now - self._frame_s
                status = replace(status, interval_s=max(step, 0.9 * status.interval_s))
                self._status = status
            self._sign_s = self._frame_s = now
            self._limit_s = max(self.options.dead_s, QUIET_INTERVALS * status.interval_s)
            counts: dict[str, Any] = {
                "frames": status.frames + 1,
                "damaged": status.damaged + bool(frame.picture.is_corrupt),
            }
            width, height = frame.size
            if status.frames == self._frames_before + FEW:
                self._calm_down()
            if info is not None:
                self._live_s = now
                self._answer_s = now - self._connect_s
                rate = float(info.rate) if info.rate else 0.0
                counts["connects"] = status.connects + 1
                self._status = replace(status, rate=rate, live_since_s=now)
            if status.state is not State.LIVE or (width, height) != (status.width, status.height):
                sized = replace(self._status, width=width, height=height)
                self._status = sized
                self._become(State.LIVE, f"{width}x{height}", **counts)
            else:
                self._status = replace(self._status, **counts)
            index = status.frames
        arrived_s = now if self._paced else min(now, self._packet_s or now)
        self._put(replace(frame, index=index, pts=ticks, time_base=TICK, arrived_s=arrived_s))

    def _is_backlog(self, time_s: float | None, now: float, first: bool) -> bool:
        """Whether it lay in a buffer while the stream was looked into: such frames come at once, and are old."""
        if self._paced or self.uri.kind not in (Kind.RTSP, Kind.HTTP) or time_s is None:
            return False
        last_s, came_s = self._came
        self._came = time_s, now
        if first:
            self._drain_until_s = now + DRAIN_S
            return False
        if now > self._drain_until_s:
            return False
        if time_s - last_s > 0 and now - came_s < (time_s - last_s) / 2:
            return True
        self._drain_until_s = 0.0
        self._clock.restart()  # from here on, frames come as they are taken
        return False

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


def _message(error: UserError) -> str:
    return redact(error.what + (f" ({error.do})" if error.do else ""))
