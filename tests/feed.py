"""A live stream for tests: numbered frames in real time, through the real encoder and packetiser."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import av
import numpy as np
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.live.encode import LiveEncoder, LiveOptions
from facestream.pipeline.rtsp.rtp import Packetizer, Unit
from facestream.pipeline.types import CoveredFrame, Frame, TrackedFrame

BITS, CELL = 16, 16


def numbered(number: int, size: tuple[int, int] = (320, 240), noise: bool = False) -> av.VideoFrame:
    """A picture with its number in black and white squares along the top, over a pattern that moves, or noise."""
    width, height = size
    gray = np.add.outer(np.arange(height), np.arange(width) + 3 * number).astype(np.uint8)
    if noise:
        gray[:] = np.random.default_rng(number).integers(16, 235, gray.shape, np.uint8)
    for bit in range(BITS):
        gray[:CELL, bit * CELL : (bit + 1) * CELL] = 235 if number >> bit & 1 else 16
    return av.VideoFrame.from_ndarray(np.stack([gray] * 3, 2), format="rgb24").reformat(format="yuv420p")


def number_of(picture: av.VideoFrame) -> int:
    gray = picture.to_ndarray(format="gray")[4 : CELL - 4]
    return sum(int(gray[:, b * CELL + 4 : (b + 1) * CELL - 4].mean() > 128) << b for b in range(BITS))


def covered(number: int, ticks: int, size: tuple[int, int] = (320, 240), noise: bool = False) -> CoveredFrame:
    picture = numbered(number, size, noise)
    picture.pts, picture.time_base = ticks, TICK
    return CoveredFrame(picture, TrackedFrame(Frame(number, ticks, TICK, picture), ()))


class Feed:
    """Sends numbered pictures to `send` until it is left. size and the clock may be changed while it runs."""

    def __init__(
        self, send: Callable[[Unit], None], packetizer: Packetizer | None = None, rate: int = 25, gop_s: float = 1.0
    ) -> None:
        self.send, self.packetizer, self.rate = send, packetizer or Packetizer(), rate
        self.encoder = LiveEncoder(LiveOptions(bitrate=4000, gop_s=gop_s), rate)
        self.size, self.noise = (320, 240), False
        self.wall_s = 0.0  # what its clock said at the first picture
        self.sent = 0
        self.over = threading.Event()

    def run(self) -> None:
        began, self.wall_s = time.monotonic(), self.wall_s or time.time()
        while not self.over.wait(max(0.0, began + self.sent / self.rate - time.monotonic())):
            ticks = round(self.sent * 90000 / self.rate)
            for coded in self.encoder.encode(covered(self.sent, ticks, self.size, self.noise)):
                self.send(self.packetizer.pack(coded.data, coded.ticks, coded.key, self.wall_s + coded.ticks / 90000))
            self.sent += 1

    def __enter__(self) -> Feed:
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join(5)
