"""The processes that benchmarks/measure_live.py measures: a camera, the whole line, and the same transcode without it.

Each is started as `python benchmarks/live_rig.py camera|line|plain WORD...` and says how it is on stdout, JSON a line.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from facestream.engines.loader import load_detector  # noqa: E402
from facestream.pipeline.config import read  # noqa: E402
from facestream.pipeline.live.builder import SinkBuilder, SinkSpec  # noqa: E402
from facestream.pipeline.live.camera import Camera  # noqa: E402
from facestream.pipeline.live.clock import TICK  # noqa: E402
from facestream.pipeline.live.encode import LiveEncoder, LiveOptions  # noqa: E402
from facestream.pipeline.live.run import Live  # noqa: E402
from facestream.pipeline.live.sinks import SinkWorker, StreamSink  # noqa: E402
from facestream.pipeline.live.state import CameraOptions  # noqa: E402
from facestream.pipeline.rtsp.server import RtspServer  # noqa: E402
from facestream.pipeline.types import CoveredFrame, Frame, TrackedFrame  # noqa: E402
from facestream.pipeline.video.planes import planes  # noqa: E402
from facestream.pipeline.video.uri import parse  # noqa: E402

RATE, SIZE = 30, (1280, 720)
BITS, CELL = 16, 16  # a picture's number, and beside it the same inverted: what is covered cannot be read by mistake
PERIOD = 300  # pictures after which the clip, and its numbers, begin again


def draw_number(luma: np.ndarray, number: int) -> None:
    """luma: uint8 [h, w], written into."""
    for bit in range(BITS):
        on = number >> bit & 1
        for row, value in ((0, on), (1, 1 - on)):
            luma[row * CELL : (row + 1) * CELL, bit * CELL : (bit + 1) * CELL] = 235 if value else 16


def read_number(luma: np.ndarray) -> int | None:
    """The number in a picture, None where it cannot be read."""
    cells = luma[: 2 * CELL, : BITS * CELL].reshape(2, CELL, BITS, CELL)[:, 4:-4, :, 4:-4].mean(axis=(1, 3))
    if np.abs(cells[0] - cells[1]).min() < 90:
        return None
    return sum(int(cells[0, bit] > cells[1, bit]) << bit for bit in range(BITS))


def tell(**camera_metrics: Any) -> None:
    print(json.dumps(camera_metrics), flush=True)


def name_threads() -> None:
    """Let the kernel know Python's names, by which the parent sorts CPU time."""
    for thread in threading.enumerate():
        if thread.native_id is not None:
            comm = Path(f"/proc/self/task/{thread.native_id}/comm")
            if comm.exists():
                comm.write_text(thread.name[:15])


def report(camera_metrics: Callable[[], dict[str, Any]]) -> None:
    """A line each second, until the parent closes our stdin."""
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    while not over.wait(1.0):
        name_threads()
        tell(**camera_metrics())


def camera(moments: str) -> None:
    """The demo clip, encoded once and sent over and over; when which number was sent goes into a file of doubles."""
    with av.open(str(ROOT / "tools" / "demo.mp4")) as container:
        pictures = []
        for shown in container.decode(video=0):
            pictures.append(shown.reformat(width=SIZE[0], height=SIZE[1], format="yuv420p"))
            if len(pictures) == PERIOD:
                break
    encoder, coded = LiveEncoder(LiveOptions(preset="veryfast"), RATE), []
    for number in range(PERIOD):
        shown = pictures[number % len(pictures)].reformat(format="yuv420p")
        shown.make_writable()
        draw_number(planes(shown)[0].pixels, number)
        frame = Frame(number, number * 90000 // RATE, TICK, shown)
        coded += encoder.encode(CoveredFrame(shown, TrackedFrame(frame, ())))
    server = RtspServer("127.0.0.1", 0)
    mount = server.mount("camera")
    server.start()
    sent = np.memmap(moments, np.float64, "r+", shape=(PERIOD,))
    over = threading.Event()
    total = 0

    def run() -> None:
        nonlocal total
        began, wall = time.monotonic(), time.time()
        while not over.wait(max(0.0, began + total / RATE - time.monotonic())):
            one, ticks = coded[total % PERIOD], total * 90000 // RATE
            sent[total % PERIOD] = time.monotonic()
            server.send(mount, mount.packetizer.pack(one.data, ticks, one.key, wall + total / RATE))
            total += 1

    threading.Thread(target=run, daemon=True).start()
    tell(url=f"rtsp://127.0.0.1:{server.port}/camera")
    report(lambda: {"sent": total, "dropped": mount.counts.dropped})
    over.set()
    server.stop()


def line(url: str, words: str) -> None:
    """facestream run URL --to serve:..., with the settings in words (JSON)."""
    config = read(None, json.loads(words))
    complaints: list[str] = []
    live = Live(
        config, load_detector(config.detector.model, config.detector.options()), lambda n, m: complaints.append(m)
    )
    builder = SinkBuilder(live, config, False, lambda n, m: complaints.append(m))
    channel = live.add("camera", parse(url), CameraOptions())
    builder.connect(channel, [SinkSpec.of("serve:rtsp://127.0.0.1:0/out", False)])
    live.start()
    threading.Thread(target=lambda: live.wait(1e9), daemon=True).start()
    (server,) = live.servers
    assert isinstance(server, RtspServer)
    tell(url=f"rtsp://127.0.0.1:{server.port}/out")

    def camera_metrics() -> dict[str, Any]:
        counts, guard = channel.counts, channel.counts.line
        status = counts.camera
        return {
            "frames": status.frames, "left": counts.emitted, "looks": guard.looks, "veiled": guard.veiled,
            "lost": {
                "damaged on the way in": status.damaged, "connection to the camera lost": status.losses,
                "line too slow": counts.dropped, "held back for a fault": guard.held,
                "encoder too slow": counts.sink_dropped, "player too slow": server.mounts["out"].counts.dropped,
            },
            "said": complaints[-5:],
        }  # fmt: skip

    report(camera_metrics)
    live.stop()


def plain(url: str) -> None:
    """The same camera thread, rings, encoder and server, and nothing between them."""
    options = read(None, {}).live
    server = RtspServer("127.0.0.1", 0)
    made = LiveOptions(options.encoder, options.bitrate, options.crf, options.preset, options.gop_s)
    outlet = StreamSink("plain", made, lambda: camera.status.rate, lambda: camera.epoch_s)
    worker = SinkWorker(outlet, lambda message: None)
    camera = Camera(
        "plain", parse(url), CameraOptions(), lambda f: worker.give(CoveredFrame(f.picture, TrackedFrame(f, ())))
    )
    outlet.serve(server, server.mount("out", packetizer=outlet.packetizer))
    server.start()
    worker.start()
    camera.start()
    tell(url=f"rtsp://127.0.0.1:{server.port}/out")
    report(lambda: {"frames": camera.status.frames})
    camera.stop()


if __name__ == "__main__":
    {"camera": camera, "line": line, "plain": plain}[sys.argv[1]](*sys.argv[2:])
