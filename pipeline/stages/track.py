"""The tracker: detections in, every face of the frame out, seen or not.

A tracker for counting hides what it is not sure of; this one hides faces, so it is the other way
round: every detection is returned in its own frame, and a face once found stays until it has been
missing for `coast_s`.

Association begins like ByteTrack's (Zhang et al., ECCV 2022): high scores choose first among the
known tracks (those that once had a score of `birth`), low ones may go on with a known track that
was there a moment ago. Then what touches no better detection may have any known track in its
reach, boxes grown as in C-BIoU (Yang et al., WACV 2023): a face alone at its place is most likely
the one that was there, while in a crowd that guess is mostly wrong. Last come the tracks that are
not known yet.
"""

from __future__ import annotations

import math

import lap
import numpy as np
from facestream.engines.boxes import Array, Bool, area_xyxy, grow_xyxy, iou_xyxy
from facestream.engines.types import Detections
from facestream.pipeline.config import TrackerConfig
from facestream.pipeline.stages.kalman import TICK_S, Kalman
from facestream.pipeline.types import AssociationStage, Box, BoxState, xyxy
from numpy.typing import NDArray

LONGEST_S = 1.0  # a longer time between two frames is taken as this one: a prediction over more is worth nothing
SMALL, LARGE = 20.0, 80.0  # sides in pixels between which the buffer falls from full to none
BELIEVED = 0.35  # score from which a face that lies only near a track's place is taken for that one
TOUCH = 0.01  # IoU from which two detections touch
EAGER_S = 0.25  # seconds after a cut in which a face is believed at first sight: all are new there
# A track. seen_s: when it was last detected, by the tracker's clock; look: in which look of the detector that was;
# score: of that detection; best: the highest so far; hits: how often it was detected; eager: born after a cut.
TRACK = np.dtype(
    [("id", np.int64), ("scene", np.int64), ("seen_s", float), ("look", np.int64), ("score", float), ("best", float),
     ("hits", np.int64), ("eager", bool)]
)  # fmt: skip


class Tracker:
    """Feed it frame by frame, in order. Ids count from 1 and are never used again."""

    def __init__(self, config: TrackerConfig) -> None:
        self.config = config
        self.filters = Kalman()
        self.tracks = np.zeros(0, TRACK)  # one for each filter
        self.next_id = 1
        self.clock = 0.0  # seconds of video so far, which never run backwards
        self.time_s: float | None = None  # of the last frame, as given
        self.first = True  # has no frame come so far
        self.looks = 0  # how often the detector has looked
        self.scene = 0
        self.eager_s = -math.inf  # until when a face is believed at first sight
        self.max_speed = (
            0.0  # the largest motion of a face that was just seen, in its own sides, from the last frame to this
        )

    def update(
        self,
        detections: Detections | None,
        time_s: float | None,
        size: tuple[int, int],
        affine: Array | None = None,
        scene: int = 0,
        fine: bool = True,
    ) -> tuple[Box, ...]:
        """All faces of the frame at time_s: first every detection, in order, then the tracks that were not seen.

        detections: in pixels of the displayed picture, finite; None when the detector did not look at
        this frame. time_s: seconds, None if unknown (one tick after the last). size: width and height of
        the picture. affine: the camera's motion from the frame before, [2, 3] in pixels (see Motion). fine: could this
        look find the smallest faces? One that could not says nothing of those that it did not find.

        scene: a cut is where this number changes (see Cuts). No track goes on over it, and for EAGER_S
        a face is believed at first sight. A cut may still turn out to be a flash, so in its first frame
        the faces of the scene before are covered once more; if the next frame is of that scene, they go on.
        """
        step = self._advance(time_s)
        self._enter(scene)
        self._move(step, affine)
        boxes = [] if detections is None else self._observe(detections)
        observed = (self.tracks["look"] == self.looks) & (detections is not None)
        boxes += self._coast(step, size, observed)
        self._forget(observed, looked=detections is not None and fine)
        return tuple(boxes)

    def predict_boxes(self, time_s: float | None, affine: Array | None = None) -> Array:
        """Where faces should be in a coming frame, xyxy [N, 4], grown with their uncertainty: those that would be
        covered there unseen, and such that were seen once. affine: the camera's motion up to there, as in `update`."""
        step = self._step_to(time_s)
        which = (self.tracks["scene"] == self.scene) & (self.clock - self.tracks["seen_s"] <= self.config.coast_s)
        soon = self.filters.only(which)
        soon.predict(min(step, LONGEST_S), np.zeros(soon.table.shape[1], bool))
        if affine is not None:
            soon.warp(affine)
        return grow_xyxy(soon.xyxy(), 1 + np.clip(soon.spread(), 0, 1))

    def _advance(self, time_s: float | None) -> float:
        """Seconds since the last frame, none for the first."""
        step = 0.0 if self.first else self._step_to(time_s)
        self.first, self.time_s = False, time_s
        self.clock += step
        return step

    def _step_to(self, time_s: float | None) -> float:
        """Seconds from the last frame to one at this time. A time that is missing or jumps back counts as a tick."""
        if time_s is None or self.time_s is None or time_s < self.time_s:
            return TICK_S
        return time_s - self.time_s

    def _enter(self, scene: int) -> None:
        """Let go of the tracks of other scenes; of the one before only when this one is not new."""
        keep = self.tracks["scene"] == scene
        if scene > self.scene:
            keep |= self.tracks["scene"] == self.scene
            self.eager_s = self.clock + EAGER_S
        self.scene = scene
        self._keep(keep)

    def _move(self, step: float, affine: Array | None) -> None:
        """To where the tracks should be in this frame."""
        seen, before = self.tracks["look"] == self.looks, self.filters.table[0].copy()
        self.filters.predict(min(step, LONGEST_S), ~seen)
        if affine is not None:
            self.filters.warp(affine)
        moved = np.abs(self.filters.table[0, :, :2] - before[:, :2]).max(1) / before[:, 2:].max(1)
        self.max_speed = float(moved[seen].max(initial=0.0))

    def _observe(self, found: Detections) -> list[Box]:
        """Give each detection a track, old or new."""
        corners = found.xyxy.astype(np.float64)
        sides = np.maximum(corners[:, 2:] - corners[:, :2], 1.0)
        cxcywh = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, sides], 1)
        owner = self._associate(corners, found.scores)
        self.looks += 1
        old = owner >= 0
        self.filters.update(owner[old], cxcywh[old])
        fresh = np.flatnonzero(~old)
        if len(fresh):
            owner[fresh] = len(self.tracks) + np.arange(len(fresh))
            self._begin(cxcywh[fresh])
        tracks = self.tracks
        tracks["seen_s"][owner], tracks["look"][owner], tracks["score"][owner] = self.clock, self.looks, found.scores
        tracks["best"][owner] = np.maximum(tracks["best"][owner], found.scores)
        tracks["hits"][owner] += 1
        known, high = self._known()[owner], found.scores >= self.config.high_score
        sights = np.where(
            known, np.where(high, AssociationStage.HIGH, AssociationStage.LOW), AssociationStage.TENTATIVE
        ).tolist()
        rows = zip(tracks["id"][owner].tolist(), found.xyxy.tolist(), found.scores.tolist(), sights, strict=True)
        return [
            Box(track, xyxy(box), score, BoxState.OBSERVED, AssociationStage(sight))
            for track, box, score, sight in rows
        ]

    def _begin(self, cxcywh: Array) -> None:
        """New tracks at the end of the list."""
        new = np.zeros(len(cxcywh), TRACK)
        new["id"] = self.next_id + np.arange(len(new))
        new["scene"], new["eager"] = self.scene, self.clock <= self.eager_s
        self.next_id += len(new)
        self.filters.add(cxcywh)
        self.tracks = np.concatenate([self.tracks, new])

    def _associate(self, boxes: Array, scores: Array) -> NDArray[np.intp]:
        """The track of each detection, -1 for none."""
        owner = np.full(len(boxes), -1, np.intp)
        if not len(self.tracks) or not len(boxes):
            return owner
        config, tracks = self.config, self.filters.xyxy()
        here: Bool = self.tracks["scene"] == self.scene
        high = scores >= config.high_score
        known, fresh = here & self._known(), here & (self.tracks["look"] == self.looks)
        iou = iou_xyxy(boxes, tracks)
        _assign(owner, high, known, iou * scores[:, None], config.match_iou)
        _assign(owner, ~high, known & fresh, iou, config.low_score_iou)
        if (owner < 0).any():
            near = iou_xyxy(self._buffered(boxes), self._buffered(tracks))
            better = scores > scores[:, None]
            alone: Bool = ((iou_xyxy(boxes, boxes) > TOUCH) & better).sum(1) == 0
            alone &= scores >= BELIEVED
            _assign(owner, alone, known, near, config.match_iou)
            _assign(owner, np.ones(len(boxes), bool), here & ~known, near, config.match_iou)
        return owner

    def _buffered(self, boxes: Array) -> Array:
        """Boxes grown for comparison, small ones more: they move by more of their size, and are seen less exactly."""
        side = np.sqrt(np.maximum(area_xyxy(boxes), 1.0))
        share = np.clip((LARGE - side) / (LARGE - SMALL), 0, 1) * self.config.box_buffer
        return grow_xyxy(boxes, 1 + 2 * share)

    def _known(self) -> Bool:
        """Which tracks have been seen beyond doubt; after a cut that is not asked."""
        known: Bool = (self.tracks["best"] >= self.config.new_track_score) | self.tracks["eager"]
        return known

    def _sure(self) -> Bool:
        """Which tracks are faces and no slips of the detector: those once seen well, or twice, or after a cut."""
        sure: Bool = (
            (self.tracks["best"] >= self.config.confirm_score) | (self.tracks["hits"] > 1) | self.tracks["eager"]
        )
        return sure

    def _coast(self, step: float, size: tuple[int, int], observed: Bool) -> list[Box]:
        """Tracks without a detection, where they should be, grown with their uncertainty (at most by half).

        Those that were missing for at most coast_s when the last frame came, so one frame is covered at any
        frame rate; and that have not left the picture altogether.
        """
        unseen, corners = self.clock - self.tracks["seen_s"], self.filters.xyxy()
        inside = (corners[:, 2:] > 0).all(1) & (corners[:, :2] < size).all(1)
        index = np.flatnonzero(~observed & (unseen - step <= self.config.coast_s) & inside & self._sure())
        if not len(index):
            return []
        grown = grow_xyxy(corners[index], 1 + np.clip(self.filters.spread()[index], 0, 0.5))
        left = self.tracks[index]
        rows = zip(left["id"].tolist(), grown.tolist(), left["score"].tolist(), strict=True)
        return [Box(track, xyxy(box), score, BoxState.COASTED) for track, box, score in rows]

    def _forget(self, observed: Bool, looked: bool) -> None:
        """Drop tracks that were missing too long, or were never sure and are gone.

        Known ones are remembered for longer than they are returned, even outside the picture: when they come
        back, or the camera does, they are the same.
        """
        config, unseen = self.config, self.clock - self.tracks["seen_s"]
        longest = np.where(self._known(), max(config.remember_s, config.coast_s), config.coast_s)
        self._keep(observed | (unseen <= longest) & (self._sure() | (not looked)))

    def _keep(self, which: Bool) -> None:
        if not which.all():
            self.filters.keep(which)
            self.tracks = self.tracks[which]


def _assign(owner: NDArray[np.intp], rows: Bool, columns: Bool, likeness: Array, least: float) -> None:
    """Give detections `rows` that have no owner yet tracks `columns` that own nothing, with the greatest sum of
    likeness [N, M]; pairs with less than `least` are none."""
    free = columns.copy()
    free[owner[owner >= 0]] = False
    index, left = np.flatnonzero(rows & (owner < 0)), np.flatnonzero(free)
    if len(index) and len(left):
        table = likeness[np.ix_(index, left)]
        table[table < least] = 0
        row, column = _pairs(table)
        owner[index[row]] = left[column]


def _pairs(table: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the pairs with the greatest sum in a table [N, M] of numbers >= 0; pairs of 0 are none."""
    likely = table > 0
    if (likely.sum(0) <= 1).all() and (likely.sum(1) <= 1).all():  # as mostly: nobody has a choice
        row, column = np.nonzero(likely)
        return row, column
    column, _ = lap.lapjv(-table, extend_cost=True, return_cost=False)  # -1: more rows than columns
    row = np.flatnonzero(column >= 0)
    row = row[table[row, column[row]] > 0]
    return row, column[row]
