"""The line of one live camera, failing closed: what nobody has looked at leaves covered all over, or not at all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

from facestream.engines.boxes import Array
from facestream.engines.types import Detections
from facestream.pipeline.config import Config, DetectorConfig
from facestream.pipeline.live.batching_detector import DetectorClient, InferenceFailed
from facestream.pipeline.stages.chain import FacePipeline, whole_frame_box
from facestream.pipeline.stages.detect import DetectionStage, no_boxes
from facestream.pipeline.types import Frame, TrackedFrame

SLACK_S = 0.1  # by which a frame may at least wait longer than the look-ahead's usual time
LATE_S = 0.35  # after a look, from which the next frame is looked at whatever the load: covers last for twice that
CALM = 30  # frames without a backlog after which one looks more often again


class LoadSheddingDetection(DetectionStage):
    """Runs the detector less often while frames pile up, and notes what became of the last look.

    looked: True, False when this frame was not to be looked at, None when it was and that failed; whole says whether it
    was a look at the whole picture. After one that failed the next frame is looked at, all of it.
    """

    def __init__(self, asked: DetectorClient, config: DetectorConfig, max_detect_interval: int, lag: int) -> None:
        super().__init__(asked, config, lag)
        self.max_detect_interval = max_detect_interval
        self.looked: bool | None = False
        self.trouble = ""
        self.skip = 0  # frames between two looks that are passed over because of the load; not counting dropped ones
        self._since = 0
        self._looked_s: float | None = None  # the time of the frame that was looked at last
        self._calm = 0

    def report_backlog(self, behind: bool) -> None:
        """Told with each frame whether others wait already."""
        self._calm = 0 if behind else self._calm + 1
        if behind:
            self.skip = min(self.skip + 1, self.max_detect_interval - 1)
        elif self._calm >= CALM:
            self.skip, self._calm = max(0, self.skip - 1), 0

    def look(
        self, frame: Frame, cut: bool = False, places: Callable[[], Array] = no_boxes, ends: bool = False
    ) -> Detections | None:
        self._since += 1
        late = self._looked_s is None or frame.time_s is None or frame.time_s - self._looked_s > LATE_S
        if self.last is not None and self._since <= self.skip and not (cut or late) and frame.index >= self.eager:
            self.looked = False
            return None
        self.again |= late
        try:
            found = super().look(frame, cut, places, ends)
        except InferenceFailed as error:
            self.looked, self.trouble = None, str(error)
            self.known = frame.index
            self.last = self._fine_at = None  # the next frame is looked at
            return None
        self.looked = found is not None
        if found is not None:
            self._since, self._looked_s = 0, frame.time_s
        return found


class FrameIntervalEstimator:
    """How long a camera's frames last, from the numbers and times of those that are not dropped."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._steps: deque[float] = deque(maxlen=31)

    def note(self, frame: Frame) -> None:
        if frame.time_s is None:
            return
        if self._last is not None and frame.index > self._last[0]:
            self._steps.append((frame.time_s - self._last[1]) / (frame.index - self._last[0]))
        self._last = frame.index, frame.time_s

    def longest_s(self, lag: int) -> float | None:
        """For which a frame may wait: until `lag` others would have come if none were dropped, and a little longer,
        since cameras are not regular. None where it cannot be known yet."""
        if len(self._steps) < 5:
            return None
        step = median(self._steps)
        return lag * step + max(2 * step, SLACK_S)


@dataclass(slots=True)
class FailClosedCounts:
    """detector_runs: frames that the detector ran on; detector_failures: frames on which it should have; fully_covered:
    frames that left fully covered; withheld: frames that did not leave; resets: restarts after a gap, a new size or a
    fault."""

    frames: int = 0
    detector_runs: int = 0
    detector_failures: int = 0
    fully_covered: int = 0
    withheld: int = 0
    resets: int = 0


class FailClosedPipeline:
    """Detect, track, look ahead for a live camera.

    When a look fails, that frame, those since the last look at a whole picture that succeeded, and those up to the next
    one that does are covered all over: a face may have come into any of them. When the line itself breaks, what is in
    it is held. Ids go on over resets. trouble: what went wrong last, "" while all is well.
    """

    def __init__(self, asked: DetectorClient, config: Config, max_detect_interval: int) -> None:
        self._asked, self._config, self._seldom = asked, config, max_detect_interval
        self.counts = FailClosedCounts()
        self.trouble = ""
        self._size: tuple[int, int] | None = None
        self._above = self._newest = 0  # added to the line's ids; the largest id so far
        self._eye = self._new_eye()
        self._tempo = FrameIntervalEstimator()
        self._renew()

    def push(self, frame: Frame, behind: bool = False) -> list[TrackedFrame]:
        """The frames that may be covered now, in order. Never raises for a fault inside."""
        self.counts.frames += 1
        done = self.flush() if self._size not in (None, frame.size) else []
        self._size = frame.size
        self._eye.report_backlog(behind)
        self._tempo.note(frame)
        self._line.lookahead.longest_s = self._tempo.longest_s(self._config.tracker.lookahead)
        self._inside += 1
        try:
            left = self._line.push(frame)
        except Exception as error:  # a fault in any stage must not let a frame through, nor end the camera
            self._break(error)
            return done
        self._note(frame.index)
        return done + [self._finish(tracked) for tracked in left]

    def flush(self) -> list[TrackedFrame]:
        """What still waits, and a new beginning: nothing more comes, or after a gap."""
        try:
            left = self._line.flush()
        except Exception as error:
            self._break(error)
            return []
        self._veiled.update(self._unseen)  # no look will come that knows what came into them
        done = [self._finish(tracked) for tracked in left]
        self._renew()
        return done

    def _renew(self) -> None:
        self._line = FacePipeline(self._asked, self._config, live=True)
        skip = self._eye.skip
        self._line.eye = self._eye = self._new_eye()
        self._eye.skip = skip
        self._above = self._newest
        self._inside = 0
        self._unseen: list[int] = []  # frames since the last look at a whole picture
        self._veiled: set[int] = set()
        self._blind = True  # nobody has looked at this scene yet
        self.counts.resets += self.counts.frames > 0

    def _new_eye(self) -> LoadSheddingDetection:
        return LoadSheddingDetection(self._asked, self._config.detector, self._seldom, self._config.tracker.lookahead)

    def _break(self, error: Exception) -> None:
        self.counts.withheld += self._inside
        self.trouble = f"frames are held back: {type(error).__name__}: {error}".splitlines()[0]
        self._renew()

    def _note(self, index: int) -> None:
        """What the look at this frame means for it and its neighbours."""
        looked = self._eye.looked
        self.counts.detector_runs += bool(looked)
        if looked and self._eye.whole:
            self._unseen.clear()
            self._blind = False
            self.trouble = ""
            return
        if looked is None:
            self.counts.detector_failures += 1
            self._blind = True
            self.trouble = f"covered all over: {self._eye.trouble}"
            self._veiled.update(self._unseen)
            self._unseen.clear()
        if self._blind:
            self._veiled.add(index)
        else:
            self._unseen.append(index)

    def _number(self, track: int) -> int:
        """A line's id among those of all lines so far: 0, for all over, stays, and so does a minus."""
        return track + self._above if track > 0 else track - self._above if track < 0 else 0

    def _finish(self, tracked: TrackedFrame) -> TrackedFrame:
        self._inside -= 1
        boxes = tuple(replace(box, id=self._number(box.id)) for box in tracked.boxes)
        self._newest = max([self._newest, *(box.id for box in boxes)])
        if tracked.frame.index in self._veiled:
            self._veiled.discard(tracked.frame.index)
            self.counts.fully_covered += 1
            boxes = (*boxes, whole_frame_box(tracked.frame))
        return replace(tracked, boxes=boxes)
