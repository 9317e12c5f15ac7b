"""The tracker: detections in, every face of the frame out, seen or not.

A tracker for counting hides what it is not sure of; this one hides faces, so it is the other way
round: every detection is returned in its own frame, and a face once found stays until it has been
missing for `coast_s`. Association follows ByteTrack (Zhang et al., ECCV 2022): sure detections
choose first, doubtful ones may continue what is left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from engines.boxes import Array, Bool, area_xyxy, grow_xyxy, iou_xyxy
from engines.types import Detections
from pipeline.config import TrackerConfig
from pipeline.types import Box, BoxState, xyxy

# Random walk of position and speed, in face sides a 1/30 s (ByteTrack's values); measurement noise as position.
POSITION_NOISE, SPEED_NOISE = 1 / 20, 1 / 80
TICK_S = 1 / 30
SMALL, LARGE = 24.0, 96.0  # sides in pixels between which the buffer falls from full to none


class Kalman:
    """Constant-velocity filters for N boxes: centre x, centre y, width, height, each on its own.

    With diagonal noise the usual 8-dimensional filter falls apart into four of position and speed,
    so everything is elementwise. value, speed: [N, 4], pixels and pixels/s; pp, ps, ss: the entries
    of each 2x2 covariance, [N, 4].
    """

    def __init__(self) -> None:
        self.value, self.speed, self.pp, self.ps, self.ss = (np.zeros((0, 4)) for _ in range(5))

    def _noise(self) -> tuple[Array, Array]:
        side = np.sqrt(np.maximum(self.value[:, 2] * self.value[:, 3], 4.0))[:, None]
        return (POSITION_NOISE * side) ** 2, (SPEED_NOISE * side / TICK_S) ** 2

    def add(self, cxcywh: Array) -> None:
        self.value = np.concatenate([self.value, cxcywh])
        position, speed = self._noise()
        new = len(self.value) - len(cxcywh)
        self.speed = np.concatenate([self.speed, np.zeros_like(cxcywh)])
        self.pp = np.concatenate([self.pp, np.broadcast_to(4 * position[new:], cxcywh.shape)])
        self.ps = np.concatenate([self.ps, np.zeros_like(cxcywh)])
        self.ss = np.concatenate([self.ss, np.broadcast_to(100 * speed[new:], cxcywh.shape)])

    def keep(self, which: Bool) -> None:
        self.value, self.speed, self.pp, self.ps, self.ss = (
            x[which] for x in (self.value, self.speed, self.pp, self.ps, self.ss)
        )

    def predict(self, seconds: float, missing: Bool) -> None:
        """Move on. Sizes of boxes that were not seen last time stay, so that they neither explode nor vanish."""
        self.speed[missing, 2:] = 0
        position, speed = self._noise()
        ticks = seconds / TICK_S
        self.value = self.value + self.speed * seconds
        self.value[:, 2:] = np.maximum(self.value[:, 2:], 1.0)
        self.pp = self.pp + 2 * seconds * self.ps + seconds**2 * self.ss + position * ticks
        self.ps = self.ps + seconds * self.ss
        self.ss = self.ss + speed * ticks

    def update(self, index: NDArray[np.intp], cxcywh: Array) -> None:
        """Correct the filters `index` with what was seen."""
        position, _ = self._noise()
        total = self.pp[index] + position[index]
        gain_p, gain_s = self.pp[index] / total, self.ps[index] / total
        error = cxcywh - self.value[index]
        self.value[index] += gain_p * error
        self.speed[index] += gain_s * error
        self.ss[index] -= gain_s * self.ps[index]
        self.ps[index] *= 1 - gain_p
        self.pp[index] *= 1 - gain_p

    def xyxy(self) -> Array:
        half = self.value[:, 2:] / 2
        return np.concatenate([self.value[:, :2] - half, self.value[:, :2] + half], 1)


class Tracker:
    """Feed it frame by frame, in order."""

    def __init__(self, config: TrackerConfig) -> None:
        self.config = config
        self.filters = Kalman()
        self.ids = np.zeros(0, np.int64)
        self.seen_s = np.zeros(0)  # when each was last detected
        self.score = np.zeros(0)  # of its last detection
        self.sure = np.zeros(0, bool)  # has it had a high score, or two detections in a row: only then it coasts
        self.next_id = 1
        self.now: float | None = None

    def update(self, detections: Detections | None, time_s: float | None, size: tuple[int, int]) -> tuple[Box, ...]:
        """All faces of the frame at time_s: every detection once, and the tracks that were not seen.

        detections: None when the detector did not look at this frame. time_s: seconds, None if
        unknown (one tick after the last). size: width and height of the picture.
        """
        if time_s is None:
            time_s = 0.0 if self.now is None else self.now + TICK_S
        step = 0.0 if self.now is None else min(max(time_s - self.now, 0.0), 1.0)
        self.filters.predict(step, self.seen_s < (self.now or 0.0))
        self.now = time_s
        boxes: list[Box] = []
        observed = np.zeros(len(self.ids), bool)
        if detections is not None:
            boxes, observed = self._observe(detections)
        boxes += self._coast(observed)
        self._forget(size, looked=detections is not None)
        return tuple(boxes)

    def _observe(self, found: Detections) -> tuple[list[Box], Bool]:
        """Give each detection a track, old or new."""
        corners = found.xyxy.astype(np.float64)
        sides = np.maximum(corners[:, 2:] - corners[:, :2], 1.0)
        cxcywh = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, sides], 1)
        owner = self._associate(corners, found.scores)
        old = owner >= 0
        index = owner[old]
        self.filters.update(index, cxcywh[old])
        self.sure[index] = True
        fresh = np.flatnonzero(~old)
        owner[fresh] = len(self.ids) + np.arange(len(fresh))
        self.filters.add(cxcywh[fresh])
        self.ids = np.concatenate([self.ids, self.next_id + np.arange(len(fresh))])
        self.next_id += len(fresh)
        self.sure = np.concatenate([self.sure, found.scores[fresh] >= self.config.high])
        pad = np.zeros(len(fresh))
        self.seen_s, self.score = np.concatenate([self.seen_s, pad]), np.concatenate([self.score, pad])
        self.seen_s[owner], self.score[owner] = self.now or 0.0, found.scores
        observed = np.zeros(len(self.ids), bool)
        observed[owner] = True
        boxes = [
            Box(int(self.ids[o]), xyxy(box), float(s), BoxState.OBSERVED)
            for o, box, s in zip(owner, found.xyxy, found.scores, strict=True)
        ]
        return boxes, observed

    def _associate(self, boxes: Array, scores: Array) -> NDArray[np.intp]:
        """The track of each detection, -1 for none. High scores choose before low ones."""
        owner = np.full(len(boxes), -1, np.intp)
        tracks = self.filters.xyxy()
        if not len(tracks) or not len(boxes):
            return owner
        iou = iou_xyxy(self._buffered(boxes), self._buffered(tracks))
        free = np.ones(len(tracks), bool)
        high = scores >= self.config.high
        for group in (np.flatnonzero(high), np.flatnonzero(~high)):
            left = np.flatnonzero(free)
            rows, columns = linear_sum_assignment(-iou[np.ix_(group, left)])
            good = iou[group[rows], left[columns]] >= self.config.match_iou
            owner[group[rows[good]]] = left[columns[good]]
            free[left[columns[good]]] = False
        return owner

    def _buffered(self, boxes: Array) -> Array:
        """Boxes grown for comparison, small ones more."""
        side = np.sqrt(np.maximum(area_xyxy(boxes), 1.0))
        share = np.clip((LARGE - side) / (LARGE - SMALL), 0, 1) * self.config.buffer
        return grow_xyxy(boxes, 1 + 2 * share)

    def _coast(self, observed: Bool) -> list[Box]:
        """Tracks without a detection, where they should be, grown with their uncertainty (at most by half)."""
        index = np.flatnonzero(~observed & self.sure)
        if not len(index):
            return []
        spread = np.sqrt(self.filters.pp[index, :2].max(1)) / np.maximum(self.filters.value[index, 2:].max(1), 1.0)
        grown = grow_xyxy(self.filters.xyxy()[index], 1 + np.clip(spread, 0, 0.5))
        return [
            Box(int(self.ids[i]), xyxy(box), float(self.score[i]), BoxState.COASTED)
            for i, box in zip(index, grown, strict=True)
        ]

    def _forget(self, size: tuple[int, int], looked: bool) -> None:
        """Drop tracks that were missing too long, were never sure and are gone, or have left the picture."""
        centre = self.filters.value[:, :2]
        inside = ((centre >= 0) & (centre <= np.array(size))).all(1)
        unseen = (self.now or 0.0) - self.seen_s
        keep = (unseen <= self.config.coast_s) & (inside | (unseen == 0)) & (self.sure | (unseen == 0) | (not looked))
        self.filters.keep(keep)
        self.ids, self.seen_s, self.score, self.sure = (x[keep] for x in (self.ids, self.seen_s, self.score, self.sure))
