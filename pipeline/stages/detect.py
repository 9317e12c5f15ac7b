"""Detection stage: runs the detector according to the plan. The detector has filtered by score."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from facestream.engines.letterbox import ImageView
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.pipeline.config import DetectorConfig
from facestream.pipeline.errors import InferenceFailed
from facestream.pipeline.stages.crop_mosaic import CropMosaic
from facestream.pipeline.stages.exposure import Exposure
from facestream.pipeline.stages.policy import reduced_size
from facestream.pipeline.stages.settings import DEFAULTS, Heuristics
from facestream.pipeline.stages.truncated_faces import extrapolate_truncated
from facestream.pipeline.stages.types import AnalysedFrame, DetectionPlan, Observation, Scope
from facestream.pipeline.types import Frame
from facestream.pipeline.video.planes import Viewer, host_frame, part_rgb, planes, view_scale
from facestream.pipeline.video.tiles import FOUND_PX, Tiling, tiling_of

SMALL_FACE_PX = 28  # of the picture: a warning says where faces of this size are not found
log = logging.getLogger(__name__)


class PipelineDetector(Protocol):
    """What the pipeline needs of a detector: a Detector, or a client of a shared one.

    takes_yuv: it also has `detect_yuv(pictures: Sequence[HostFrame])`, see YuvDetector. any_size: input sizes that
    change do not cost more than a fixed one. It returns no face below its threshold.
    """

    @property
    def options(self) -> DetectorOptions: ...

    @property
    def takes_yuv(self) -> bool: ...

    @property
    def any_size(self) -> bool: ...

    def detect(self, images: Sequence[ImageView]) -> list[Detections]: ...


class FullFrames(Protocol):
    """Detects faces in full frames."""

    def detect(self, frame: Frame, full_resolution: bool) -> Detections:
        """Faces in pixels of the displayed frame. May raise InferenceFailed."""
        ...


class FullFrameDetector:
    """Runs a detector on full frames: as stored if it takes YUV, else as a reduced RGB copy."""

    def __init__(
        self,
        detector: PipelineDetector,
        config: DetectorConfig,
        heuristics: Heuristics = DEFAULTS,
    ) -> None:
        self.detector = detector
        self.size = config.size
        self.reduced = reduced_size(config.size, heuristics.policy)
        self.exposure = heuristics.exposure
        self.tiles = config.tiles
        self._reported: tuple[int, int] | None = None
        self._viewers = {True: Viewer(), False: Viewer()}

    def detect(self, frame: Frame, full_resolution: bool) -> Detections:
        """Faces in pixels of the displayed frame. May raise InferenceFailed."""
        tiling = tiling_of(frame, self.size, self.tiles)
        self._report_tiles(frame, tiling)
        if tiling is None:
            return self._detect_view(frame, full_resolution)
        whole = self._detect_view(frame, True)
        layers = planes(frame.picture)
        exposure = Exposure.of(frame, self.exposure)
        found = []
        for region in tiling.regions:
            rgb = np.ascontiguousarray(part_rgb(frame, layers, region, tiling.size))
            if exposure is not None:
                exposure.apply(rgb, region)
            view = ImageView(rgb, region[2] - region[0], region[3] - region[1])
            found.append(self.detector.detect([view])[0])
        return tiling.merge(whole, found, frame.size, self.detector.options.nms_iou)

    def _report_tiles(self, frame: Frame, tiling: Tiling | None) -> None:
        """Say once what tiles cost, or which faces are out of reach without."""
        if self._reported == frame.size:
            return
        self._reported = frame.size
        width, height = frame.size
        if tiling is not None:
            count = len(tiling.regions)
            log.info("%dx%d is detected on in %d tiles, at %d times the cost", width, height, count, count + 1)
            return
        smallest = FOUND_PX / view_scale(frame, self.size)
        if smallest > SMALL_FACE_PX:
            do = "detector.tiles = 2, or a larger detector.size, reaches smaller ones"
            log.warning("faces under %d pixels are out of reach at %dx%d: %s", smallest, width, height, do)

    def _detect_view(self, frame: Frame, full_resolution: bool) -> Detections:
        if self.detector.takes_yuv:
            picture = host_frame(frame, self.size)
            if picture is not None:
                yuv_detector: Any = self.detector
                found: Detections = yuv_detector.detect_yuv([picture])[0]
                return found
        view = self._viewers[full_resolution].view(frame, self.size if full_resolution else self.reduced)
        exposure = Exposure.of(frame, self.exposure)
        if exposure is not None:
            exposure.apply(view.rgb)
        return self.detector.detect([view])[0]


class Detection(Protocol):
    """A detection stage."""

    def run(self, frame: AnalysedFrame, plan: DetectionPlan) -> Observation:
        """Carry out a frame's plan."""
        ...


class DetectionStage:
    """Carries out plans. full_frames: detects on full frames, by default the detector itself; crops always use the
    detector."""

    def __init__(
        self,
        detector: PipelineDetector,
        config: DetectorConfig,
        full_frames: FullFrames | None = None,
        heuristics: Heuristics = DEFAULTS,
    ) -> None:
        self.detector = detector
        self.size = config.size
        self.tiles = config.tiles
        self.heuristics = heuristics
        self.full_frames = full_frames or FullFrameDetector(detector, config, heuristics)

    def run(self, frame: AnalysedFrame, plan: DetectionPlan) -> Observation:
        """The observation, with its scope. A failed inference is an Observation as well; other errors are raised."""
        if plan.scope is Scope.SKIPPED:
            return Observation(frame, Scope.SKIPPED)
        try:
            if plan.mosaic is not None:
                faces = self._detect_crops(frame.frame, plan.mosaic)
            else:
                faces = self.full_frames.detect(frame.frame, plan.scope is Scope.FULL)
        except InferenceFailed as error:
            return Observation(frame, Scope.FAILED, error=str(error))
        faces = extrapolate_truncated(faces, frame.frame.size, self.heuristics.truncated_faces)
        return Observation(frame, plan.scope, faces, len(plan.mosaic.placed) if plan.mosaic else 0)

    def _detect_crops(self, frame: Frame, mosaic: CropMosaic) -> Detections:
        if not mosaic.placed:
            return Detections.empty()
        view = mosaic.view(frame, Exposure.of(frame, self.heuristics.exposure))
        found = self.detector.detect([view])[0]
        return mosaic.to_frame(found, frame.size, self.detector.options.nms_iou, self.heuristics.crop_mosaic)
