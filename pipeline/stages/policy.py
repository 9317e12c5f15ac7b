"""Detection policy: on which frames the detector runs, and at which scope and resolution.

Its inputs are the analysed frame and the summary of the tracks; its output is a plan that can be printed. It keeps the
state that it needs of earlier frames itself.
"""

from __future__ import annotations

from facestream.engines.letterbox import fit
from facestream.pipeline.config import DetectorConfig
from facestream.pipeline.stages.crop_mosaic import CropMosaic, mosaic_of
from facestream.pipeline.stages.settings import DEFAULTS, Heuristics, PolicySettings
from facestream.pipeline.stages.types import AnalysedFrame, DetectionPlan, Reason, Scope, TrackSummary
from facestream.pipeline.video.tiles import detection_scale, tiling_of


def reduced_size(size: tuple[int, int], settings: PolicySettings = DEFAULTS.policy) -> tuple[int, int]:
    """Width and height of the detector's input for a reduced full frame."""
    return round(settings.reduced_scale * size[0]), round(settings.reduced_scale * size[1])


class LoadShedding:
    """Load shedding: runs the detector less often while frames pile up (live), down to every `max_interval`-th frame.

    skip: frames skipped between two detections because of the load, not counting dropped ones.
    """

    def __init__(self, max_interval: int, settings: PolicySettings = DEFAULTS.policy, skip: int = 0) -> None:
        self.max_interval = max_interval
        self.settings = settings
        self.skip = skip
        self._calm = 0
        self._since = 0
        self._detected_s: float | None = None

    def report_backlog(self, backlog: bool) -> None:
        """Update with each frame. backlog: whether others are waiting already."""
        self._calm = 0 if backlog else self._calm + 1
        if backlog:
            self.skip = min(self.skip + 1, self.max_interval - 1)
        elif self._calm >= self.settings.recovery_frames:
            self.skip = max(0, self.skip - 1)
            self._calm = 0
        self._since += 1

    def detected(self, time_s: float | None) -> None:
        """The detector ran on a frame with this time."""
        self._since = 0
        self._detected_s = time_s

    def late(self, time_s: float | None) -> bool:
        """Whether the last detection is too long ago, or its time unknown; then no load is shed."""
        if self._detected_s is None or time_s is None:
            return True
        return time_s - self._detected_s > self.settings.max_shed_gap_s

    @property
    def sheds(self) -> bool:
        return self._since <= self.skip


class DetectionPolicy:
    """Plans a detection on every N-th frame, and on all frames after a cut; with 2 also on frames that come slowly.
    With `auto` on every second frame while faces move little.

    With 2 and `auto`, a full frame at full resolution is due every `full_frame_interval` frames, after a cut, and when
    a confirmed face is lost; halfway between, a full frame at reduced resolution. Otherwise only crops around known
    faces are planned, or a reduced full frame if that has fewer pixels. A face that appears between two full frames is
    found by the next one and backfilled, as far back as output waits; so full frames are at most half of the look-ahead
    apart.

    full_only: all sizes cost this detector the same (on a GPU), so every detection is a full frame.
    crops: whether the detector gets crop mosaics; one that recompiles per input shape (OpenVINO) never does.
    """

    def __init__(
        self,
        config: DetectorConfig,
        lookahead: int = 15,
        *,
        full_only: bool = False,
        crops: bool = True,
        shedding: LoadShedding | None = None,
        heuristics: Heuristics = DEFAULTS,
    ) -> None:
        self.size = config.size
        self.tiles = config.tiles
        self.settings = heuristics.policy
        self.mosaics = heuristics.crop_mosaic
        self.crops = crops
        self.shedding = shedding
        self.lookahead = lookahead
        self.auto = config.every == "auto"
        self._interval = 1 if config.every == "auto" else int(config.every)
        full_interval = min(config.full_frame_interval, lookahead // 2 + 1)
        self.full_interval = full_interval if config.every in (2, "auto") and not full_only else 1
        self._planned: int | None = None  # the frame of the last detection; None: there is none, or it failed
        self._full: int | None = None  # the last successful full frame at full resolution
        self._seen = -1  # the newest frame with a full-frame detection, planned or done
        self._time_s: float | None = None  # of the frame before, except for skipped ones
        self._dense_until = 0  # all frames before this one are detected on
        self._recheck = False  # detect on the next frame, unless only every 3rd or fewer are to be
        self._search = False  # a full frame at full resolution is due

    @property
    def looks_back(self) -> bool:
        """Whether the last frame of a scene gets a plan of its own; then frames must wait to be known as the last."""
        return self.full_interval > 1

    def plan(self, frame: AnalysedFrame, tracks: TrackSummary) -> DetectionPlan:
        """The plan for this frame; to be called for each frame once, in order."""
        self._learn(tracks)
        index = frame.frame.index
        late = False
        if self.shedding is not None:
            self.shedding.report_backlog(frame.backlog)
            late = self.shedding.late(frame.frame.time_s)
            detect_now = frame.cut or late or index < self._dense_until
            if self._planned is not None and self.shedding.sheds and not detect_now:
                return DetectionPlan(index, Scope.SKIPPED, Reason.LOAD)
        if frame.cut:
            self._dense_until = index + self.settings.eager_frames
        slow = self._slow(frame.frame.time_s)
        recheck = self._recheck or late
        self._recheck = False
        ends = frame.ends and self.looks_back
        interval = self._interval_for(tracks)
        detect_now = index < self._dense_until or ((slow or recheck) and interval <= 2)
        if self._planned is not None and index - self._planned < interval and not detect_now and not ends:
            return DetectionPlan(index, Scope.SKIPPED, Reason.INTERVAL)
        self._planned = index
        return self._sized(frame, tracks, slow, recheck, ends)

    def _learn(self, tracks: TrackSummary) -> None:
        """Update with the result of the plan for the frame before."""
        if tracks.scope is None or tracks.scope is Scope.SKIPPED:
            return
        if tracks.scope is Scope.FAILED:
            self._seen = tracks.index
            self._planned = None
            self._full = None
            return
        if tracks.scope is Scope.FULL:
            self._full = tracks.index
            self._search = False
        if tracks.scope is Scope.CROPS and tracks.lost:
            self._search = True
        self._recheck = bool(tracks.new or tracks.lost)
        if self.shedding is not None:
            self.shedding.detected(tracks.time_s)

    def _interval_for(self, tracks: TrackSummary) -> int:
        if not self.auto:
            return self._interval
        allowed = int(self.settings.max_motion / max(tracks.max_speed, 1e-6))
        return max(1, min(allowed, self.settings.max_auto_interval, self.lookahead + 1))

    def _slow(self, time_s: float | None) -> bool:
        """Whether the previous frame is long ago, considering that faces move."""
        before = self._time_s
        self._time_s = time_s
        return before is not None and time_s is not None and time_s - before > self.settings.slow_interval_s

    def _sized(
        self, frame: AnalysedFrame, tracks: TrackSummary, slow: bool, recheck: bool, ends: bool
    ) -> DetectionPlan:
        """The scope and resolution of the detection on a frame."""
        index = frame.frame.index
        half = (self.full_interval + 1) // 2
        # Faces move further between frames that come slowly: more full frames, and no crops unless all known faces
        # were re-detected and are static, or there are none.
        interval = half if slow else self.full_interval
        astray = slow and (recheck or tracks.max_speed > self.settings.steady_motion)
        reason = None
        if index < self._dense_until:
            reason = Reason.CUT
        elif self._full is None:
            reason = Reason.FIRST
        elif ends:
            reason = Reason.SCENE_END
        elif self._search:
            reason = Reason.LOST
        elif index - self._full >= interval:
            reason = Reason.INTERVAL
        if reason is not None:
            self._seen = index
            return DetectionPlan(index, Scope.FULL, reason)
        if astray:
            reason = Reason.SLOW
        elif index - self._seen >= half:
            reason = Reason.INTERVAL
        elif (mosaic := self._mosaic(frame, tracks)) is not None:
            return DetectionPlan(index, Scope.CROPS, Reason.RECHECK if recheck else Reason.INTERVAL, mosaic)
        self._seen = index
        return DetectionPlan(index, Scope.REDUCED, reason or Reason.CROWD)

    def _mosaic(self, frame: AnalysedFrame, tracks: TrackSummary) -> CropMosaic | None:
        """The crops around known faces; None if a reduced full frame is cheaper or better."""
        predicted = tracks.predict()
        if len(predicted) and not self.crops:
            return None
        picture = frame.frame
        scale = detection_scale(picture, self.size, self.tiles)
        width, height = fit(*picture.square_size, *reduced_size(self.size, self.settings))
        tiling = tiling_of(picture, self.size, self.tiles)
        pixels = width * height if tiling is None else self.size[0] * self.size[1] * len(tiling.regions)
        return mosaic_of(predicted, picture.size, scale, pixels, picture.stretch, self.mosaics)
