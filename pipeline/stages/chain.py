"""The stages between the rings: a frame in, tracked frames out, when their look-ahead is over."""

from __future__ import annotations

from dataclasses import dataclass

from facestream.engines.base import Detector
from facestream.engines.boxes import Array
from facestream.pipeline.config import Config
from facestream.pipeline.stages.analyse.camera_motion import CameraMotionEstimator
from facestream.pipeline.stages.analyse.scene_cuts import SceneCutDetector
from facestream.pipeline.stages.detect import DetectionStage
from facestream.pipeline.stages.detector_health import DetectorHealth
from facestream.pipeline.stages.lookahead import Lookahead
from facestream.pipeline.stages.track import Tracker
from facestream.pipeline.stages.truncated_faces import extrapolate_truncated
from facestream.pipeline.types import Box, BoxState, Frame, TrackedFrame
from facestream.pipeline.video.planes import luma_view

# For how long faces move on where the detector is blind, before they are held at their places: seconds, and the share
# of the time for which a missing face is covered at all, so that none is let go before.
ON_S, ON_SHARE = 0.4, 0.6
LUMA = 640  # the longer side of the brightness by which cuts are found and faces followed


@dataclass(frozen=True, slots=True)
class AnalysedFrame:
    """A frame whose scene is known. luma, scale: see luma_view. affine: the camera's motion since the frame before,
    None also where a new scene begins. cut: one begins."""

    frame: Frame
    luma: Array
    scale: float
    scene: int
    affine: Array | None
    cut: bool


class FacePipeline:
    """Detect, track, look ahead.

    max_coast_s: seconds for which a face stays covered after it was seen last, where the tracker remembers it longer.

    A frame waits for the next one before detection, where that tells what is done: see `DetectionStage.look`, ends.
    Not with a camera (live), which must not be later for it.
    """

    def __init__(
        self, detector: Detector, config: Config, max_coast_s: float | None = None, live: bool = False
    ) -> None:
        self.eye = DetectionStage(detector, config.detector, config.tracker.lookahead)
        self.waits = not live and self.eye.fine_every > 1
        self.next: AnalysedFrame | None = None  # that waits for the one after it
        self.tracker = Tracker(config.tracker)
        self.cuts = SceneCutDetector()
        self.health = DetectorHealth()
        self.motion = CameraMotionEstimator() if config.tracker.motion else None
        self.config = config.tracker
        self.scene = 0
        self.tracked_scene = 0  # the same as the tracker knows it
        self.same: dict[int, int] = {}  # scenes that go on with an earlier one of the tracker's
        self.was_held = False  # was the last frame one in which faces are held
        self.blind_s = 0.0  # for how long the detector has been blind
        self.held_s = 0.0  # how long the tracker's clock stood still
        self.last_s: float | None = None
        self.seen: set[int] = set()  # tracks that were seen at the last look
        self.sure: set[int] = set()  # those of the living that were seen with a sure score
        # The frame that waits for the next one waits in all for as many as asked for.
        self.lookahead = Lookahead(config.tracker.lookahead - self.waits, config.tracker.confirm_score, max_coast_s)

    def push(self, frame: Frame) -> list[TrackedFrame]:
        luma, scale = luma_view(frame, LUMA)
        scene = self.cuts.update(luma)
        cut, self.scene = scene != self.scene, scene
        affine = self.motion.update(luma, frame.size) if self.motion is not None else None
        now = AnalysedFrame(frame, luma, scale, scene, None if cut else affine, cut)
        if not self.waits:
            return self._push(now)
        last, self.next = self.next, now
        return [] if last is None else self._push(last, ends=cut)

    def _push(self, now: AnalysedFrame, ends: bool = False) -> list[TrackedFrame]:
        """A frame whose turn it is. ends: its scene does."""
        frame = now.frame
        found = self.eye.look(frame, now.cut, lambda: self.tracker.predict_boxes(frame.time_s, now.affine), ends)
        if found is not None:
            found = extrapolate_truncated(found, frame.size)
        telling = found if self.eye.fine or found else None  # a coarse look that finds nobody says nothing
        blind = self.health.is_blind(now.luma, telling, self.config.confirm_score)
        boxes = self.tracker.update(
            found,
            self._clock(frame.time_s, blind),
            frame.size,
            now.affine,
            self._tracked_scene(now, blind),
            self.eye.fine,
        )
        if found is not None:
            self.eye.again = self._unsteady(boxes)
        self.eye.pace(self.tracker.max_speed, self.config.lookahead)
        if blind and self.config.when_blind == "cover-all":
            boxes = (*boxes, whole_frame_box(frame))
        tracked = TrackedFrame(self._held(frame), boxes)
        self.lookahead.known = self.eye.known
        return [round_boxes(t) for t in self.lookahead.push(tracked, now.luma, now.scale, now.scene, now.affine)]

    def _unsteady(self, boxes: tuple[Box, ...]) -> bool:
        """Told of the tracks at each look: is one new, or one missing that was there at the last look? Faces that were
        never sure do not count: they come and go all the time. Who is missing where he should be may be elsewhere."""
        seen = {box.id for box in boxes if box.state is BoxState.OBSERVED}
        sure = {box.id for box in boxes if box.state is BoxState.OBSERVED and box.score >= self.config.confirm_score}
        self.sure |= sure
        missing = (self.seen & self.sure) - seen
        self.eye.search |= bool(missing) and not self.eye.whole
        changed = bool(missing or sure - self.seen)
        self.sure &= {box.id for box in boxes}
        self.seen = seen
        return changed

    def _clock(self, time_s: float | None, blind: bool) -> float | None:
        """The tracker's time. It stands still while the detector is blind and faces are to be held, so that they
        neither move on nor are forgotten; but not at first: faces that move go on for a moment, as they would."""
        if time_s is None:
            return None
        step = 0.0 if self.last_s is None else max(0.0, time_s - self.last_s)
        self.blind_s = self.blind_s + step if blind else 0.0
        if self.config.when_blind == "hold" and self.blind_s > min(ON_S, ON_SHARE * self.config.coast_s):
            self.held_s += step
        self.last_s = time_s
        return time_s - self.held_s

    def _tracked_scene(self, now: AnalysedFrame, blind: bool) -> int:
        """The scene's number for the tracker, to which the light going out or on again is no cut: held faces stay."""
        held = blind and self.config.when_blind == "hold"
        if now.cut and (held or self.was_held):
            self.same[now.scene] = self.tracked_scene
        self.was_held = held
        self.tracked_scene = self.same.get(now.scene, now.scene)
        return self.tracked_scene

    def _held(self, frame: Frame) -> Frame:
        """The frame as it waits."""
        return frame

    def flush(self) -> list[TrackedFrame]:
        last, self.next = self.next, None
        done = [] if last is None else self._push(last, ends=True)
        return done + [round_boxes(t) for t in self.lookahead.flush()]


def whole_frame_box(frame: Frame) -> Box:
    """A box whose cover, of any shape, hides the whole frame."""
    width, height = frame.size
    return Box(0, (-width / 2, -height / 2, 1.5 * width, 1.5 * height), 0.0, BoxState.COASTED)


def round_boxes(tracked: TrackedFrame) -> TrackedFrame:
    """Boxes to a hundredth of a pixel, as records hold them: covers made from records are then the same."""
    return TrackedFrame(tracked.frame, tuple([_rounded(box) for box in tracked.boxes]))


def _rounded(box: Box) -> Box:
    left, top, right, bottom = box.xyxy
    corners = round(left, 2), round(top, 2), round(right, 2), round(bottom, 2)
    return Box(box.id, corners, round(box.score, 4), box.state, box.sight)
