"""A camera's audio bypasses the face pipeline: packets wait until the frames of the same time leave."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
import av.stream
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.types import SidePacket
from facestream.pipeline.video.decode import Packet

MOST = 2048  # packets that may wait, about 40 s; then the oldest are dropped


@dataclass(frozen=True, slots=True)
class AudioPacket:
    """An audio packet of the source, and its time on the video's timeline in units of clock.TICK."""

    packet: Packet
    ticks: int

    @property
    def codec(self) -> str:
        return codec_of(self.packet.stream)

    def side(self) -> SidePacket:
        """A copy of the packet with the new time."""
        copy: Packet = av.Packet(bytes(self.packet))
        copy.stream = self.packet.stream
        copy.time_base = TICK
        copy.pts = copy.dts = self.ticks
        copy.duration = round((self.packet.duration or 0) * self.packet.time_base / TICK)
        return SidePacket(copy)


def codec_of(stream: av.stream.Stream) -> str:
    """FFmpeg's name of a stream's codec, "" if unknown."""
    return stream.codec_context.codec.canonical_name if stream.codec_context is not None else ""


class AudioSink:
    """A sink that can output audio.

    audio_queue: packets waiting for output, None without audio. audio_stream: returns the camera's audio stream, None
    if it has none. on_event: called with messages for the user.
    """

    def __init__(self) -> None:
        self.audio_queue: AudioQueue | None = None
        self.audio_stream: Callable[[], av.AudioStream | None] = lambda: None
        self.on_event: Callable[[str], None] = lambda message: None


class AudioQueue:
    """A sink's waiting audio packets. The camera's thread calls put(), the sink's thread until()."""

    def __init__(self) -> None:
        self._waiting: deque[AudioPacket] = deque(maxlen=MOST)

    def put(self, audio: AudioPacket) -> None:
        self._waiting.append(audio)

    def until(self, ticks: int) -> Iterator[AudioPacket]:
        """The packets that are not later than the frame that leaves now."""
        while self._waiting and self._waiting[0].ticks <= ticks:
            yield self._waiting.popleft()
