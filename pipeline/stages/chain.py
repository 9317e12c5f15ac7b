"""FacePipeline: the stages in a row. A frame in, tracked frames out, when their look-ahead is over.

    analyse -> policy -> detect -> track -> look ahead

Each stage takes data and returns data. The one feedback is the summary of the tracks, which the policy is given.
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
    """What is kept of a picture whose frame waits without its pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height


def policy_for(detector: PipelineDetector, config: Config, shedding: LoadShedding | None = None) -> DetectionPolicy:
    """The policy for this kind of detector."""
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
    """Detects, tracks and looks ahead; any source of frames may feed it.

    max_coast_s: seconds for which a face stays covered after it was last known, where the tracker remembers it longer.
    live: frames come from a camera: none waits for the next one before it is detected on.
    detection: the detection stage, by default one that runs the detector. shedding: of load, for a camera.
    intervals: bounds a frame's wait in time, for a camera. keep_pixels: False lets frames wait without their pictures,
    so that hundreds of them cost little; what leaves then has only its size.
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
        # The frame that waits for the next one waits in all for as many as asked for.
        lag = config.tracker.lookahead - waits
        self.lookahead = Lookahead(lag, config.tracker.confirm_score, max_coast_s, intervals, advanced)
        self._keep_pixels = keep_pixels

    def push(self, frame: Frame) -> list[TrackedFrame]:
        """Take a frame in; the frames whose wait is over, in order."""
        return self.process(frame)[1]

    def process(self, frame: Frame, backlog: bool = False) -> tuple[Observation | None, list[TrackedFrame]]:
        """As push, and what was observed: in this frame, or in the one before where frames wait for the next one."""
        analysed = self.analyser.push(frame, backlog)
        return (None, []) if analysed is None else self._process(analysed)

    def flush(self) -> list[TrackedFrame]:
        """The frames that still wait: nothing more comes."""
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
    """Boxes to a hundredth of a pixel, as records hold them: covers made from records are then the same."""
    return TrackedFrame(tracked.frame, tuple([_rounded(box) for box in tracked.boxes]))


def _rounded(box: Box) -> Box:
    left, top, right, bottom = box.xyxy
    corners = (round(left, 2), round(top, 2), round(right, 2), round(bottom, 2))
    return Box(box.id, corners, round(box.score, 4), box.state, box.association, box.kind)
