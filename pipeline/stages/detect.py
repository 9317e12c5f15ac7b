"""Detection: the detector run as planned. Scores are filtered here, and nowhere else."""

from __future__ import annotations

from typing import Protocol

from facestream.engines.detector import Detector, PlanesDetector
from facestream.engines.letterbox import fit
from facestream.engines.types import Detections
from facestream.pipeline.config import DetectorConfig
from facestream.pipeline.stages.crop_mosaic import CropMosaic
from facestream.pipeline.stages.policy import reduced_size
from facestream.pipeline.stages.settings import DEFAULTS, CropMosaicSettings, DetectionSettings, PolicySettings
from facestream.pipeline.stages.types import AnalysedFrame, DetectionPlan, InferenceFailed, Observation, Scope
from facestream.pipeline.types import Frame
from facestream.pipeline.video.planes import Viewer, host_picture


class FullFrames(Protocol):
    """Finds the faces of full frames."""

    def detect(self, frame: Frame, full_resolution: bool) -> Detections:
        """Faces in pixels of the displayed frame. May raise InferenceFailed."""
        ...


class ScoreFilter:
    """Which of the detector's boxes count: the detector's threshold, and more for large boxes."""

    def __init__(self, detector: Detector, config: DetectorConfig, settings: DetectionSettings) -> None:
        self.detector = detector
        self.large_face_margin = config.large_face_margin
        self.ramp = settings.margin_from_side, settings.margin_to_side

    def __call__(self, found: Detections, scale: float) -> Detections:
        """scale: pixels of the detector's input for one of the pixels in which the boxes are."""
        return found.filter_by_score(self.detector.min_score, self.large_face_margin, scale, self.ramp)


class FullFrameDetector:
    """Runs a detector on full frames: as stored where it takes planes, else as a small RGB copy."""

    def __init__(
        self,
        detector: Detector,
        config: DetectorConfig,
        settings: DetectionSettings = DEFAULTS.detect,
        policy: PolicySettings = DEFAULTS.policy,
    ) -> None:
        self.detector = detector
        self.size = config.size
        self.reduced = reduced_size(config.size, policy)
        self.accept = ScoreFilter(detector, config, settings)
        self._viewers = {True: Viewer(), False: Viewer()}

    def detect(self, frame: Frame, full_resolution: bool) -> Detections:
        """Faces in pixels of the displayed frame. May raise InferenceFailed."""
        if isinstance(self.detector, PlanesDetector) and self.detector.takes_planes:
            picture = host_picture(frame, self.size)
            if picture is not None:
                found = self.detector.detect_planes([picture])[0]
                return self.accept(found, picture.fitted[0] / picture.width)
        view = self._viewers[full_resolution].view(frame, self.size if full_resolution else self.reduced)
        found = self.detector.detect([view])[0]
        return self.accept(found, view.rgb.shape[1] / view.width)


class Detection(Protocol):
    """A detection stage."""

    def run(self, frame: AnalysedFrame, plan: DetectionPlan) -> Observation:
        """Do what is planned for a frame."""
        ...


class DetectionStage:
    """Runs plans. full_frames: who finds the faces of full frames, by default the detector itself; crops are always
    its own work."""

    def __init__(
        self,
        detector: Detector,
        config: DetectorConfig,
        full_frames: FullFrames | None = None,
        settings: DetectionSettings = DEFAULTS.detect,
        policy: PolicySettings = DEFAULTS.policy,
        mosaics: CropMosaicSettings = DEFAULTS.crop_mosaic,
    ) -> None:
        self.detector = detector
        self.size = config.size
        self.mosaics = mosaics
        self.full_frames = full_frames or FullFrameDetector(detector, config, settings, policy)
        self.accept = ScoreFilter(detector, config, settings)

    def run(self, frame: AnalysedFrame, plan: DetectionPlan) -> Observation:
        """What was found, and of what. A failed inference is an Observation; other errors are raised."""
        if plan.scope is Scope.SKIPPED:
            return Observation(frame, Scope.SKIPPED)
        try:
            if plan.scope is not Scope.CROPS:
                faces = self.full_frames.detect(frame.frame, plan.scope is Scope.FULL)
                return Observation(frame, plan.scope, faces)
            assert plan.mosaic is not None
            faces = self._detect_crops(frame.frame, plan.mosaic)
            return Observation(frame, Scope.CROPS, faces, len(plan.mosaic.placed))
        except InferenceFailed as error:
            return Observation(frame, Scope.FAILED, error=str(error))

    def _detect_crops(self, frame: Frame, mosaic: CropMosaic) -> Detections:
        if not mosaic.placed:
            return Detections.empty()
        found = self.detector.detect([mosaic.view(frame)])[0]
        found = mosaic.to_frame(found, frame.size, self.detector.options.nms_iou, self.mosaics)
        return self.accept(found, fit(*frame.size, *self.size)[0] / frame.size[0])
