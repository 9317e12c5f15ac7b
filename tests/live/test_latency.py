"""The latency that is shown is that from the glass of a camera, whatever its clock does."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from facestream.engines.letterbox import ImageView
from facestream.engines.types import Detections
from facestream.pipeline.connection import State
from facestream.pipeline.live.sinks import SinkWorker
from facestream.pipeline.types import CoveredFrame

from tests.live.test_fail_closed import Moody
from tests.live.test_live import Run
from tests.live.test_odd_cameras import CAMERA, camera
from tests.servers import free_port

pytestmark = pytest.mark.skipif(not CAMERA.is_file(), reason="the shared cases are not here (FACESTREAM_CASES)")
FPS = 5
POSITIONS = 34  # of the square, which moves four pixels with each picture; the clip holds three rounds


class NoFaces(Moody):
    """Looks, and finds nothing that would cover the square."""

    def detect(self, images: Sequence[ImageView]) -> list[Detections]:
        return [Detections.empty() for _ in images]


class Playback:
    """A sink that notes when each picture came, and which one it is."""

    name = "watch"
    upright = False

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []  # position of the square, Unix seconds
        self.lock = threading.Lock()

    def wants(self, size: tuple[int, int]) -> bool:
        return True

    def write(self, covered: CoveredFrame) -> None:
        plane = covered.picture.planes[1]  # U, half size
        blue = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[11:14, : plane.width].mean(0)
        square = np.flatnonzero(blue > (blue.min() + blue.max()) / 2)
        if np.ptp(blue) > 40 and 10 <= len(square) <= 14:  # not fully covered
            with self.lock:
                self.seen.append((round(square[0] / 2) % POSITIONS, time.time()))

    def close(self) -> None: ...

    def abort(self) -> None: ...


# The stream's own times run ahead of the arrival, stand still, and are right.
@pytest.mark.parametrize("clock", ["ts + n // 10 * 160000", "0", "ts"])
def test_latency_is_that_from_the_glass(clip: object, tmp_path: Path, clock: str) -> None:
    port = free_port()
    with (
        camera(clip, tmp_path, port, real_fps=FPS, ts=clock),  # type: ignore[arg-type]
        Run({"door": f"rtsp://127.0.0.1:{port}/x"}, [], NoFaces(), tracker__lookahead=7) as run,
    ):
        watch = Playback()
        pipeline = run["door"]
        worker = SinkWorker(watch, lambda message: None)
        pipeline.workers.append(worker)
        worker.start()
        run.until(lambda: pipeline.camera.status.state is State.LIVE)
        run.until(lambda: len(watch.seen) > 50)
        began_s, fps = map(float, (tmp_path / "out" / f"play-{port}").read_text().split())
        shown_ms = pipeline.counts.latency_ms
    true = [_since_glass(position, at - began_s, fps) for position, at in watch.seen]
    assert median(true) > 1.0  # seven frames of look-ahead
    assert shown_ms / 1000 == pytest.approx(median(true), rel=0.2)


def _since_glass(position: int, at_s: float, fps: float) -> float:
    """Seconds since the latest picture with this position was sent: within one round of positions."""
    newest = int(at_s * fps)
    picture = newest - (newest - position) % POSITIONS
    return at_s - picture / fps
