"""Look-ahead: delays frames, so that later detections can still cover earlier frames."""

from __future__ import annotations

from collections import deque
from itertools import islice

from facestream.engines.boxes import Array
from facestream.pipeline.stages.backfill import Backfill
from facestream.pipeline.stages.delay_line import BufferedFrame, DelayLine
from facestream.pipeline.stages.fill_gaps import GapFiller
from facestream.pipeline.stages.settings import DEFAULTS, FailClosedSettings, Heuristics
from facestream.pipeline.stages.smooth import Smoother, sightings_of
from facestream.pipeline.stages.track_memory import TrackMemory
from facestream.pipeline.stages.types import Scope
from facestream.pipeline.types import Box, BoxKind, BoxState, Frame, TrackedFrame


class FrameIntervalEstimator:
    """Estimates a camera's frame interval from the numbers and times of frames that are not dropped."""

    def __init__(self, settings: FailClosedSettings = DEFAULTS.fail_closed) -> None:
        self.settings = settings
        self._last: tuple[int, float] | None = None
        self._steps: deque[float] = deque(maxlen=settings.interval_window)

    def note(self, frame: Frame) -> None:
        """Update with each frame."""
        if frame.time_s is None:
            return
        if self._last is not None and frame.index > self._last[0]:
            self._steps.append((frame.time_s - self._last[1]) / (frame.index - self._last[0]))
        self._last = (frame.index, frame.time_s)

    def max_wait_s(self, lag: int) -> float | None:
        """Seconds for which a frame may wait: until `lag` others would have come if none were dropped, and a little
        longer, since cameras are not regular. Longer intervals count as `max_interval_s`: a camera with a picture every
        five seconds would be a minute late. None if unknown yet."""
        is_slow = bool(self._steps) and min(self._steps) > self.settings.max_interval_s
        if len(self._steps) < self.settings.min_intervals and not is_slow:
            return None
        from statistics import median  # live alone needs it

        step = min(median(self._steps), self.settings.max_interval_s)
        return lag * step + max(self.settings.slack_frames * step, self.settings.min_slack_s)


class Lookahead:
    """Delays frames by `lag` frames; Backfill, GapFiller and Smoother change their boxes meanwhile.

    confirm_probability, max_coast_s: see TrackMemory.

    intervals: bounds the wait in time: a frame that has waited longer leaves before `lag` others came. Live, a busy
    machine drops frames, and the remaining ones must not wait longer for that. But no frame leaves early before a
    full-frame detection on it or on a later frame, since its result, or its failure, may concern this frame too.
    """

    def __init__(
        self,
        lag: int,
        confirm_probability: float = 0.9,
        max_coast_s: float | None = None,
        intervals: FrameIntervalEstimator | None = None,
        heuristics: Heuristics = DEFAULTS,
    ) -> None:
        self.lag = lag
        self.intervals = intervals
        self.settings = heuristics.smooth
        self.line = DelayLine()
        self.memory = TrackMemory(confirm_probability, max_coast_s, heuristics.lookahead)
        self.backfill = Backfill(self.line, heuristics)
        self.gaps = GapFiller(self.line, self.memory, heuristics)
        self.smoother = Smoother(heuristics.smooth)
        self._newest = 0  # the largest id so far: ids increase, so a larger one is a new track
        self._scene = 0  # the largest scene number that left
        self._seen = -1  # the newest frame with a full-frame detection, planned or done

    def push(
        self,
        tracked: TrackedFrame,
        luma: Array | None = None,
        scale: float = 1.0,
        scene: int = 0,
        affine: Array | None = None,
        scope: Scope = Scope.FULL,
    ) -> list[TrackedFrame]:
        """Take a frame; returns the frames whose wait is over, in order (at most one, without `intervals`).

        luma, scale, scene, affine: see AnalysedFrame. scope: of the frame's detection.
        """
        boxes = {box.key: box for box in tracked.boxes}
        sightings = sightings_of(tracked.boxes)
        self.line.frames.append(BufferedFrame(tracked.frame, boxes, luma, scale, scene, affine, sightings))
        if scope in (Scope.FULL, Scope.REDUCED, Scope.FAILED):
            self._seen = tracked.frame.index
        for box in tracked.boxes:
            self.memory.note_presence(box.id, tracked.frame.time_s)
            if box.state is BoxState.OBSERVED:
                self.memory.note_detection(box, tracked.frame.index)
                if box.id > self._newest or not self.gaps.fill(box):
                    self.backfill.begin(box.id, scene)
                self.backfill.cover(box, tracked.frame.index)
        self.memory.prune(self.line[0].frame.time_s)
        self._newest = max([self._newest, *(box.id for box in tracked.boxes)])
        first = self.line[0].frame.index
        left = []
        max_wait_s = None if self.intervals is None else self.intervals.max_wait_s(self.lag)
        while len(self.line) > self.lag or self._too_long(tracked, max_wait_s):
            first = self.line[0].frame.index
            left.append(self._leave())
        self.backfill.forget(first)
        return left

    def flush(self) -> list[TrackedFrame]:
        """The remaining frames, at the end."""
        return [self._leave() for _ in range(len(self.line))]

    def _too_long(self, newest: TrackedFrame, max_wait_s: float | None) -> bool:
        """Whether the oldest frame has waited for too long."""
        if max_wait_s is None or len(self.line) < 2:
            return False
        oldest = self.line[0].frame
        if oldest.time_s is None or newest.frame.time_s is None or oldest.index > self._seen:
            return False
        return newest.frame.time_s - oldest.time_s > max_wait_s

    def _leave(self) -> TrackedFrame:
        """Remove the oldest frame; returns it with its final boxes."""
        leaving = self.line.frames.popleft()
        self.gaps.follow_on(leaving)
        boxes = self.memory.leaving(leaving.frame, self._without_last_scene(leaving))
        waiting = self.line.frames
        coming = [(w.frame.index, w.boxes.values()) for w in islice(waiting, self.settings.path_frames)]
        sightings = [w.sightings for w in islice(waiting, self.settings.statistics_frames)]
        smooth = self.smoother.smooth(leaving.frame.index, boxes, coming, sightings)
        return TrackedFrame(leaving.frame, smooth)

    def _without_last_scene(self, leaving: BufferedFrame) -> list[Box]:
        """The boxes without those coasted over a cut. The tracker coasts for one frame after a cut, which may be a
        flash; if the next frame shows that it was a cut, these boxes are dropped, except for those that continue there
        and covers of the whole frame."""
        boxes = list(leaving.boxes.values())
        new = leaving.scene > self._scene
        self._scene = max(self._scene, leaving.scene)
        if not new or not len(self.line) or self.line[0].scene != leaving.scene:
            return boxes
        stay = self.line[0].boxes
        return [
            box
            for box in boxes
            if box.state is not BoxState.COASTED or box.kind is BoxKind.WHOLE_FRAME or box.key in stay
        ]
