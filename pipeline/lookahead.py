"""A delay line: frames wait a little, so that what is seen later can still be covered earlier."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from pipeline.types import Box, BoxState, TrackedFrame, xyxy


class Lookahead:
    """Holds the last `lag` frames back.

    When a track is first seen, the frames that still wait get its first box, moved back along its
    motion as far as that is known and growing: the face is covered before the detector first fired.
    When a track is seen again after it was missing, the boxes that were guessed in between are
    replaced by the straight line between the two sightings, united with the guess.
    """

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self.waiting: deque[TrackedFrame] = deque()
        self.newest = 0  # the largest id so far: ids rise, so a larger one is a birth

    def push(self, tracked: TrackedFrame) -> list[TrackedFrame]:
        """Take a frame in; returns the frames whose wait is over, in order (at most one)."""
        self.waiting.append(tracked)
        for box in tracked.boxes:
            if box.state is BoxState.OBSERVED:
                if box.id > self.newest:
                    self._backfill(box)
                else:
                    self._fill_gap(box)
        self.newest = max([self.newest, *(box.id for box in tracked.boxes)])
        return [self.waiting.popleft()] if len(self.waiting) > self.lag else []

    def flush(self) -> list[TrackedFrame]:
        """The frames that still wait, at the end."""
        rest = list(self.waiting)
        self.waiting.clear()
        return rest

    def _backfill(self, box: Box) -> None:
        """Cover the place of a face's first sighting in the frames before it, more widely the earlier."""
        for back in range(2, len(self.waiting) + 1):
            grow = 1 + 0.04 * (back - 1)
            self._add(len(self.waiting) - back, replace(box, xyxy=_grown(box.xyxy, grow), state=BoxState.BACKFILLED))

    def _fill_gap(self, box: Box) -> None:
        """Replace the boxes guessed since the last sighting, when that still waits, by interpolation."""
        last = len(self.waiting) - 1
        for start in range(last - 1, -1, -1):
            old = next((b for b in self.waiting[start].boxes if b.id == box.id), None)
            if old is not None and old.state is BoxState.OBSERVED:
                break
        else:
            return
        for at in range(start + 1, last):
            share = (at - start) / (last - start)
            line = (1 - share) * np.array(old.xyxy) + share * np.array(box.xyxy)
            self._add(at, replace(box, xyxy=xyxy(line), state=BoxState.BACKFILLED))

    def _add(self, at: int, box: Box) -> None:
        """Put a box into a waiting frame; a guess that is there already makes it larger, never smaller."""
        tracked = self.waiting[at]
        guess = next((b for b in tracked.boxes if b.id == box.id), None)
        if guess is not None:
            a, b = np.array(guess.xyxy), np.array(box.xyxy)
            both = np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])])
            box = replace(box, xyxy=xyxy(both))
        self.waiting[at] = replace(tracked, boxes=(*(b for b in tracked.boxes if b.id != box.id), box))


def _grown(xyxy: tuple[float, float, float, float], scale: float) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = xyxy
    dx, dy = (x1 - x0) / 2 * (scale - 1), (y1 - y0) / 2 * (scale - 1)
    return x0 - dx, y0 - dy, x1 + dx, y1 + dy
