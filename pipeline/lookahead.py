"""A delay line: frames wait a little, so that what is seen later can still be covered earlier."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from engines.boxes import Array, grow_xyxy
from pipeline.follow import follow
from pipeline.types import XYXY, Box, BoxState, TrackedFrame, xyxy

YOUNG = 6  # sightings from which the motion before the first one is judged
SPREAD = 0.04  # by which a box grows with each frame further back
FOLLOWED = 0.015  # the same where its looks were followed
ALIKE = 0.5  # correlation from which two pictures show the same face
BACK, ON = 60, 15  # frames for which looks are followed at most, before the first sighting and after the last one
WEAK_S, WEAK_BACK = 0.2, 3  # the same for tracks that never had a sure score: seconds after, frames before
GRACE = 3  # frames further back that are covered after its looks were lost
REACH, SIGMA = 5, 2.5  # frames around one over which its boxes are smoothed, and the Gaussian's width


@dataclass(frozen=True, slots=True)
class Waiting:
    """A frame that is held back. luma: the displayed picture's luma, uint8 [h, w], small, None when there is none.

    scale: luma pixels for a pixel of the displayed picture. scene: frames of one scene have the same number.
    """

    tracked: TrackedFrame
    luma: Array | None = None
    scale: float = 1.0
    scene: int = 0


@dataclass(slots=True)
class Young:
    """A track's first sightings: frame and box; whether the frames before the first one have their covers."""

    seen: list[tuple[int, Array]]
    scene: int
    followed: bool = False


class Lookahead:
    """Holds the last `lag` frames back.

    When a track is first seen (with a score of `sure`, or for the second time), the frames of its
    scene that still wait get a box for it too: the face is followed back by its looks as far as it
    is there; where it is too small for that it is moved back along its motion (judged anew with each
    of its first sightings), growing. So it is covered before the detector first fired. When a track
    is seen again after it was missing, the boxes that were guessed in between are united with the
    straight line between the two sightings. On the way out each box is united with the smoothed path
    of its track, so that a box that jumps for a frame uncovers nothing.

    sure: a score. guess_s: mere guesses later than this many seconds after a track was last known are
    dropped (None: the tracker decides). A track without a single sure score is guessed on for a few frames only.
    """

    def __init__(self, lag: int, sure: float = 0.5, guess_s: float | None = None) -> None:
        self.lag, self.sure, self.guess_s = lag, sure, guess_s
        self.seen_s: dict[int, float] = {}  # when each track was last known, in frames that left
        self.best: dict[int, float] = {}  # the best score of each track so far
        self.waiting: deque[Waiting] = deque()
        self.gone: deque[tuple[int, tuple[Box, ...]]] = deque(maxlen=REACH)  # frame numbers and boxes, not smoothed
        self.newest = 0  # the largest id so far: ids rise, so a larger one is a birth
        self.scene = 0  # the largest number of a scene that left
        self.young: dict[int, Young] = {}

    def push(
        self, tracked: TrackedFrame, luma: Array | None = None, scale: float = 1.0, scene: int = 0
    ) -> list[TrackedFrame]:
        """Take a frame in; returns the frames whose wait is over, in order (at most one)."""
        self.waiting.append(Waiting(tracked, luma, scale, scene))
        for box in tracked.boxes:
            if box.state is BoxState.OBSERVED:
                self.best[box.id] = max(box.score, self.best.get(box.id, 0.0))
                if box.id > self.newest:
                    self.young[box.id] = Young([], scene)
                else:
                    self._fill_gap(box)
                self._backfill(box, tracked.frame.index)
        self.newest = max([self.newest, *(box.id for box in tracked.boxes)])
        first = self.waiting[0].tracked.frame.index
        self.young = {track: young for track, young in self.young.items() if young.seen[0][0] > first}
        return [self._leave()] if len(self.waiting) > self.lag else []

    def flush(self) -> list[TrackedFrame]:
        """The frames that still wait, at the end."""
        return [self._leave() for _ in range(len(self.waiting))]

    def _leave(self) -> TrackedFrame:
        """The oldest frame, its boxes united with the smoothed path of their tracks."""
        held = self.waiting.popleft()
        self._extend(held)
        tracked = self._without_old_guesses(self._without_last_scene(held))
        here = tracked.frame.index
        coming = [(other.tracked.frame.index, other.tracked.boxes) for other in islice(self.waiting, REACH)]
        paths: dict[int, list[tuple[float, XYXY]]] = {}
        for index, boxes in [(here, tracked.boxes), *self.gone, *coming]:
            weight = math.exp(-(((index - here) / SIGMA) ** 2) / 2)
            for box in boxes:
                paths.setdefault(box.id, []).append((weight, box.xyxy))
        self.gone.append((here, tracked.boxes))
        return replace(tracked, boxes=tuple(_united(box, paths[box.id]) for box in tracked.boxes))

    def _without_last_scene(self, held: Waiting) -> TrackedFrame:
        """The tracker guesses on over a cut for one frame, since it may be a flash. When the next frame says that it
        was none, these guesses go; those that it goes on with (and a cover of everything, id 0) stay."""
        tracked, new = held.tracked, held.scene > self.scene
        self.scene = max(self.scene, held.scene)
        if not new or not self.waiting or self.waiting[0].scene != held.scene:
            return tracked
        stay = {0, *(box.id for box in self.waiting[0].tracked.boxes)}
        return replace(
            tracked, boxes=tuple(b for b in tracked.boxes if b.state is not BoxState.COASTED or b.id in stay)
        )

    def _without_old_guesses(self, tracked: TrackedFrame) -> TrackedFrame:
        now = tracked.frame.time_s
        if now is None:
            return tracked
        known = (box.id for box in tracked.boxes if box.state is not BoxState.COASTED)
        self.seen_s |= {track: max(now, self.seen_s.get(track, now)) for track in known}
        kept = (box for box in tracked.boxes if now - self.seen_s.get(box.id, now) <= self._patience(box.id))
        return replace(tracked, boxes=tuple(kept))

    def _patience(self, track: int) -> float:
        """Seconds for which a track is guessed on. One that was never sure may be no face at all."""
        longest = math.inf if self.guess_s is None else self.guess_s
        return longest if self.best.get(track, 1.0) >= self.sure else min(longest, WEAK_S)

    def _backfill(self, box: Box, index: int) -> None:
        """Cover a young track's place in the frames of its scene before its birth."""
        young = self.young.get(box.id)
        if young is None:
            return
        young.seen.append((index, np.array(box.xyxy)))
        if len(young.seen) == YOUNG:
            del self.young[box.id]
        if young.followed or (box.score < self.sure and len(young.seen) < 2):
            return
        birth = young.seen[0][0]
        weak = self.best[box.id] < self.sure
        before = [at for at, w in enumerate(self.waiting) if w.tracked.frame.index < birth and w.scene == young.scene]
        places = None
        if before and (len(young.seen) <= 2 or not weak):
            before = before[-(WEAK_BACK if weak else BACK) :]
            chain = [self.waiting[at] for at in (before[-1] + 1, *reversed(before))]
            places = trace(chain, young.seen[0][1])
            young.followed = places is not None and not weak
        if places is None:
            before, speed = before[-(WEAK_BACK if weak else ON) :], _speed(young.seen)
            steps = (birth - self.waiting[at].tracked.frame.index for at in reversed(before))
            places = [grow_xyxy(young.seen[0][1] - n * speed, 1 + SPREAD * n) for n in steps]
        for at, place in zip(reversed(before), places, strict=False):
            self._put(at, replace(box, xyxy=xyxy(place), state=BoxState.BACKFILLED))

    def _extend(self, held: Waiting) -> None:
        """Follow the faces of a leaving frame that are not seen again in the frames that wait.

        There the tracker's guesses, made without looking, give way to where the looks are found.
        """
        after = [at for at, w in enumerate(islice(self.waiting, ON)) if w.scene == held.scene]
        for box in held.tracked.boxes:
            guess = self._find(after[0], box.id) if after else None
            if box.state is not BoxState.OBSERVED or guess is None or guess.state is not BoxState.COASTED:
                continue
            places = trace([held, *(self.waiting[at] for at in after)], np.array(box.xyxy), lost=0)
            for at, place in zip(after, places or (), strict=False):
                self._put(at, replace(guess, xyxy=xyxy(place)))
                self.seen_s[box.id] = self.waiting[at].tracked.frame.time_s or 0.0

    def _fill_gap(self, box: Box) -> None:
        """Cover the line between this sighting and the last one, when that still waits."""
        last = len(self.waiting) - 1
        for start in range(last - 1, -1, -1):
            if self.waiting[start].scene != self.waiting[last].scene:
                continue  # a flash between two sightings; over a cut no track lives on
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
        return next((b for b in self.waiting[at].tracked.boxes if b.id == track), None)

    def _put(self, at: int, box: Box) -> None:
        """Put a box into a waiting frame, in the place of an earlier guess of the same track."""
        held = self.waiting[at]
        rest = (b for b in held.tracked.boxes if b.id != box.id)
        self.waiting[at] = replace(held, tracked=replace(held.tracked, boxes=(*rest, box)))


def trace(chain: list[Waiting], box: Array, lost: int = GRACE) -> list[Array] | None:
    """Where the face `box` (xyxy, displayed pixels) of the first frame of a chain is in the others, one after the
    other, growing a little with each step: as far as its looks are found, and `lost` steps further.

    None when it has no looks to go by: no luma, or it is too small.
    """
    last = chain[0]
    place, speed, missed = box * last.scale, np.zeros(4), 0
    places = []
    for step, now in enumerate(chain[1:], 1):
        if last.luma is None or now.luma is None or now.luma.shape != last.luma.shape:
            return None
        match = follow(last.luma, place, now.luma) if not missed else None
        if match is None and step == 1:
            return None
        if match is not None and match.score >= ALIKE:
            speed = 0.5 * speed + 0.5 * (match.xyxy - place)
            place = match.xyxy
        else:
            missed += 1
            place = place + speed
            if missed > lost:
                break
        places.append(grow_xyxy(place / now.scale, 1 + FOLLOWED * step + SPREAD * missed))
        last = now
    return places


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
