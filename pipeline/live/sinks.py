"""Where a live camera's covered frames go. Each sink has a ring and a thread: none waits for another."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Protocol

from facestream.pipeline.errors import SinkLost
from facestream.pipeline.live.audio import AudioPacket, AudioSink, codec_of
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.live.encode import LiveEncoder, LiveOptions
from facestream.pipeline.live.retention import Limits, SegmentCleaner
from facestream.pipeline.records import RecordSink
from facestream.pipeline.ring import Cancelled, Policy, Ring
from facestream.pipeline.rtsp.audio import AudioPacketizer, format_of
from facestream.pipeline.rtsp.push import Pusher
from facestream.pipeline.rtsp.rtp import Packetizer, Unit
from facestream.pipeline.rtsp.server import Mount, RtspServer
from facestream.pipeline.stages.anonymise import fitted
from facestream.pipeline.types import CoveredFrame, StreamInfo
from facestream.pipeline.url import redact
from facestream.pipeline.video.encode import EncodeOptions
from facestream.pipeline.video.picture import matrix_of
from facestream.pipeline.video.sink import FileSink, open_sink

DEPTH = 8  # covered frames that wait for a slow sink before the oldest goes


class LiveSink(Protocol):
    """Takes covered frames. close() after the last one; abort() where that is not possible any more.

    The frames are its own, see fanout.py. upright: whether it takes them as streams and screens do.
    """

    name: str
    upright: bool

    def wants(self, size: tuple[int, int]) -> bool:
        """Whether it needs the next frame, of this width and height as stored. Asked on another thread."""
        ...

    def write(self, covered: CoveredFrame) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class SinkWorker:
    """A sink with its thread. What raises in it ends this sink alone; `on_event` hears of it."""

    def __init__(self, sink: LiveSink, on_event: Callable[[str], None]) -> None:
        self.sink, self._on_event = sink, on_event
        self.ring: Ring[CoveredFrame] = Ring(DEPTH, Policy.DROP_OLDEST)
        self.failed = False
        self.written = 0
        self._thread = threading.Thread(target=self._run, name=f"sink {sink.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wants(self, size: tuple[int, int]) -> bool:
        return not self.failed and self.sink.wants(size)

    def give(self, covered: CoveredFrame) -> None:
        """Never waits: the oldest frame goes where there is no room."""
        if not self.failed:
            with contextlib.suppress(Cancelled, ValueError):
                self.ring.put(covered)

    def finish(self, timeout_s: float) -> bool:
        """Let it write what it has, and close. False when it does not end in time; then it is cancelled."""
        self.ring.close()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.ring.cancel()
            self._thread.join(0.5)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            for covered in self.ring:
                self.sink.write(covered)
                self.written += 1
            self.sink.close()
        except Cancelled:
            self.sink.abort()
        except Exception as error:
            self.failed = True
            self.ring.cancel()
            self._on_event(redact(error))
            self.sink.abort()


class StreamSink(AudioSink):
    """Encoded once for all who watch, under whatever path, and for all servers it is pushed to.

    epoch_s: gives the wall-clock time of tick 0. Nothing is encoded while nobody watches, but for the first picture
    of each size, which tells what the stream is.
    """

    upright = True

    def __init__(
        self, name: str, options: LiveOptions, rate: Callable[[], float], epoch_s: Callable[[], float]
    ) -> None:
        super().__init__()
        self.name, self._options, self._rate, self._epoch_s = name, options, rate, epoch_s
        self.packetizer = Packetizer()
        self._mounts: list[tuple[RtspServer, Mount]] = []
        self._pushers: list[Pusher] = []
        self._encoder: LiveEncoder | None = None
        self._size: tuple[int, int] = (0, 0)
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
        """The median from a frame's arrival to its packets, look-ahead included; 0 when nothing was sent."""
        return 1000 * median(self.delays_s) if self.delays_s else 0.0

    @property
    def _is_watched(self) -> bool:
        return bool(self._pushers) or any(mount.players for _, mount in self._mounts)

    def wants(self, size: tuple[int, int]) -> bool:
        new = size != self._stored_size
        self._stored_size = size
        return new or self.audio_queue is not None or self._is_watched

    def write(self, covered: CoveredFrame) -> None:
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
            self.delays_s.append(time.time() - wall_s)

    def _send(self, unit: Unit) -> None:
        for server, mount in self._mounts:
            server.send(mount, unit)
        for pusher in self._pushers:
            pusher.send(unit)

    def _open_audio(self) -> None:
        """Before the first picture: what sound there is must be said along with it."""
        audio_stream = self.audio_stream()
        try:
            if audio_stream is None:
                raise SinkLost("there is no sound")
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
        """Servers and pushers are stopped by whoever made them."""

    def abort(self) -> None:
        """Nothing is left behind."""


class RecordingSink(AudioSink):
    """A video file. It begins with the first frame; pictures of another size are scaled to that one's.

    segment_s: above 0, a new file begins after so many seconds, and with each new size, named by the time of its first
    frame: door.mkv becomes door-20260131-235959.mkv. Each is whole once it has its name, whatever happens later.
    limits: how many of them are kept.
    """

    upright = False

    def __init__(
        self, path: Path, options: EncodeOptions, source: str, rate: Callable[[], float],
        segment_s: float = 0.0, epoch_s: Callable[[], float] = lambda: 0.0, limits: Limits | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.name = str(path)
        self._path, self._options = path, options
        self._source, self._rate = source, rate
        self._segment_s, self._epoch_s = segment_s, epoch_s
        self._cleaner = SegmentCleaner(path, limits or Limits(), lambda message: self.on_event(message))
        self._sink: FileSink | None = None
        self._size = (0, 0)
        self._began = 0  # ticks
        self._codec = ""  # of the sound in the file
        self._reported: set[str] = set()

    def wants(self, size: tuple[int, int]) -> bool:
        return True

    def write(self, covered: CoveredFrame) -> None:
        picture, ticks = covered.picture, covered.tracked.frame.pts or 0
        for audio in self.audio_queue.until(ticks) if self.audio_queue is not None else ():
            if self._sink is not None and audio.codec == self._codec:
                self._sink.copy(audio.side())
        if self._sink is not None and self._segment_s:
            old = float((ticks - self._began) * TICK) >= self._segment_s
            if old or (picture.width, picture.height) != self._size:
                self.close()
        begins = self._sink is None
        if self._sink is None:
            self._sink = self._open(covered)
            self._size, self._began = (picture.width, picture.height), ticks
        if self._segment_s:
            self._cleaner.sweep(self._sink.unfinished, now=begins)
        self._sink.write(fitted(covered, *self._size))

    def _open(self, covered: CoveredFrame) -> FileSink:
        frame, rate = covered.tracked.frame, self._rate()
        audio_stream = self.audio_stream() if self.audio_queue is not None else None
        if self.audio_queue is not None and audio_stream is None:
            self._report_once("there is no sound")
        self._codec = "" if audio_stream is None else codec_of(audio_stream)
        info = StreamInfo(
            side_streams=() if audio_stream is None else (audio_stream,),
            source=self._source, width=frame.size[0], height=frame.size[1], rotation=frame.rotation,
            time_base=TICK, rate=Fraction(rate).limit_denominator(1001) if rate else None, frames=None, live=True,
            matrix=matrix_of(frame.rotation, frame.mirrored),
        )  # fmt: skip
        path = self._path
        if self._segment_s:
            path = segment_path(path, self._epoch_s() + float((frame.pts or 0) * TICK))
        sink = open_sink(path, info, self._options)
        if not isinstance(sink, FileSink):
            sink.abort()
            raise SinkLost("a live source cannot be written as a picture", str(path))
        for warning in sink.warnings:
            self._report_once(warning)
        return sink

    def _report_once(self, what: str) -> None:
        """Once, not with each segment."""
        if what not in self._reported:
            self._reported.add(what)
            self.on_event(f"pictures alone: {what}")

    def close(self) -> None:
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.close()

    def abort(self) -> None:
        if self._sink is not None:
            self._sink.abort()


def segment_path(path: Path, wall_s: float) -> Path:
    """A segment's name, in local time; with a number where there is one of that second already."""
    stem = f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(wall_s))}"
    names = (path.with_name(f"{stem}{f'-{n}' if n > 1 else ''}{path.suffix}") for n in range(1, 10_000))
    return next(name for name in names if not name.exists())


class RecordsSink:
    """Records of every frame that left: JSON Lines, CSV or MOT."""

    upright = False

    def __init__(self, name: str, path: Path, overwrite: bool, source: str) -> None:
        self.name, self._source = name, source
        self._sink = RecordSink(path, overwrite)

    def wants(self, size: tuple[int, int]) -> bool:
        return True

    def write(self, covered: CoveredFrame) -> None:
        self._sink.write(covered.tracked, self._source)

    def close(self) -> None:
        self._sink.close()

    def abort(self) -> None:
        self._sink.abort()
