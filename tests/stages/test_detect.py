"""The detection stage: plans in, observations out."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from facestream.engines.base import Detector, YuvDetector
from facestream.engines.letterbox import ImageView
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections, HostFrame
from facestream.pipeline.config import read
from facestream.pipeline.errors import InferenceFailed
from facestream.pipeline.stages.crop_mosaic import CropMosaic, mosaic_of
from facestream.pipeline.stages.detect import DetectionStage
from facestream.pipeline.stages.types import AnalysedFrame, DetectionPlan, Observation, Reason, Scope
from facestream.pipeline.types import Frame

from tests.mark import Stripes, striped

SIZE = (640, 320)
REDUCED = (426, 212)


class OnGpu(YuvDetector):
    """Finds one box of 60 pixels with a score of 0.3, in pictures as they are stored as well."""

    def __init__(self) -> None:
        super().__init__(DetectorOptions())
        self.fitted: list[tuple[int, int]] = []

    def infer(self, images: Any) -> Any:
        raise AssertionError("not asked")

    def detect_yuv(self, pictures: Sequence[HostFrame]) -> list[Detections]:
        self.fitted += [picture.fitted for picture in pictures]
        return self.one(pictures)

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        self.fitted += [(image.rgb.shape[1], image.rgb.shape[0]) for image in images]
        return self.one(images)

    def one(self, pictures: Sequence[Any]) -> list[Detections]:
        return [Detections(np.array([[0, 0, 60, 60]], np.float32), np.array([0.3], np.float32))] * len(pictures)


def run(stage: DetectionStage, picture: av.VideoFrame, scope: Scope, mosaic: CropMosaic | None = None) -> Observation:
    frame = AnalysedFrame(Frame(0, 0, Fraction(1, 30), picture), np.zeros((2, 2), np.uint8))
    return stage.run(frame, DetectionPlan(0, scope, Reason.INTERVAL, mosaic))


def stage_of(detector: Detector, size: tuple[int, int] = SIZE) -> DetectionStage:
    return DetectionStage(detector, read(None, {"detector.size": size}).detector)


def test_full_and_reduced_frames_have_their_sizes_and_scopes() -> None:
    detector = Stripes()
    stage = stage_of(detector)
    for scope, size in ((Scope.FULL, SIZE), (Scope.REDUCED, REDUCED)):
        observed = run(stage, striped((100, 60, 160, 120), SIZE), scope)
        assert detector.shown[-1] == (*size, False)
        assert (observed.scope, observed.full_frame) == (scope, True)
        assert observed.full_resolution == (scope is Scope.FULL)
        assert observed.faces is not None
        assert len(observed.faces) == 1


def test_a_skipped_frame_has_no_faces_and_asks_nobody() -> None:
    detector = Stripes()
    observed = run(stage_of(detector), striped(None, SIZE), Scope.SKIPPED)
    assert observed.faces is None
    assert not observed.full_frame
    assert not observed.full_resolution
    assert not detector.shown


def test_crops_of_nobody_ask_nobody_and_say_that_small_faces_were_not_looked_for() -> None:
    detector = Stripes()
    observed = run(stage_of(detector), striped(None, SIZE), Scope.CROPS, CropMosaic((), 0, 0))
    assert observed.faces is not None
    assert len(observed.faces) == 0
    assert not observed.full_resolution
    assert not detector.shown


def test_what_a_mosaic_shows_is_found_in_the_frames_pixels() -> None:
    """In a picture twice as large as what the detector sees."""
    detector = Stripes()
    stage = stage_of(detector)
    box = (600, 300, 700, 420)
    picture = striped(box, (1280, 640))
    mosaic = mosaic_of(np.array([box], float) + 9, (1280, 640), 0.5, 1e9)
    for scope, crops in ((Scope.FULL, None), (Scope.CROPS, mosaic)):
        observed = run(stage, picture, scope, crops)
        assert detector.shown[-1][2] == (scope is Scope.CROPS)
        assert observed.full_resolution
        assert observed.faces is not None
        assert len(observed.faces) == 1
        assert np.abs(observed.faces.xyxy[0] - box).max() < 9


def test_a_failed_inference_is_an_observation_and_any_other_error_is_raised() -> None:
    class Broken(Stripes):
        error: Exception

        def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
            raise self.error

    detector = Broken()
    stage = stage_of(detector)
    mosaic = mosaic_of(np.array([[100.0, 60, 160, 120]]), SIZE, 1.0, 1e9)
    detector.error = InferenceFailed("it hangs")
    for scope, crops in ((Scope.FULL, None), (Scope.REDUCED, None), (Scope.CROPS, mosaic)):
        observed = run(stage, striped(None, SIZE), scope, crops)
        assert (observed.scope, observed.error, observed.faces) == (Scope.FAILED, "it hangs", None)
        assert not observed.full_frame
    detector.error = RuntimeError("out of order")
    with pytest.raises(RuntimeError):
        run(stage, striped(None, SIZE), Scope.FULL)


@pytest.mark.parametrize("layout", ["yuv420p", "yuv444p"])  # planes that it takes, and such that are a view before
def test_a_gpu_gets_pictures_as_they_are_stored_and_boxes_of_every_size_count(layout: str) -> None:
    detector = OnGpu()
    picture = av.VideoFrame(128, 64, layout)
    for size in ((128, 64), (32, 32)):  # 60 and 15 pixels of the detector's input
        observed = run(stage_of(detector, size), picture, Scope.FULL)
        assert observed.faces is not None
        assert len(observed.faces) == 1
    assert detector.fitted == [(128, 64), (32, 16)]


def test_full_frames_may_come_from_elsewhere_and_crops_are_its_own_work() -> None:
    class Elsewhere:
        def detect(self, frame: Frame, full_resolution: bool) -> Detections:
            asked.append(full_resolution)
            return Detections.empty()

    asked: list[bool] = []
    detector = Stripes()
    stage = DetectionStage(detector, read(None, {"detector.size": SIZE}).detector, Elsewhere())
    for scope in (Scope.FULL, Scope.REDUCED):
        run(stage, striped(None, SIZE), scope)
    assert asked == [True, False]
    assert not detector.shown
    run(stage, striped(None, SIZE), Scope.CROPS, mosaic_of(np.array([[100.0, 60, 160, 120]]), SIZE, 1.0, 1e9))
    assert len(detector.shown) == 1


def test_faces_at_the_frames_edge_leave_the_stage_complete() -> None:
    class Edge(Stripes):
        def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
            return [Detections(np.array([[0, 100, 10, 160]], np.float32), np.array([0.9], np.float32))]

    observed = run(stage_of(Edge()), striped(None, SIZE), Scope.FULL)
    assert observed.faces is not None
    assert observed.faces.xyxy[0, 0] < 0
