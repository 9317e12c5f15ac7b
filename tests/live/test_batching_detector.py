"""The detector that cameras share: what waits for what, and pictures of several cameras as one batch in the loop on a
card (on a stand-in for it, lazy_device.py)."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from facestream.engines.boxes import Array
from facestream.engines.build.fp16 import Fp16Detector
from facestream.engines.cuda.detector import GpuDetector, Pending
from facestream.engines.letterbox import ImageView
from facestream.engines.loader import load_detector
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections, HostFrame
from facestream.pipeline.config import Config, DetectorConfig, read
from facestream.pipeline.live.batching_detector import (
    BatchingDetector,
    DetectorClient,
    InferenceFailed,
    Request,
    queue_delay_s,
)
from facestream.pipeline.live.run import Live
from facestream.pipeline.stages.detect import DetectionStage
from facestream.pipeline.stages.types import AnalysedFrame, DetectionPlan, Reason, Scope
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

    def submit(self, frames: Sequence[HostFrame]) -> Pending:
        self.__dict__.setdefault("sizes", []).append(len(frames))
        return super().submit(frames)


@needs_compiler
def test_pictures_of_several_cameras_are_one_batch_on_the_gpu(
    fp16: Fp16Detector,
    pictures: list[Array],
) -> None:
    """Each camera asks for its own four pictures, one after the other, on a thread of its own."""
    options = DetectorOptions(threshold=0.03)
    device = LazyDevice(1)
    detector = Noted(loop(device, fp16), 4, options)
    # An age: a batch that is not full goes only when all have asked.
    shared_detector = BatchingDetector(detector, detector.batch, 30.0)
    alone = [GpuDetector(loop(LazyDevice(2), fp16), 4, options).detect_yuv([shown(p)])[0] for p in pictures]
    cameras = [DetectorClient(shared_detector, 60.0) for _ in range(3)]
    found: dict[int, Detections] = {}

    def work(camera: int) -> None:
        for i in range(camera, 12, 3):
            found[i] = cameras[camera].detect_yuv([shown(pictures[i])])[0]

    threads = [threading.Thread(target=work, args=(camera,)) for camera in range(3)]
    shared_detector.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    shared_detector.stop()
    assert shared_detector.join(5)
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

    def warm_up(self, frames: Sequence[HostFrame]) -> None:
        pass

    def submit(self, frames: Sequence[HostFrame]) -> Any:
        self.asked.append(("planes", len(frames)))
        return frames

    def collect(self, pending: Any) -> list[Detections]:
        return [Detections(np.zeros((p.width, 4), np.float32), np.ones(p.width, np.float32)) for p in pending]

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        self.asked.append(("views", len(images)))
        return [Detections(np.zeros((v.width, 4), np.float32), np.ones(v.width, np.float32)) for v in images]


def test_everybody_gets_the_answer_to_his_own_picture() -> None:
    shared_detector = BatchingDetector(Counting(), 8)
    views = [ImageView(np.zeros((8, n, 3), np.uint8), n, 8) for n in (3, 5)]
    stored = [replace(shown(v.rgb), width=v.width) for v in (views[1], views[0])]
    requests = [Request(picture, 0.5) for picture in (views[0], stored[0], views[1], stored[1])]
    shared_detector._finish(shared_detector._begin(requests))
    assert [len(request.found) for request in requests if request.found is not None] == [3, 5, 5, 3]
    assert shared_detector.detector.asked == [("planes", 2), ("views", 2)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("planes", [True, False])
def test_frames_reach_the_desk_as_the_detector_wants_them(planes: bool) -> None:
    detector = Counting()
    detector.takes_yuv = planes
    shared_detector = BatchingDetector(detector, 8)
    shared_detector.start()
    frame = Frame(0, 0, Fraction(1, 30), picture(0))
    stage = DetectionStage(DetectorClient(shared_detector, 30.0), DetectorConfig())
    analysed = AnalysedFrame(frame, np.zeros((2, 2), np.uint8))
    assert stage.run(analysed, DetectionPlan(0, Scope.FULL, Reason.FIRST)).scope is Scope.FULL
    assert detector.asked == [("planes" if planes else "views", 1)]
    shared_detector.stop()


def test_a_camera_sees_what_the_desks_detector_takes() -> None:
    detector = Counting()
    asked = DetectorClient(BatchingDetector(detector, 8), 30.0)
    for value in (False, True):
        detector.takes_yuv = detector.any_size = value
        assert (asked.takes_yuv, asked.any_size) == (value, value)


def test_a_run_takes_batches_where_the_detector_gains_from_them() -> None:
    def batch(config: Config, detector: object) -> tuple[int, float]:
        shared_detector = Live(config, detector, lambda name, message: None).shared_detector  # type: ignore[arg-type]
        return shared_detector.batch, shared_detector.max_queue_delay_s

    assert batch(Config(), Counting()) == (8, 0.005)
    assert batch(Config(), load_detector("plainXS16")) == (1, 0.005)
    assert batch(read(None, {"run.batch": 3, "run.batch_wait_ms": 20}), Counting()) == (3, 0.02)


class Ordered(GpuDetector):
    """Writes down in which order batches are begun and waited for."""

    def __init__(self) -> None:
        super().__init__(None, 1, DetectorOptions())  # type: ignore[arg-type]
        self.steps: list[str] = []
        self.begun = 0
        self.more = threading.Event()

    def warm_up(self, frames: Sequence[HostFrame]) -> None:
        self.steps.append(f"warm {len(frames)}")

    def submit(self, frames: Sequence[HostFrame]) -> Any:
        self.more.wait(30)
        self.begun += 1
        self.steps.append(f"begin {self.begun}")
        return self.begun

    def collect(self, pending: Any) -> list[Detections]:
        self.steps.append(f"end {pending}")
        if pending == 3:
            raise RuntimeError("lost")
        return [Detections(np.zeros((pending, 4), np.float32), np.ones(pending, np.float32))]


def test_two_batches_are_on_their_way_at_once() -> None:
    detector = Ordered()
    shared_detector = BatchingDetector(detector, 1)
    frame = shown(np.zeros((32, 32, 3), np.uint8))
    answers: dict[int, object] = {}

    def submit_frame(number: int) -> None:
        try:
            answers[number] = len(shared_detector.submit(frame, 60.0))
        except InferenceFailed as e:
            answers[number] = str(e)

    threads = [threading.Thread(target=submit_frame, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while len(shared_detector._waiting) < 4:
        time.sleep(0.01)
    detector.more.set()
    shared_detector.start()
    for thread in threads:
        thread.join(60)
    shared_detector.stop()
    assert shared_detector.join(10)
    assert detector.steps == ["warm 1", "begin 1", "begin 2", "end 1", "begin 3", "end 2", "begin 4", "end 3", "end 4"]
    failed = "the detector failed (RuntimeError: lost)"
    assert sorted(answers.values(), key=str) == [1, 2, 4, failed]


def test_more_cameras_are_warmed_up_for_and_the_same_are_not() -> None:
    detector = Ordered()
    desk = BatchingDetector(detector, 8)
    small, large = (shown(np.zeros((size, size, 3), np.uint8)) for size in (32, 64))
    for clients, frame in ((1, small), (2, small), (2, small), (3, small), (4, small), (4, large), (12, small)):
        desk.clients = clients
        desk._warm_up([frame])
    assert detector.steps == ["warm 1", "warm 2", "warm 3", "warm 4", "warm 8"]


def test_a_threshold_above_that_of_a_gpu_counts_for_the_one_who_asked() -> None:
    class Unsure(Counting):
        def collect(self, pending: Any) -> list[Detections]:
            return [Detections(np.zeros((2, 4), np.float32), np.array([0.6, 0.3], np.float32)) for _ in pending]

    shared_detector = BatchingDetector(Unsure(), 8)
    stored = shown(np.zeros((8, 3, 3), np.uint8))
    for thresholds in ([0.5], [0.2], [0.5, 0.2]):
        requests = [Request(stored, threshold) for threshold in thresholds]
        shared_detector._finish(shared_detector._begin(requests))
        found = [len(request.found) for request in requests if request.found is not None]
        assert found == [1 if threshold == 0.5 else 2 for threshold in thresholds]
