"""A delay line: frames wait a little, so that what is seen later can still be covered earlier."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from itertools import islice

import numpy as np

from engines.boxes import Array, grow_xyxy
from pipeline.types import XYXY, Box, BoxState, TrackedFrame, xyxy

YOUNG = 6  # sightings from which the motion before the first one is judged
SPREAD = 0.04  # by which a box grows with each frame further back
REACH, SIGMA = 5, 2.5  # frames around one over which its boxes are smoothed, and the Gaussian's width


class Lookahead:
    """Holds the last `lag` frames back.

    When a track is first seen, the frames that still wait get a box for it too, moved back along its
    motion (judged anew with each of its first sightings) and growing: the face is covered before the
    detector first fired. When a track is seen again after it was missing, the boxes that were guessed
    in between are united with the straight line between the two sightings. On the way out each box is
    united with the smoothed path of its track, so that a box that jumps for a frame uncovers nothing.
    """

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self.waiting: deque[TrackedFrame] = deque()
        self.gone: deque[tuple[int, tuple[Box, ...]]] = deque(maxlen=REACH)  # frame numbers and boxes, not smoothed
        self.newest = 0  # the largest id so far: ids rise, so a larger one is a birth
        self.young: dict[int, list[tuple[int, Array]]] = {}  # id -> frame and box of its first sightings

    def push(self, tracked: TrackedFrame) -> list[TrackedFrame]:
        """Take a frame in; returns the frames whose wait is over, in order (at most one)."""
        self.waiting.append(tracked)
        for box in tracked.boxes:
            if box.state is BoxState.OBSERVED:
                if box.id > self.newest:
                    self.young[box.id] = []
                else:
                    self._fill_gap(box)
                self._backfill(box, tracked.frame.index)
        self.newest = max([self.newest, *(box.id for box in tracked.boxes)])
        first = self.waiting[0].frame.index
        self.young = {track: seen for track, seen in self.young.items() if seen[0][0] > first}
        return [self._leave()] if len(self.waiting) > self.lag else []

    def flush(self) -> list[TrackedFrame]:
        """The frames that still wait, at the end."""
        return [self._leave() for _ in range(len(self.waiting))]

    def _leave(self) -> TrackedFrame:
        """The oldest frame, its boxes united with the smoothed path of their tracks."""
        tracked = self.waiting.popleft()
        here = tracked.frame.index
        coming = [(other.frame.index, other.boxes) for other in islice(self.waiting, REACH)]
        paths: dict[int, list[tuple[float, XYXY]]] = {}
        for index, boxes in [(here, tracked.boxes), *self.gone, *coming]:
            weight = math.exp(-(((index - here) / SIGMA) ** 2) / 2)
            for box in boxes:
                paths.setdefault(box.id, []).append((weight, box.xyxy))
        self.gone.append((here, tracked.boxes))
        return replace(tracked, boxes=tuple(_united(box, paths[box.id]) for box in tracked.boxes))

    def _backfill(self, box: Box, index: int) -> None:
        """Cover a young track's place in the frames before its birth, more widely the earlier."""
        seen = self.young.get(box.id)
        if seen is None:
            return
        seen.append((index, np.array(box.xyxy)))
        birth = seen[0][0]
        if len(seen) == YOUNG:
            del self.young[box.id]
        speed = _speed(seen)
        for at, tracked in enumerate(self.waiting):
            back = birth - tracked.frame.index
            if back <= 0:
                break
            moved = grow_xyxy(seen[0][1] - back * speed, 1 + SPREAD * back)
            self._put(at, replace(box, xyxy=xyxy(moved), state=BoxState.BACKFILLED))

    def _fill_gap(self, box: Box) -> None:
        """Cover the line between this sighting and the last one, when that still waits."""
        last = len(self.waiting) - 1
        for start in range(last - 1, -1, -1):
            old = self._find(start, box.id)
            if old is not None and old.state is BoxState.OBSERVED:
                break
        else:
            return
        for at in range(start + 1, last):
            share = (at - start) / (last - start)
            line = (1 - share) * np.array(old.xyxy) + share * np.array(box.xyxy)
            guess = self._find(at, box.id)
            if guess is not None:  # never smaller than what would have been covered without looking ahead
                line = _union(line, np.array(guess.xyxy))
            self._put(at, replace(box, xyxy=xyxy(line), state=BoxState.BACKFILLED))

    def _find(self, at: int, track: int) -> Box | None:
        return next((b for b in self.waiting[at].boxes if b.id == track), None)

    def _put(self, at: int, box: Box) -> None:
        """Put a box into a waiting frame, in the place of an earlier guess of the same track."""
        tracked = self.waiting[at]
        self.waiting[at] = replace(tracked, boxes=(*(b for b in tracked.boxes if b.id != box.id), box))


def _united(box: Box, path: list[tuple[float, XYXY]]) -> Box:
    """A box grown over the weighted mean of its track's boxes around it."""
    weights = np.array([weight for weight, _ in path])
    mean = weights @ np.array([corners for _, corners in path]) / weights.sum()
    return replace(box, xyxy=xyxy(_union(np.array(box.xyxy), mean)))


def _union(a: Array, b: Array) -> Array:
    """The smallest box around two."""
    return np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])])


def _speed(seen: list[tuple[int, Array]]) -> Array:
    """Pixels a frame by which a track's corners move, from its first sightings; its size stays."""
    if len(seen) < 3:
        return np.zeros(4)
    frames = np.array([index for index, _ in seen], float)
    centres = np.array([(box[:2] + box[2:]) / 2 for _, box in seen])
    frames -= frames.mean()
    slope: Array = (frames[:, None] * centres).sum(0) / (frames**2).sum()
    return np.tile(slope, 2)
