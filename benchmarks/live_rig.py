"""The processes that benchmarks/measure_live.py measures: a camera, facestream ("line"), and a plain transcode.

Each is started as `python benchmarks/live_rig.py camera|line|plain ARGUMENT...` and prints its figures on stdout, one
JSON object per line.
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

RATE = 30  # frames/s
SIZE = (1280, 720)
BITS = 16  # of a frame's number, drawn as cells; inverted beside it, so that a covered number is never misread
CELL = 16  # pixels of a cell's side
PERIOD = 300  # frames after which the clip, and its numbers, repeat


def draw_number(luma: np.ndarray, number: int) -> None:
    """Draw a frame number into luma, uint8 [h, w], in place."""
    for bit in range(BITS):
        on = number >> bit & 1
        for row, value in ((0, on), (1, 1 - on)):
            luma[row * CELL : (row + 1) * CELL, bit * CELL : (bit + 1) * CELL] = 235 if value else 16


def read_number(luma: np.ndarray) -> int | None:
    """The frame number in luma, uint8 [h, w]; None if it cannot be read."""
    cells = luma[: 2 * CELL, : BITS * CELL].reshape(2, CELL, BITS, CELL)[:, 4:-4, :, 4:-4].mean(axis=(1, 3))
    if np.abs(cells[0] - cells[1]).min() < 90:
        return None
    return sum(int(cells[0, bit] > cells[1, bit]) << bit for bit in range(BITS))


def emit(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def name_threads() -> None:
    """Give the kernel Python's thread names, by which the parent attributes CPU time."""
    for thread in threading.enumerate():
        if thread.native_id is not None:
            comm = Path(f"/proc/self/task/{thread.native_id}/comm")
            if comm.exists():
                comm.write_text(thread.name[:15])


def report(figures: Callable[[], dict[str, Any]]) -> None:
    """Print a line per second until the parent closes our stdin."""
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    while not over.wait(1.0):
        name_threads()
        emit(**figures())


def camera(moments: str) -> None:
    """Serve the demo clip in a loop, encoded once; the time at which each frame number was sent goes into `moments`, a
    file of doubles."""
    with av.open(str(ROOT / "tools" / "demo.mp4")) as container:
        pictures = []
        for picture in container.decode(video=0):
            pictures.append(picture.reformat(width=SIZE[0], height=SIZE[1], format="yuv420p"))
            if len(pictures) == PERIOD:
                break
    encoder = LiveEncoder(LiveOptions(preset="veryfast"), RATE)
    coded = []
    for number in range(PERIOD):
        picture = pictures[number % len(pictures)].reformat(format="yuv420p")
        picture.make_writable()
        draw_number(planes(picture)[0].pixels, number)
        frame = Frame(number, number * 90000 // RATE, TICK, picture)
        coded += encoder.encode(CoveredFrame(picture, TrackedFrame(frame, ())))
    server = RtspServer("127.0.0.1", 0)
    mount = server.mount("camera")
    server.start()
    sent = np.memmap(moments, np.float64, "r+", shape=(PERIOD,))
    over = threading.Event()
    total = 0

    def run() -> None:
        nonlocal total
        began = time.monotonic()
        wall_s = time.time()
        while not over.wait(max(0.0, began + total / RATE - time.monotonic())):
            one = coded[total % PERIOD]
            ticks = total * 90000 // RATE
            sent[total % PERIOD] = time.monotonic()
            server.send(mount, mount.packetizer.pack(one.data, ticks, one.key, wall_s + total / RATE))
            total += 1

    threading.Thread(target=run, daemon=True).start()
    emit(url=f"rtsp://127.0.0.1:{server.port}/camera")
    report(lambda: {"sent": total, "dropped": mount.counts.dropped})
    over.set()
    server.stop()


def line(url: str, settings: str) -> None:
    """Run `facestream run URL --to serve:...`. settings: JSON."""
    config = read(None, json.loads(settings))
    complaints: list[str] = []
    live = Live(
        config, load_detector(config.detector.model, config.detector.options()), lambda n, m: complaints.append(m)
    )
    builder = SinkBuilder(live, config, False, lambda n, m: complaints.append(m))
    pipeline = live.add("camera", parse(url), CameraOptions())
    builder.connect(pipeline, [SinkSpec.of("serve:rtsp://127.0.0.1:0/out", False)])
    live.start()
    threading.Thread(target=lambda: live.wait(1e9), daemon=True).start()
    (server,) = live.servers
    assert isinstance(server, RtspServer)
    emit(url=f"rtsp://127.0.0.1:{server.port}/out")

    def figures() -> dict[str, Any]:
        counts = pipeline.counts
        stages = counts.line
        status = counts.camera
        return {
            "frames": status.frames, "left": counts.emitted, "detections": stages.detector_runs,
            "fully_covered": stages.fully_covered,
            "lost": {
                "damaged on the way in": status.damaged, "connection to the camera lost": status.losses,
                "pipeline too slow": counts.dropped, "withheld after a fault": stages.withheld,
                "encoder too slow": counts.sink_dropped, "player too slow": server.mounts["out"].counts.dropped,
            },
            "messages": complaints[-5:],
        }  # fmt: skip

    report(figures)
    live.stop()


def plain(url: str) -> None:
    """The plain transcode: the same camera thread, queues, encoder and server, without detection and covers."""
    options = read(None, {}).run
    server = RtspServer("127.0.0.1", 0)
    made = LiveOptions(options.encoder, options.bitrate, options.crf, options.preset, options.gop_s)
    sink = StreamSink("plain", made, lambda: camera.status.rate, lambda: camera.epoch_s)
    worker = SinkWorker(sink, lambda message: None)
    camera = Camera(
        "plain", parse(url), CameraOptions(), lambda f: worker.give(CoveredFrame(f.picture, TrackedFrame(f, ())))
    )
    sink.serve(server, server.mount("out", packetizer=sink.packetizer))
    server.start()
    worker.start()
    camera.start()
    emit(url=f"rtsp://127.0.0.1:{server.port}/out")
    report(lambda: {"frames": camera.status.frames})
    camera.stop()


if __name__ == "__main__":
    {"camera": camera, "line": line, "plain": plain}[sys.argv[1]](*sys.argv[2:])
