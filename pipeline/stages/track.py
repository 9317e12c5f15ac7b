"""The tracker: takes detections, returns every face of the frame, detected or coasted.

A tracker for counting suppresses what it is not sure of; this one is for hiding faces and does the
opposite: every detection is returned in its own frame, and a detected face stays until it has been
missing for `coast_s`.

Association, in this order:
1. As in ByteTrack (Zhang et al., ECCV 2022): detections with a high score are assigned to known tracks
   (those that once had a score of `new_track_score`).
2. Detections with a low score are assigned to known tracks that were just detected.
3. Detections that overlap no better detection are assigned to any known track in reach, with boxes grown
   as in C-BIoU (Yang et al., WACV 2023): a single face near a track is most likely that track's, while in
   a crowd this guess is mostly wrong.
4. The rest is assigned to tracks that are not known yet.
"""

from __future__ import annotations

import math

import lap
import numpy as np
from facestream.engines.boxes import Array, Bool, area_xyxy, grow_xyxy, iou_xyxy
from facestream.engines.types import Detections
from facestream.pipeline.config import TrackerConfig
from facestream.pipeline.stages.kalman import TICK_S, Kalman
from facestream.pipeline.stages.settings import DEFAULTS, Heuristics
from facestream.pipeline.types import AssociationStage, Box, BoxState, xyxy
from numpy.typing import NDArray

# A track. seen_s: time of its last detection, by the tracker's clock; detection: number of the detector's run in which
# that was; score: of that detection; best: highest score so far; hits: number of detections; after_cut: begun then.
TRACK = np.dtype(
    [
        ("id", np.int64),
        ("scene", np.int64),
        ("seen_s", float),
        ("detection", np.int64),
        ("score", float),
        ("best", float),
        ("hits", np.int64),
        ("after_cut", bool),
    ]
)


class Tracker:
    """Multi-face tracker, to be updated frame by frame, in order. Ids count from 1 and are never reused."""

    def __init__(self, config: TrackerConfig, heuristics: Heuristics = DEFAULTS) -> None:
        self.config = config
        self.settings = heuristics.track
        self.filters = Kalman(heuristics.kalman)
        self.tracks = np.zeros(0, TRACK)  # one for each filter
        self.next_id = 1
        self.clock = 0.0  # seconds of video so far, never decreasing
        self.time_s: float | None = None  # of the last frame, as given
        self.first = True  # no frame has come yet
        self.detections = 0  # number of the detector's runs
        self.scene = 0
        self.after_cut_until_s = -math.inf  # until this time a face is confirmed by its first detection
        # The largest motion of a just detected face from the last frame to this one, in its own sides.
        self.max_speed = 0.0

    def update(
        self,
        detections: Detections | None,
        time_s: float | None,
        size: tuple[int, int],
        affine: Array | None = None,
        scene: int = 0,
        full_resolution: bool = True,
    ) -> tuple[Box, ...]:
        """All faces of the frame at time_s: first every detection, in order, then the tracks without a detection.

        detections: in pixels of the displayed frame, finite; None if the detector did not run on this frame.
        time_s: seconds, None if unknown (one tick after the last). size: width and height of the frame.
        affine: the camera's motion from the frame before, [2, 3] in pixels (see CameraMotionEstimator).
        full_resolution: whether this detection could find the smallest faces; if not, a missing face is no evidence.

        scene: a change of this number is a cut (see SceneCutDetector). No track continues over it, and for
        `after_cut_s` a face is confirmed by its first detection. A cut may turn out to be a flash, so in its first
        frame the faces of the previous scene are covered once more; if the next frame is of that scene, they continue.
        """
        step = self._advance(time_s)
        self._enter(scene)
        self._move(step, affine)
        boxes = [] if detections is None else self._observe(detections)
        observed = (self.tracks["detection"] == self.detections) & (detections is not None)
        boxes += self._coast(step, size, observed)
        self._forget(observed, detected=detections is not None and full_resolution)
        return tuple(boxes)

    def predict_boxes(self, time_s: float | None, affine: Array | None = None) -> Array:
        """Predicted boxes in the coming frame, xyxy [N, 4], grown by their uncertainty: of tracks that would coast
        there, and of tracks detected only once. affine: the camera's motion up to there, as in `update`."""
        step = self._step_to(time_s)
        which = (self.tracks["scene"] == self.scene) & (self.clock - self.tracks["seen_s"] <= self.config.coast_s)
        soon = self.filters.only(which)
        soon.predict(min(step, self.settings.max_step_s), np.zeros(soon.table.shape[1], bool))
        if affine is not None:
            soon.warp(affine)
        return grow_xyxy(soon.xyxy(), 1 + np.clip(soon.spread(), 0, self.settings.max_prediction_growth))

    def _advance(self, time_s: float | None) -> float:
        """Advance the clock; returns seconds since the last frame, 0 for the first."""
        step = 0.0 if self.first else self._step_to(time_s)
        self.first = False
        self.time_s = time_s
        self.clock += step
        return step

    def _step_to(self, time_s: float | None) -> float:
        """Seconds from the last frame to this time. A time that is missing or decreases counts as one tick."""
        if time_s is None or self.time_s is None or time_s < self.time_s:
            return TICK_S
        return time_s - self.time_s

    def _enter(self, scene: int) -> None:
        """Drop the tracks of other scenes; those of the previous scene only if this one is not new."""
        keep = self.tracks["scene"] == scene
        if scene > self.scene:
            keep |= self.tracks["scene"] == self.scene
            self.after_cut_until_s = self.clock + self.settings.after_cut_s
        self.scene = scene
        self._keep(keep)

    def _move(self, step: float, affine: Array | None) -> None:
        """Predict the tracks' boxes in this frame."""
        seen = self.tracks["detection"] == self.detections
        before = self.filters.table[0].copy()
        self.filters.predict(min(step, self.settings.max_step_s), ~seen)
        if affine is not None:
            self.filters.warp(affine)
        moved = np.abs(self.filters.table[0, :, :2] - before[:, :2]).max(1) / before[:, 2:].max(1)
        self.max_speed = float(moved[seen].max(initial=0.0))

    def _observe(self, found: Detections) -> list[Box]:
        """Assign each detection to a track, existing or new."""
        corners = found.xyxy.astype(np.float64)
        sides = np.maximum(corners[:, 2:] - corners[:, :2], 1.0)
        cxcywh = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, sides], 1)
        owner = self._associate(corners, found.scores)
        self.detections += 1
        old = owner >= 0
        self.filters.update(owner[old], cxcywh[old])
        fresh = np.flatnonzero(~old)
        if len(fresh):
            owner[fresh] = len(self.tracks) + np.arange(len(fresh))
            self._begin(cxcywh[fresh])
        tracks = self.tracks
        tracks["seen_s"][owner] = self.clock
        tracks["detection"][owner] = self.detections
        tracks["score"][owner] = found.scores
        tracks["best"][owner] = np.maximum(tracks["best"][owner], found.scores)
        tracks["hits"][owner] += 1
        known = self._known()[owner]
        high = found.scores >= self.config.high_score
        stages = np.where(
            known, np.where(high, AssociationStage.HIGH, AssociationStage.LOW), AssociationStage.TENTATIVE
        ).tolist()
        rows = zip(tracks["id"][owner].tolist(), found.xyxy.tolist(), found.scores.tolist(), stages, strict=True)
        return [
            Box(track, xyxy(box), score, BoxState.OBSERVED, AssociationStage(stage))
            for track, box, score, stage in rows
        ]

    def _begin(self, cxcywh: Array) -> None:
        """Append new tracks."""
        new = np.zeros(len(cxcywh), TRACK)
        new["id"] = self.next_id + np.arange(len(new))
        new["scene"] = self.scene
        new["after_cut"] = self.clock <= self.after_cut_until_s
        self.next_id += len(new)
        self.filters.add(cxcywh)
        self.tracks = np.concatenate([self.tracks, new])

    def _associate(self, boxes: Array, scores: Array) -> NDArray[np.intp]:
        """Association: the index of each detection's track, -1 for none."""
        owner = np.full(len(boxes), -1, np.intp)
        if not len(self.tracks) or not len(boxes):
            return owner
        config = self.config
        tracks = self.filters.xyxy()
        in_scene: Bool = self.tracks["scene"] == self.scene
        high = scores >= config.high_score
        known = in_scene & self._known()
        fresh = in_scene & (self.tracks["detection"] == self.detections)
        iou = iou_xyxy(boxes, tracks)
        _assign(owner, high, known, iou * scores[:, None], config.match_iou)
        _assign(owner, ~high, known & fresh, iou, config.low_score_iou)
        if (owner < 0).any():
            near = iou_xyxy(self._buffered(boxes), self._buffered(tracks))
            better = scores > scores[:, None]
            alone: Bool = ((iou_xyxy(boxes, boxes) > self.settings.touching_iou) & better).sum(1) == 0
            alone &= scores >= self.settings.min_near_score
            _assign(owner, alone, known, near, config.match_iou)
            _assign(owner, np.ones(len(boxes), bool), in_scene & ~known, near, config.match_iou)
        return owner

    def _buffered(self, boxes: Array) -> Array:
        """Boxes grown for matching, small ones more: they move by more of their size, and are located less exactly."""
        side = np.sqrt(np.maximum(area_xyxy(boxes), 1.0))
        small = self.settings.small_side
        large = self.settings.large_side
        share = np.clip((large - side) / (large - small), 0, 1) * self.config.box_buffer
        return grow_xyxy(boxes, 1 + 2 * share)

    def _known(self) -> Bool:
        """Which tracks had a high score once, or started after a cut."""
        known: Bool = (self.tracks["best"] >= self.config.new_track_score) | self.tracks["after_cut"]
        return known

    def _confirmed(self) -> Bool:
        """Which tracks are confirmed: once detected with a high score, or twice, or started after a cut."""
        confirmed: Bool = (
            (self.tracks["best"] >= self.config.confirm_score) | (self.tracks["hits"] > 1) | self.tracks["after_cut"]
        )
        return confirmed

    def _coast(self, step: float, size: tuple[int, int], observed: Bool) -> list[Box]:
        """Coasting: predicted boxes of tracks without a detection, grown by their uncertainty (at most by half).

        Only tracks that had been missing for at most coast_s at the last frame, so that one frame is covered at any
        frame rate, and whose box has not left the frame entirely.
        """
        unseen = self.clock - self.tracks["seen_s"]
        corners = self.filters.xyxy()
        inside = (corners[:, 2:] > 0).all(1) & (corners[:, :2] < size).all(1)
        index = np.flatnonzero(~observed & (unseen - step <= self.config.coast_s) & inside & self._confirmed())
        if not len(index):
            return []
        grown = grow_xyxy(corners[index], 1 + np.clip(self.filters.spread()[index], 0, self.settings.max_coast_growth))
        left = self.tracks[index]
        rows = zip(left["id"].tolist(), grown.tolist(), left["score"].tolist(), strict=True)
        return [Box(track, xyxy(box), score, BoxState.COASTED) for track, box, score in rows]

    def _forget(self, observed: Bool, detected: bool) -> None:
        """Drop tracks that have been missing too long, and unconfirmed ones that were not detected again.

        Known tracks are remembered for longer than they coast, even outside the frame: if they or the camera return,
        they keep their id.
        """
        config = self.config
        unseen = self.clock - self.tracks["seen_s"]
        longest = np.where(self._known(), max(config.remember_s, config.coast_s), config.coast_s)
        self._keep(observed | (unseen <= longest) & (self._confirmed() | (not detected)))

    def _keep(self, which: Bool) -> None:
        if not which.all():
            self.filters.keep(which)
            self.tracks = self.tracks[which]


def _assign(owner: NDArray[np.intp], rows: Bool, columns: Bool, likeness: Array, minimum: float) -> None:
    """Assign detections `rows` without a track to tracks `columns` without a detection, maximising the sum of
    likeness [N, M]; pairs below `least` are not assigned."""
    free = columns.copy()
    free[owner[owner >= 0]] = False
    index = np.flatnonzero(rows & (owner < 0))
    left = np.flatnonzero(free)
    if len(index) and len(left):
        table = likeness[np.ix_(index, left)]
        table[table < minimum] = 0
        row, column = _pairs(table)
        owner[index[row]] = left[column]


def _pairs(table: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Optimal assignment: rows and columns of the pairs with the greatest sum in a table [N, M] >= 0, without zeros."""
    likely = table > 0
    if (likely.sum(0) <= 1).all() and (likely.sum(1) <= 1).all():  # as mostly: nobody has a choice
        row, column = np.nonzero(likely)
        return row, column
    column, _ = lap.lapjv(-table, extend_cost=True, return_cost=False)  # -1: more rows than columns
    row = np.flatnonzero(column >= 0)
    row = row[table[row, column[row]] > 0]
    return row, column[row]
