"""The stages between the rings: a frame in, tracked frames out, when their look-ahead is over."""

from __future__ import annotations

from dataclasses import replace

from engines.detector import Detector
from pipeline.config import Config
from pipeline.cuts import Cuts
from pipeline.detect import Eye
from pipeline.lookahead import Lookahead
from pipeline.planes import luma_view
from pipeline.track import Tracker
from pipeline.types import Box, Frame, TrackedFrame, xyxy

LUMA = 640  # the longer side of the brightness by which cuts are found and faces followed


class Line:
    """Detect, track, look ahead.

    guess_s: seconds for which a face stays covered after it was seen last, where the tracker remembers it longer.
    """

    def __init__(self, detector: Detector, config: Config, guess_s: float | None = None) -> None:
        self.eye = Eye(detector, config.detector)
        self.tracker = Tracker(config.tracker)
        self.cuts = Cuts()
        self.scene = 0
        self.lookahead = Lookahead(config.tracker.lookahead, config.tracker.high, guess_s)

    def push(self, frame: Frame) -> list[TrackedFrame]:
        luma, scale = luma_view(frame, LUMA)
        scene = self.cuts.look(luma)
        cut, self.scene = scene != self.scene, scene
        boxes = self.tracker.update(self.eye.look(frame, cut), frame.time_s, frame.size)
        return [settled(t) for t in self.lookahead.push(TrackedFrame(self._held(frame), boxes), luma, scale, scene)]

    def _held(self, frame: Frame) -> Frame:
        """The frame as it waits."""
        return frame

    def flush(self) -> list[TrackedFrame]:
        return [settled(t) for t in self.lookahead.flush()]


def settled(tracked: TrackedFrame) -> TrackedFrame:
    """Boxes to a hundredth of a pixel, as records hold them: covers made from records are then the same."""
    return replace(tracked, boxes=tuple(_rounded(box) for box in tracked.boxes))


def _rounded(box: Box) -> Box:
    return replace(box, xyxy=xyxy(round(v, 2) for v in box.xyxy), score=round(box.score, 4))
