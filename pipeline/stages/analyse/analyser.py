"""The first stage: what a frame tells before any detection."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.pipeline.stages.analyse.camera_motion import CameraMotionEstimator
from facestream.pipeline.stages.analyse.scene_cuts import SceneCutDetector
from facestream.pipeline.stages.settings import DEFAULTS, AnalyserSettings, Heuristics
from facestream.pipeline.stages.types import AnalysedFrame
from facestream.pipeline.types import Frame
from facestream.pipeline.video.planes import luma_view


def shows_nothing(luma: Array, settings: AnalyserSettings = DEFAULTS.analyse) -> bool:
    """Whether a picture is dark or flat. luma: uint8 [h, w], of which every fourth row and column is taken."""
    small = np.ascontiguousarray(luma[::4, ::4])
    if np.count_nonzero(small < settings.dark_level) > settings.dark_share * small.size:
        return True
    return float(cv2.meanStdDev(small)[1][0, 0]) < settings.flat_deviation


class Analyser:
    """Takes every frame, in order. camera_motion: whether the camera is followed.

    knows_ends: a frame waits for the next one, which tells whether its scene ends with it. Not for a camera (live):
    its picture must not be later for that.
    """

    def __init__(self, camera_motion: bool, knows_ends: bool, heuristics: Heuristics = DEFAULTS) -> None:
        self.settings = heuristics.analyse
        self.cuts = SceneCutDetector(heuristics.scene_cuts)
        self.motion = CameraMotionEstimator(heuristics.camera_motion) if camera_motion else None
        self.knows_ends = knows_ends
        self._scene = 0
        self._waiting: AnalysedFrame | None = None

    def push(self, frame: Frame, backlog: bool = False) -> AnalysedFrame | None:
        """What is known of this frame; of the one before where frames wait, None for the first then."""
        analysed = self._analyse(frame, backlog)
        if not self.knows_ends:
            return analysed
        before = self._waiting
        self._waiting = analysed
        return None if before is None else replace(before, ends=analysed.cut)

    def flush(self) -> AnalysedFrame | None:
        """The frame that still waits: its scene ends with the video."""
        last = self._waiting
        self._waiting = None
        return None if last is None else replace(last, ends=True)

    def _analyse(self, frame: Frame, backlog: bool) -> AnalysedFrame:
        luma, scale = luma_view(frame, self.settings.luma_side)
        scene = self.cuts.update(luma)
        cut = scene != self._scene
        self._scene = scene
        affine = self.motion.update(luma, frame.size) if self.motion is not None else None
        nothing = shows_nothing(luma, self.settings)
        return AnalysedFrame(
            frame, luma, scale, scene, None if cut else affine, cut, shows_nothing=nothing, backlog=backlog
        )
