"""The detector that cameras share: what waits for what, and pictures of several cameras as one batch in the loop on a
card (on a stand-in for it, lazy_device.py)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from facestream.engines.base import DetectorOptions
from facestream.engines.boxes import Array
from facestream.engines.build.fp16 import Fp16Detector
from facestream.engines.cuda.detector import GpuDetector
from facestream.engines.letterbox import ImageView
from facestream.engines.loader import load_detector
from facestream.engines.types import Detections, HostFrame
from facestream.pipeline.config import Config, DetectorConfig, read
from facestream.pipeline.live.batching_detector import BatchingDetector, DetectorClient, queue_delay_s
from facestream.pipeline.live.run import Live
from facestream.pipeline.stages.detect import DetectionStage
from facestream.pipeline.types import Frame

from tests.conftest import picture
from tests.cuda import needs_compiler
from tests.engines import test_gpu_pipeline
from tests.engines.test_gpu_pipeline import loop, shown
from tests.lazy_device import LazyDevice

WAIT_S = 0.05
fp16, pictures = test_gpu_pipeline.fp16, test_gpu_pipeline.pictures  # fixtures


@pytest.mark.parametrize(("waited_s", "waiting", "clients", "batch", "want"), [
    (0.0, 4, 9, 4, 0.0),  # full
    (0.0, 3, 9, 4, WAIT_S),
    (0.03, 3, 9, 4, 0.02),
    (WAIT_S, 1, 9, 4, 0.0),  # waited long enough
    (9.0, 1, 9, 4, 0.0),
    (0.0, 2, 2, 4, 0.0),  # nobody else can come
    (0.0, 1, 1, 8, 0.0),
    (0.0, 1, 0, 8, 0.0),
    (0.0, 1, 9, 1, 0.0),  # a detector that does not gain from batches never waits
])  # fmt: skip
def test_a_batch_waits_for_others_but_not_for_long(
    waited_s: float, waiting: int, clients: int, batch: int, want: float
) -> None:
    assert queue_delay_s(waited_s, waiting, clients, batch, WAIT_S) == pytest.approx(want)


class Noted(GpuDetector):
    """Keeps what came as one batch."""

    def detect_yuv(self, pictures: Sequence[HostFrame]) -> list[Detections]:
        self.__dict__.setdefault("sizes", []).append(len(pictures))
        return super().detect_yuv(pictures)


@needs_compiler
def test_pictures_of_several_cameras_are_one_batch_on_the_card(
    fp16: Fp16Detector,
    pictures: list[Array],
) -> None:
    """Each camera asks for its own four pictures, one after the other, on a thread of its own."""
    options = DetectorOptions(threshold=0.03)
    device = LazyDevice(1)
    detector = Noted(loop(device, fp16), 4, options)
    # An age: a batch that is not full goes only when all have asked.
    desk = BatchingDetector(detector, detector.batch, 30.0)
    alone = [GpuDetector(loop(LazyDevice(2), fp16), 4, options).detect_yuv([shown(p)])[0] for p in pictures]
    cameras = [DetectorClient(desk, 60.0) for _ in range(3)]
    found: dict[int, Detections] = {}

    def work(camera: int) -> None:
        for i in range(camera, 12, 3):
            found[i] = cameras[camera].detect_yuv([shown(pictures[i])])[0]

    threads = [threading.Thread(target=work, args=(camera,)) for camera in range(3)]
    desk.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    desk.stop()
    assert desk.join(5)
    assert detector.__dict__["sizes"] == [3, 3, 3, 3]
    assert len(device.threads) == 2, "made on one thread, used on another"
    for i, want in enumerate(alone):
        assert np.allclose(found[i].xyxy, want.xyxy, atol=1e-3)
        assert np.allclose(found[i].scores, want.scores, atol=1e-3)
    assert sum(len(f) for f in found.values()) > 12


class Counting(GpuDetector):
    """Takes both kinds of pictures, finds as many faces as they are wide."""

    def __init__(self) -> None:
        super().__init__(None, 8, DetectorOptions())  # type: ignore[arg-type]
        self.asked: list[tuple[str, int]] = []

    def detect_yuv(self, pictures: Sequence[HostFrame]) -> list[Detections]:
        self.asked.append(("planes", len(pictures)))
        return [Detections(np.zeros((p.width, 4), np.float32), np.ones(p.width, np.float32)) for p in pictures]

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        self.asked.append(("views", len(images)))
        return [Detections(np.zeros((v.width, 4), np.float32), np.ones(v.width, np.float32)) for v in images]


def test_everybody_gets_the_answer_to_his_own_picture() -> None:
    desk = BatchingDetector(Counting(), 8)
    views = [ImageView(np.zeros((8, n, 3), np.uint8), n, 8) for n in (3, 5)]
    stored = [replace(shown(v.rgb), width=v.width) for v in (views[1], views[0])]
    found = desk._found([views[0], stored[0], views[1], stored[1]])
    assert [len(f) for f in found] == [3, 5, 5, 3]
    assert desk.detector.asked == [("planes", 2), ("views", 2)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("planes", [True, False])
def test_frames_reach_the_desk_as_the_detector_wants_them(planes: bool) -> None:
    detector = Counting()
    detector.takes_yuv = planes
    desk = BatchingDetector(detector, 8)
    desk.start()
    frame = Frame(0, 0, Fraction(1, 30), picture(0))
    assert DetectionStage(DetectorClient(desk, 30.0), DetectorConfig()).look(frame) is not None
    assert detector.asked == [("planes" if planes else "views", 1)]
    desk.stop()


def test_a_camera_sees_what_the_desks_detector_takes() -> None:
    detector = Counting()
    asked = DetectorClient(BatchingDetector(detector, 8), 30.0)
    for value in (False, True):
        detector.takes_yuv = detector.any_size = value
        assert (asked.takes_yuv, asked.any_size) == (value, value)


def test_a_run_takes_batches_where_the_detector_gains_from_them() -> None:
    def batch(config: Config, detector: object) -> tuple[int, float]:
        desk = Live(config, detector, lambda name, message: None).desk  # type: ignore[arg-type]
        return desk.batch, desk.max_queue_delay_s

    assert batch(Config(), Counting()) == (8, 0.005)
    assert batch(Config(), load_detector("plainXS16")) == (1, 0.005)
    assert batch(read(None, {"run.batch": 3, "run.batch_wait_ms": 20}), Counting()) == (3, 0.02)
