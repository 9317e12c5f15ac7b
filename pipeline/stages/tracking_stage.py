"""Tracking stage: turns observations into tracked frames, and summarises the tracks for the policy."""

from __future__ import annotations

from facestream.engines.boxes import Array
from facestream.pipeline.config import TrackerConfig
from facestream.pipeline.stages.detector_health import DetectorHealth
from facestream.pipeline.stages.settings import DEFAULTS, Heuristics
from facestream.pipeline.stages.track import Tracker
from facestream.pipeline.stages.types import AnalysedFrame, Observation, Scope, TrackSummary
from facestream.pipeline.types import Box, BoxKind, BoxState, Frame, TrackedFrame


def whole_frame_box(frame: Frame) -> Box:
    """A box whose cover, of any shape, hides the whole frame."""
    width, height = frame.size
    corners = (-width / 2, -height / 2, 1.5 * width, 1.5 * height)
    return Box(0, corners, 0.0, BoxState.COASTED, kind=BoxKind.WHOLE_FRAME)


class TrackingStage:
    """Tracks faces, and freezes them while the detector is blind (`tracker.when_blind`)."""

    def __init__(self, config: TrackerConfig, heuristics: Heuristics = DEFAULTS) -> None:
        self.config = config
        self.tracker = Tracker(config, heuristics)
        self.health = DetectorHealth(heuristics.detector_health)
        self.settings = heuristics.detector_health
        self._scene = 0  # the tracker's scene number
        self._same: dict[int, int] = {}  # scenes that continue an earlier one of the tracker's
        self._was_frozen = False  # whether faces were frozen in the last frame
        self._blind_s = 0.0  # for how long the detector has been blind
        self._held_s = 0.0  # for how long the tracker's clock has been stopped in all
        self._last_s: float | None = None
        self._seen: frozenset[int] = frozenset()  # tracks that the last detection found
        self._confirmed: frozenset[int] = frozenset()  # confirmed tracks that still exist
        self._new: frozenset[int] = frozenset()
        self._lost: frozenset[int] = frozenset()
        self._last: Observation | None = None

    def summary(self, frame: AnalysedFrame) -> TrackSummary:
        """The summary of the tracks for the coming frame. Does not change anything."""

        def predict() -> Array:
            time_s = frame.frame.time_s
            return self.tracker.predict_boxes(None if time_s is None else time_s - self._held_s, frame.affine)

        if self._last is None:
            return TrackSummary(predict)
        last = self._last.frame.frame
        scope = self._last.scope
        return TrackSummary(predict, self.tracker.max_speed, self._new, self._lost, last.index, last.time_s, scope)

    def update(self, observation: Observation) -> TrackedFrame:
        """The frame with all its faces, observed or coasted."""
        analysed = observation.frame
        faces = observation.faces
        # A reduced full frame without detections is no evidence: small faces are not visible in it.
        telling = faces if observation.full_resolution or faces else None
        blind = self.health.is_blind(analysed.shows_nothing, telling, self.config.confirm_score)
        boxes = self.tracker.update(
            faces,
            self._clock(analysed.frame.time_s, blind),
            analysed.frame.size,
            analysed.affine,
            self._tracked_scene(analysed, blind),
            observation.full_resolution,
        )
        self._new = frozenset()
        self._lost = frozenset()
        if observation.scope not in (Scope.SKIPPED, Scope.FAILED):
            self._compare(boxes)
        self._last = observation
        if blind and self.config.when_blind == "cover-all":
            boxes = (*boxes, whole_frame_box(analysed.frame))
        return TrackedFrame(analysed.frame, boxes)

    def _compare(self, boxes: tuple[Box, ...]) -> None:
        """Update the confirmed faces that are new, and those that the previous detection found and this one did not.
        Unconfirmed faces do not count: they appear and disappear all the time."""
        seen = frozenset(box.id for box in boxes if box.state is BoxState.OBSERVED)
        score = self.config.confirm_score
        confirmed = frozenset(box.id for box in boxes if box.state is BoxState.OBSERVED and box.score >= score)
        known = self._confirmed | confirmed
        self._lost = (self._seen & known) - seen
        self._new = confirmed - self._seen
        self._confirmed = known & {box.id for box in boxes}
        self._seen = seen

    def _clock(self, time_s: float | None, blind: bool) -> float | None:
        """The tracker's time. It stops while the detector is blind and faces are to be frozen, so that they neither
        move nor are forgotten; but not at once: moving faces continue for a moment."""
        if time_s is None:
            return None
        step = 0.0 if self._last_s is None else max(0.0, time_s - self._last_s)
        self._blind_s = self._blind_s + step if blind else 0.0
        moving_s = min(self.settings.coast_s, self.settings.coast_share * self.config.coast_s)
        if self.config.when_blind == "hold" and self._blind_s > moving_s:
            self._held_s += step
        self._last_s = time_s
        return time_s - self._held_s

    def _tracked_scene(self, frame: AnalysedFrame, blind: bool) -> int:
        """The tracker's scene number: a frame going dark or bright again is no cut for it, so frozen faces stay."""
        frozen = blind and self.config.when_blind == "hold"
        if frame.cut and (frozen or self._was_frozen):
            before = self._last.frame.scene if self._last is not None else frame.scene
            # After a flash the scene before it goes on; none older ever does.
            self._same = {scene: same for scene, same in self._same.items() if scene == before}
            self._same[frame.scene] = self._scene
        self._was_frozen = frozen
        self._scene = self._same.get(frame.scene, frame.scene)
        return self._scene
