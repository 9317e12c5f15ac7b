"""What the live line costs and delays: a 720p30 RTSP camera with numbered pictures, played before and after the line.

    python tools/measure_live.py [--seconds 60] [--lookahead 0] [--every 2] [--size 640x384] [--model plainS]

Prints, of both streams, frames/s, frames that are missing and the delay from making a picture to its decoding; and
the process's CPU time and memory. Camera, line and players share one process, so the CPU time is that of all.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from engines.detector import load  # noqa: E402
from pipeline.builder import Builder, Plan  # noqa: E402
from pipeline.camera import CameraOptions  # noqa: E402
from pipeline.clock import TICK  # noqa: E402
from pipeline.config import read  # noqa: E402
from pipeline.cover import Anonymizer  # noqa: E402
from pipeline.live import Live  # noqa: E402
from pipeline.livevideo import LiveEncoder, LiveOptions  # noqa: E402
from pipeline.picture import duplicate  # noqa: E402
from pipeline.planes import planes  # noqa: E402
from pipeline.rtsp.server import RtspServer  # noqa: E402
from pipeline.types import Frame, TrackedFrame  # noqa: E402
from pipeline.uri import parse  # noqa: E402

BITS, CELL, RATE = 16, 16, 30
PLAYER = {"rtsp_transport": "tcp", "flags": "low_delay", "probesize": "500000", "analyzeduration": "500000"}


class Source:
    """The demo clip as a camera, over and over, each picture with its number in black and white squares."""

    def __init__(self) -> None:
        with av.open(str(ROOT / "tools" / "demo.mp4")) as container:
            self.pictures = [p.reformat(width=1280, height=720, format="yuv420p") for p in container.decode(video=0)]
        self.server = RtspServer("127.0.0.1", 0)
        self.mount = self.server.mount("camera")
        self.server.start()
        self.encoder = LiveEncoder(LiveOptions(), RATE)
        self.mount.wish_key = self.encoder.wish_key
        self.made: dict[int, float] = {}
        self.over = threading.Event()
        self._cover = Anonymizer(read(None).cover)  # of no boxes: it only makes what the encoder takes
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        began, wall, number = time.monotonic(), time.time(), 0
        while not self.over.wait(max(0.0, began + number / RATE - time.monotonic())):
            picture = duplicate(self.pictures[number % len(self.pictures)])
            luma = planes(picture)[0].pixels
            for bit in range(BITS):
                luma[:CELL, bit * CELL : (bit + 1) * CELL] = 235 if number >> bit & 1 else 16
            frame = Frame(number, number * 90000 // RATE, TICK, picture)
            self.made[number & 0xFFFF] = time.monotonic()
            for coded in self.encoder.encode(self._cover.cover(TrackedFrame(frame, ()))):
                unit = self.mount.packetizer.pack(coded.data, coded.ticks, coded.key, wall + coded.ticks / 90000)
                self.server.send(self.mount, unit)
            number += 1


def watch(url: str, source: Source, seen: list[tuple[int, float]]) -> None:
    with av.open(url, options=PLAYER, timeout=(10.0, 10.0)) as container:
        container.streams.video[0].thread_type = "SLICE"
        for picture in container.decode(video=0):
            gray = picture.to_ndarray()[4 : CELL - 4]
            number = sum(int(gray[:, b * CELL + 4 : (b + 1) * CELL - 4].mean() > 128) << b for b in range(BITS))
            seen.append((number, time.monotonic() - source.made.get(number, time.monotonic())))
            if source.over.is_set():
                return


def memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--lookahead", type=int, default=0)
    arguments.add_argument("--every", default="2")
    arguments.add_argument("--size", default="640x384")
    arguments.add_argument("--model", default="plainS")
    given = arguments.parse_args()
    size = tuple(int(v) for v in given.size.split("x"))
    flags = {"detector.size": size, "detector.every": given.every, "detector.model": given.model}
    config = read(None, {**flags, "tracker.lookahead": given.lookahead})
    source = Source()
    live = Live(config, load(config.detector.model, config.detector.options()), lambda name, line: print(name, line))
    camera = f"rtsp://127.0.0.1:{source.server.port}/camera"
    builder = Builder(live, config, False, lambda name, line: print(name, line))
    channel = live.add("camera", parse(camera), CameraOptions())
    builder.connect(channel, [Plan.of("serve:rtsp://127.0.0.1:18554/out", False)])
    live.start()
    live.wait(4)
    seen: dict[str, list[tuple[int, float]]] = {"before": [], "after": []}
    for name, url in (("before", camera), ("after", "rtsp://127.0.0.1:18554/out")):
        threading.Thread(target=watch, args=(url, source, seen[name]), daemon=True).start()
    live.wait(5)
    for rows in seen.values():
        rows.clear()
    cpu, memory, began = time.process_time(), memory_mb(), time.monotonic()
    live.wait(given.seconds)
    seconds = time.monotonic() - began
    cpu = time.process_time() - cpu
    medians = {}
    for name, rows in seen.items():
        rows = list(rows)
        numbers, delays = [n for n, _ in rows], np.array([d for _, d in rows] or [0.0]) * 1000
        missing = sum(b - a - 1 for a, b in pairwise(numbers) if 0 < b - a < 1000)  # covered all over, they lie
        medians[name] = float(np.median(delays))
        print(
            f"{name}: {len(rows) / seconds:.1f} frames/s, {missing} missing, "
            f"median {medians[name]:.0f} ms, p95 {np.percentile(delays, 95):.0f} ms"
        )
    wait = given.lookahead / RATE * 1000
    print(f"added by the line, less {wait:.0f} ms of look-ahead: {medians['after'] - medians['before'] - wait:.0f} ms")
    print(f"CPU {cpu / seconds:.2f} s/s, memory {memory:.0f} -> {memory_mb():.0f} MB")
    print(channel.counts)
    source.over.set()
    live.stop()
    source.server.stop()


if __name__ == "__main__":
    main()
