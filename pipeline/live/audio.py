"""A camera's sound on its way past the line: it waits until the pictures of its time leave, then goes with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
import av.stream
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.types import SidePacket
from facestream.pipeline.video.decode import Packet

MOST = 2048  # packets that wait: 40 s of them; then pictures have not left for long, and the oldest go


@dataclass(frozen=True, slots=True)
class AudioPacket:
    """A packet as it came, and its time in clock.TICK, on the pictures' time line."""

    packet: Packet
    ticks: int

    @property
    def codec(self) -> str:
        return codec_of(self.packet.stream)

    def side(self) -> SidePacket:
        """As a packet of its stream with the new time."""
        copy: Packet = av.Packet(bytes(self.packet))
        copy.stream, copy.time_base = self.packet.stream, TICK
        copy.pts = copy.dts = self.ticks
        copy.duration = round((self.packet.duration or 0) * self.packet.time_base / TICK)
        return SidePacket(copy)


def codec_of(stream: av.stream.Stream) -> str:
    """FFmpeg's name, "" where it has none."""
    return stream.codec_context.codec.canonical_name if stream.codec_context is not None else ""


class AudioSink:
    """A sink that can pass audio on.

    audio_queue: where it waits, None where none is wanted. audio_stream: gives the camera's audio stream, None where it
    has none. on_event: called with what the user should know.
    """

    def __init__(self) -> None:
        self.audio_queue: AudioQueue | None = None
        self.audio_stream: Callable[[], av.AudioStream | None] = lambda: None
        self.on_event: Callable[[str], None] = lambda message: None


class AudioQueue:
    """Where a sink's sound waits. put() from the camera's thread, until() from the sink's."""

    def __init__(self) -> None:
        self._waiting: deque[AudioPacket] = deque(maxlen=MOST)

    def put(self, audio: AudioPacket) -> None:
        self._waiting.append(audio)

    def until(self, ticks: int) -> Iterator[AudioPacket]:
        """What is not later than a picture that leaves now."""
        while self._waiting and self._waiting[0].ticks <= ticks:
            yield self._waiting.popleft()
