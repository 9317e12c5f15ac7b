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
class Sound:
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


class Voiced:
    """An outlet that can pass sound on. sounds: where it waits, None where none is wanted. voice: gives the camera's
    stream of sound, None where it has none. told: called with what the user should know."""

    def __init__(self) -> None:
        self.sounds: Sounds | None = None
        self.voice: Callable[[], av.AudioStream | None] = lambda: None
        self.told: Callable[[str], None] = lambda message: None


class Sounds:
    """Where an outlet's sound waits. put() from the camera's thread, until() from the outlet's."""

    def __init__(self) -> None:
        self._waiting: deque[Sound] = deque(maxlen=MOST)

    def put(self, sound: Sound) -> None:
        self._waiting.append(sound)

    def until(self, ticks: int) -> Iterator[Sound]:
        """What is not later than a picture that leaves now."""
        while self._waiting and self._waiting[0].ticks <= ticks:
            yield self._waiting.popleft()
