"""Sinks of a live camera. Each has its own queue and thread, so that none waits for another."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from statistics import median
from typing import Protocol

from facestream.pipeline.errors import SinkLost
from facestream.pipeline.live.audio import AudioPacket, AudioSink
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.live.encode import LiveEncoder, LiveOptions
from facestream.pipeline.live.health import Heartbeat
from facestream.pipeline.ring import Cancelled, Policy, Ring
from facestream.pipeline.rtsp.audio import AudioPacketizer, format_of
from facestream.pipeline.rtsp.push import Pusher
from facestream.pipeline.rtsp.rtp import Packetizer, Unit
from facestream.pipeline.rtsp.server import Mount, RtspServer
from facestream.pipeline.types import CoveredFrame
from facestream.pipeline.url import redact

DEPTH = 8  # covered frames that may wait for a slow sink before the oldest is dropped


class LiveSink(Protocol):
    """Takes covered frames. close() after the last one, or abort() if that is not possible.

    It owns the frames, see fanout.py. upright: whether it needs them rotated upright, as streams and screens do.
    """

    name: str
    upright: bool

    def wants(self, size: tuple[int, int]) -> bool:
        """Whether it needs the next frame, which has this width and height as stored. Called on another thread."""
        ...

    def write(self, covered: CoveredFrame) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class SinkWorker:
    """A sink and its thread. An error ends this sink alone and is reported to `on_event`."""

    def __init__(self, sink: LiveSink, on_event: Callable[[str], None], depth: int = DEPTH) -> None:
        """depth: frames that may wait for it."""
        self.sink = sink
        self._on_event = on_event
        self.ring: Ring[CoveredFrame] = Ring(depth, Policy.DROP_OLDEST)
        self.failed = False
        self.failure = ""
        self.finished = False
        self.written = 0
        self.beat = Heartbeat()
        self.thread = threading.Thread(target=self._run, name=f"sink {sink.name}", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def wants(self, size: tuple[int, int]) -> bool:
        return not self.failed and self.sink.wants(size)

    def give(self, covered: CoveredFrame) -> None:
        """Queue a frame without waiting: if the queue is full, the oldest frame is dropped."""
        if not self.failed:
            with contextlib.suppress(Cancelled, ValueError):
                self.ring.put(covered)

    def finish(self, timeout_s: float) -> bool:
        """Write what is queued, and close. Returns False if that does not end in time; then it is cancelled."""
        self.ring.close()
        self.thread.join(timeout_s)
        if self.thread.is_alive():
            self.ring.cancel()
            self.thread.join(0.5)
        return not self.thread.is_alive()

    def _run(self) -> None:
        try:
            for covered in self.ring:
                self.beat.begin()
                self.sink.write(covered)
                self.beat.end()
                self.written += 1
            self.beat.begin()
            self.sink.close()
        except Cancelled:
            self.sink.abort()
        except BaseException as error:  # whatever it is: an output that ends without a word would be taken for whole
            self.failed = True
            self.failure = redact(error) or type(error).__name__
            self.ring.cancel()
            self._on_event(self.failure)
            self.sink.abort()
        finally:
            self.beat.end()
            self.finished = True


class StreamSink(AudioSink):
    """A video stream, encoded once for all viewers, mount paths and push targets.

    epoch_s: returns the wall-clock time of tick 0. Without viewers nothing is encoded, except the first frame of each
    size, which describes the stream.
    """

    upright = True

    def __init__(
        self, name: str, options: LiveOptions, rate: Callable[[], float], epoch_s: Callable[[], float]
    ) -> None:
        super().__init__()
        self.name = name
        self._options = options
        self._rate = rate
        self._epoch_s = epoch_s
        self.packetizer = Packetizer()
        self._mounts: list[tuple[RtspServer, Mount]] = []
        self._pushers: list[Pusher] = []
        self._encoder: LiveEncoder | None = None
        self._size: tuple[int, int] = (0, 0)
        self.size: tuple[int, int] = (640, 360)  # of the newest picture
        self._last_pts = -1
        self._stored_size: tuple[int, int] = (0, 0)  # of the frame that was asked about last
        self._audio_ticks = -1
        self.delays_s: deque[float] = deque(maxlen=300)  # from a frame's arrival to its packets

    def serve(self, server: RtspServer, mount: Mount) -> None:
        mount.request_keyframe = self.request_keyframe
        self._mounts.append((server, mount))

    def push(self, pusher: Pusher) -> None:
        pusher.request_keyframe = self.request_keyframe
        self._pushers.append(pusher)

    def request_keyframe(self) -> None:
        if self._encoder is not None:
            self._encoder.request_keyframe()

    @property
    def delay_ms(self) -> float:
        """Median latency from a frame's arrival to its packets, look-ahead included; 0 if nothing was sent."""
        return 1000 * median(self.delays_s) if self.delays_s else 0.0

    @property
    def _is_watched(self) -> bool:
        return bool(self._pushers) or any(mount.players for _, mount in self._mounts)

    def wants(self, size: tuple[int, int]) -> bool:
        new = size != self._stored_size
        self._stored_size = size
        return new or self.audio_queue is not None or self._is_watched

    def write(self, covered: CoveredFrame) -> None:
        pts = covered.tracked.frame.pts or 0
        if pts <= self._last_pts:  # from before the placeholder that stood in for it
            return
        self._last_pts = pts
        self.size = covered.picture.width, covered.picture.height
        if self._encoder is None:
            self._encoder = LiveEncoder(self._options, self._rate())
        size = covered.picture.width, covered.picture.height
        wanted = self._is_watched
        if self.audio_queue is not None:
            if self._size == (0, 0):
                self._open_audio()
            self._send_audio(self.audio_queue.until(covered.tracked.frame.pts or 0), wanted)
        if not wanted and size == self._size:
            return
        self._size = size
        epoch_s = self._epoch_s()
        for coded in self._encoder.encode(covered):
            wall_s = epoch_s + float(coded.ticks * TICK)
            self._send(self.packetizer.pack(coded.data, coded.ticks, coded.key, wall_s))
        if (arrived_s := covered.tracked.frame.arrived_s) is not None:  # a placeholder never arrived
            self.delays_s.append(time.monotonic() - arrived_s)

    def _send(self, unit: Unit) -> None:
        for server, mount in self._mounts:
            server.send(mount, unit)
        for pusher in self._pushers:
            pusher.send(unit)

    def _open_audio(self) -> None:
        """Set up the audio track; before the first frame, since the SDP describes both."""
        audio_stream = self.audio_stream()
        try:
            if audio_stream is None:
                raise SinkLost("there is no audio")
            self.packetizer.audio = AudioPacketizer(format_of(audio_stream))
        except SinkLost as error:
            self.on_event(f"pictures alone: {error.what}")

    def _send_audio(self, packets: Iterable[AudioPacket], wanted: bool) -> None:
        packer = self.packetizer.audio
        for audio in packets:
            same = packer is not None and audio.codec == packer.form.codec  # cameras may come back with another one
            if packer is not None and same and wanted and audio.ticks > self._audio_ticks:
                self._send(packer.pack(bytes(audio.packet), audio.ticks))
                self._audio_ticks = audio.ticks

    def close(self) -> None:
        """Nothing to do: servers and pushers are stopped by their owner."""

    def abort(self) -> None:
        """Nothing is left behind."""
