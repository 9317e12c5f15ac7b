"""Fail-closed stage of a live camera: frames without a detection result leave fully covered, or not at all.

It reads the scope of each observation, and nothing else of the detection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from facestream.pipeline.config import Config
from facestream.pipeline.stages.chain import FacePipeline
from facestream.pipeline.stages.detect import PipelineDetector
from facestream.pipeline.stages.lookahead import FrameIntervalEstimator
from facestream.pipeline.stages.policy import LoadShedding
from facestream.pipeline.stages.tracking_stage import whole_frame_box
from facestream.pipeline.stages.types import Observation, Scope
from facestream.pipeline.types import Box, BoxKind, Frame, TrackedFrame


@dataclass(slots=True)
class FailClosedCounts:
    """detector_runs: frames with a detection; detector_failures: frames whose detection failed; fully_covered: frames
    that left fully covered; withheld: frames that did not leave; resets: restarts after a gap, a new size, a fault."""

    frames: int = 0
    detector_runs: int = 0
    detector_failures: int = 0
    fully_covered: int = 0
    withheld: int = 0
    resets: int = 0


class FailClosedPipeline:
    """The face pipeline of a live camera, made fail-closed.

    If a detection fails, that frame, those since the last successful full-frame detection, and those until the next one
    are fully covered: a face may have appeared in any of them. If a stage raises, the frames inside are withheld.
    Ids continue over resets. trouble: the last error, "" if all is well.
    """

    def __init__(self, detector: PipelineDetector, config: Config, max_detect_interval: int) -> None:
        self.counts = FailClosedCounts()
        self.trouble = ""
        self._detector = detector
        self._config = config
        self._size: tuple[int, int] | None = None
        self._id_offset = 0  # added to the pipeline's ids
        self._newest_id = 0
        self._intervals = FrameIntervalEstimator(config.advanced.fail_closed)
        self._shedding = LoadShedding(max_detect_interval, config.advanced.policy)
        self._restart()

    def push(self, frame: Frame, backlog: bool = False) -> list[TrackedFrame]:
        """Take a frame; returns those that may be covered now, in order. Never raises for a fault inside. backlog:
        whether others are waiting."""
        self.counts.frames += 1
        done = self.flush() if self._size not in (None, frame.size) else []
        self._size = frame.size
        self._intervals.note(frame)
        self._inside += 1
        try:
            observation, left = self._pipeline.process(frame, backlog)
        except Exception as error:  # a fault in any stage must neither let a frame through nor end the camera
            self._break(error)
            return done
        if observation is not None:
            self._note(observation)
        return done + [self._finish(tracked) for tracked in left]

    def flush(self) -> list[TrackedFrame]:
        """The remaining frames; restarts the pipeline. At the end, and after a gap."""
        try:
            left = self._pipeline.flush()
        except Exception as error:
            self._break(error)
            return []
        self._unknown.update(self._unseen)  # no later detection can find faces that appeared in them
        done = [self._finish(tracked) for tracked in left]
        self._restart()
        return done

    def _restart(self) -> None:
        self._shedding = LoadShedding(self._shedding.max_interval, self._config.advanced.policy, self._shedding.skip)
        self._pipeline = FacePipeline(
            self._detector, self._config, live=True, shedding=self._shedding, intervals=self._intervals
        )
        self._id_offset = self._newest_id
        self._inside = 0
        self._unseen: list[int] = []  # frames since the last successful full-frame detection
        self._unknown: set[int] = set()  # frames that must leave fully covered
        self._blind = True  # no successful full-frame detection in this scene yet
        self.counts.resets += self.counts.frames > 0

    def _break(self, error: Exception) -> None:
        self.counts.withheld += self._inside
        self.trouble = f"frames are withheld: {type(error).__name__}: {error}".splitlines()[0]
        self._restart()

    def _note(self, observation: Observation) -> None:
        """Decide from an observation's scope which frames must leave fully covered."""
        index = observation.frame.frame.index
        ran = observation.scope not in (Scope.SKIPPED, Scope.FAILED)
        self.counts.detector_runs += ran
        if observation.full_frame:
            self._unseen.clear()
            self._blind = False
            self.trouble = ""
            return
        if observation.scope is Scope.FAILED:
            self.counts.detector_failures += 1
            self._blind = True
            self.trouble = f"fully covered: {observation.error}"
            self._unknown.update(self._unseen)
            self._unseen.clear()
        if self._blind:
            self._unknown.add(index)
        else:
            self._unseen.append(index)

    def _finish(self, tracked: TrackedFrame) -> TrackedFrame:
        self._inside -= 1
        boxes = tuple(self._numbered(box) for box in tracked.boxes)
        self._newest_id = max([self._newest_id, *(box.id for box in boxes)])
        if tracked.frame.index in self._unknown:
            self._unknown.discard(tracked.frame.index)
            self.counts.fully_covered += 1
            boxes = (*boxes, whole_frame_box(tracked.frame))
        return replace(tracked, boxes=boxes)

    def _numbered(self, box: Box) -> Box:
        """The box with an id that is unique over all restarts."""
        return box if box.kind is BoxKind.WHOLE_FRAME else replace(box, id=box.id + self._id_offset)
