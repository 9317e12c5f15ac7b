"""FacePipeline: the stages in a row. Takes frames, returns tracked frames when their look-ahead is over.

    analyse -> policy -> detect -> track -> look ahead

Each stage takes data and returns data. The only feedback is the summary of the tracks, an input of the policy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from facestream.pipeline.config import Config
from facestream.pipeline.stages.analyse.analyser import Analyser
from facestream.pipeline.stages.detect import Detection, DetectionStage, PipelineDetector
from facestream.pipeline.stages.lookahead import FrameIntervalEstimator, Lookahead
from facestream.pipeline.stages.policy import DetectionPolicy, LoadShedding
from facestream.pipeline.stages.tracking_stage import TrackingStage
from facestream.pipeline.stages.types import AnalysedFrame, Observation
from facestream.pipeline.types import Box, Frame, TrackedFrame


class FrameShape:
    """Replaces the picture of a frame that waits without its pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height


def policy_for(detector: PipelineDetector, config: Config, shedding: LoadShedding | None = None) -> DetectionPolicy:
    """The policy that suits this detector."""
    return DetectionPolicy(
        config.detector,
        config.tracker.lookahead,
        full_only=detector.takes_yuv,
        crops=detector.any_size,
        shedding=shedding,
        heuristics=config.advanced,
    )


def detection_for(detector: PipelineDetector, config: Config) -> DetectionStage:
    """The detection stage that runs this detector."""
    return DetectionStage(detector, config.detector, heuristics=config.advanced)


class FacePipeline:
    """Detection, tracking and look-ahead, for any source of frames.

    max_coast_s: seconds for which a face stays covered after its last detection, if the tracker remembers it longer.
    live: frames come from a camera; none waits for the next one before detection.
    detection: the detection stage, by default one that runs the detector. shedding: load shedding, for a camera.
    intervals: bounds a frame's wait in time, for a camera. keep_pixels: if False, frames wait without their pictures,
    so that hundreds of them cost little; returned frames then have only a size.
    """

    def __init__(
        self,
        detector: PipelineDetector,
        config: Config,
        max_coast_s: float | None = None,
        live: bool = False,
        *,
        detection: Detection | None = None,
        shedding: LoadShedding | None = None,
        intervals: FrameIntervalEstimator | None = None,
        keep_pixels: bool = True,
    ) -> None:
        advanced = config.advanced
        self.policy = policy_for(detector, config, shedding)
        self.detection = detection or detection_for(detector, config)
        waits = self.policy.looks_back and not live
        self.analyser = Analyser(config.tracker.motion, waits, advanced)
        self.tracking = TrackingStage(config.tracker, advanced)
        # A frame that waits for the next one before detection still waits `lookahead` frames in all.
        lag = config.tracker.lookahead - waits
        self.lookahead = Lookahead(lag, config.tracker.confirm_probability, max_coast_s, intervals, advanced)
        self._keep_pixels = keep_pixels

    def push(self, frame: Frame) -> list[TrackedFrame]:
        """Take a frame; returns the frames whose wait is over, in order."""
        return self.process(frame)[1]

    def process(self, frame: Frame, backlog: bool = False) -> tuple[Observation | None, list[TrackedFrame]]:
        """Like push, with the observation of this frame, or of the one before if frames wait for the next one."""
        analysed = self.analyser.push(frame, backlog)
        return (None, []) if analysed is None else self._process(analysed)

    def flush(self) -> list[TrackedFrame]:
        """The remaining frames, at the end of the source."""
        last = self.analyser.flush()
        done = [] if last is None else self._process(last)[1]
        return done + [round_boxes(tracked) for tracked in self.lookahead.flush()]

    def _process(self, analysed: AnalysedFrame) -> tuple[Observation, list[TrackedFrame]]:
        plan = self.policy.plan(analysed, self.tracking.summary(analysed))
        observation = self.detection.run(analysed, plan)
        tracked = self.tracking.update(observation)
        if not self._keep_pixels:
            tracked = TrackedFrame(_without_pixels(tracked.frame), tracked.boxes)
        left = self.lookahead.push(
            tracked, analysed.luma, analysed.scale, analysed.scene, analysed.affine, observation.scope
        )
        return observation, [round_boxes(done) for done in left]


def _without_pixels(frame: Frame) -> Frame:
    shape: Any = FrameShape(frame.picture.width, frame.picture.height)
    return replace(frame, picture=shape)


def round_boxes(tracked: TrackedFrame) -> TrackedFrame:
    """Round boxes to a hundredth of a pixel, as in records, so that covers made from records are identical."""
    return TrackedFrame(tracked.frame, tuple([_rounded(box) for box in tracked.boxes]))


def _rounded(box: Box) -> Box:
    left, top, right, bottom = box.xyxy
    corners = (round(left, 2), round(top, 2), round(right, 2), round(bottom, 2))
    return Box(box.id, corners, round(box.score, 4), box.state, box.association, box.kind)
