"""A delay line: frames wait a little, so that what is seen later can still be covered earlier."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from facestream.engines.boxes import Array, grow_xyxy, iou_xyxy, union_xyxy
from facestream.pipeline.stages.smooth import Sizes, TrackStatistics, sightings_of, smooth_box, statistics_of
from facestream.pipeline.stages.track_through import SPREAD, BufferedFrame, between, is_cut, track_through, warp_box
from facestream.pipeline.types import Box, BoxState, Frame, TrackedFrame, xyxy

YOUNG = 6  # sightings from which the motion before the first one is judged
BACK, ON = 60, 15  # frames for which looks are followed at most, before the first sighting and after the last one
# The same for tracks that never had a sure score: seconds after, frames before (as far as looks at all are apart).
WEAK_S, WEAK_BACK = 0.12, 8
WEAK_EDGE = 15  # frames before, where the picture's edge cuts it: little is covered in vain there
ONCE = 0.28  # score from which the frames before a first sighting are covered although no second one has come yet
KNOWN = 4096  # tracks about which something is remembered
USUAL = 15  # frames around one over which a track's usual size is found
NEAR, NEAR_SPREAD = 4, 0.05  # frames to the next sighting up to which a line between both is enough, grown by so much
TOUCH = 0.1  # IoU from which two places of a track are covered in one
REACH, SIGMA = 5, 2.5  # frames around one over which its boxes are smoothed, and the Gaussian's width


@dataclass(slots=True)
class TrackOnset:
    """A track's first sightings: frame and box; whether the frames before the first one have their covers."""

    seen: list[tuple[int, Array]]
    scene: int
    followed: bool = False


class Lookahead:
    """Holds the last `lag` frames back.

    When a track is first seen (with a score of ONCE, or for the second time), the frames of its scene that still wait
    get a box for it too: the face is followed back by its looks as far as it is there; where it is too small for that
    it is moved back along its motion (judged anew with each of its first sightings), growing. So it is covered before
    the detector first fired. A track without a sure score gets few such frames, but for those in which the picture's
    edge cuts it. When a track is seen again after it was missing, the boxes that were guessed in between are united
    with the straight line between the two sightings; in a short gap (frames that are not looked at) that line is
    enough. Where the last sighting waits no more, it is followed back as a new one is, and what was guessed stays too.
    On the way out each box is united with the smoothed path of its track, so that a box that jumps for a frame uncovers
    nothing, and enlarged to the track's usual size, so that neither does one that shrinks (a face half hidden, blurred,
    cut by the edge). Boxes with a doubtful score, or of a track whose scores mostly are, are grown, because they are
    placed worse: measured, a cover that takes 1.25 times the box of a score over 0.65 takes 1.7 to 2.3 times one under
    0.5.

    sure: a score. max_coast_s: mere guesses later than this many seconds after a track was last known are
    dropped (None: the tracker decides). A track without a single sure score is guessed on for a few frames only.

    longest_s: where it is set, frames that waited longer leave before `lag` others came: live, a busy machine drops
    frames, and those that remain must not wait the longer for it. But no frame leaves so before a look at it or at a
    later one (`known` is the newest frame of a look): what that shows, or that it failed, may be about this frame too.
    """

    def __init__(self, lag: int, sure: float = 0.5, max_coast_s: float | None = None) -> None:
        self.lag, self.sure, self.max_coast_s = lag, sure, max_coast_s
        self.longest_s: float | None = None
        self.known = -1
        self.seen_s: dict[int, float] = {}  # when each track was last known, in frames that left
        self.best: dict[int, float] = {}  # the best score of each track so far, the track seen last at the end
        self.waiting: deque[BufferedFrame] = deque()
        # Frame numbers, boxes, not smoothed, and sizes.
        self.emitted: deque[tuple[int, list[Box], Sizes]] = deque(maxlen=USUAL)
        self.newest = 0  # the largest id so far: ids rise, so a larger one is a birth
        self.scene = 0  # the largest number of a scene that left
        self.young: dict[int, TrackOnset] = {}

    def push(
        self,
        tracked: TrackedFrame,
        luma: Array | None = None,
        scale: float = 1.0,
        scene: int = 0,
        affine: Array | None = None,
    ) -> list[TrackedFrame]:
        """Take a frame in; returns the frames whose wait is over, in order (at most one, where longest_s is
        not set)."""
        boxes = {box.id: box for box in tracked.boxes}
        self.waiting.append(
            BufferedFrame(tracked.frame, boxes, luma, scale, scene, affine, sightings_of(tracked.boxes))
        )
        for box in tracked.boxes:
            if box.state is BoxState.OBSERVED:
                self.best[box.id] = max(box.score, self.best.pop(box.id, 0.0))
                if box.id > self.newest or not self._fill_gap(box):
                    self.young.setdefault(box.id, TrackOnset([], scene))
                self._backfill(box, tracked.frame.index)
        while len(self.best) > KNOWN:
            oldest = next(iter(self.best))
            self.best.pop(oldest)
            self.seen_s.pop(oldest, None)
        self.newest = max([self.newest, *(box.id for box in tracked.boxes)])
        first, left = self.waiting[0].frame.index, []
        while len(self.waiting) > self.lag or self._too_long(tracked):
            first = self.waiting[0].frame.index
            left.append(self._leave())
        self.young = {track: young for track, young in self.young.items() if young.seen[0][0] > first}
        return left

    def _too_long(self, newest: TrackedFrame) -> bool:
        """Whether the oldest frame has waited for too long."""
        if self.longest_s is None or len(self.waiting) < 2:
            return False
        oldest = self.waiting[0].frame
        if oldest.time_s is None or newest.frame.time_s is None or oldest.index > self.known:
            return False
        return newest.frame.time_s - oldest.time_s > self.longest_s

    def flush(self) -> list[TrackedFrame]:
        """The frames that still wait, at the end."""
        return [self._leave() for _ in range(len(self.waiting))]

    def _leave(self) -> TrackedFrame:
        """The oldest frame, its boxes united with the smoothed path of their tracks."""
        held = self.waiting.popleft()
        self._extend(held)
        mine = self._without_old_guesses(held.frame, self._without_last_scene(held))
        here, sizes = held.frame.index, sightings_of(mine)
        coming = [(other.frame.index, other.boxes.values()) for other in islice(self.waiting, REACH)]
        before = ((index, boxes) for index, boxes, _ in islice(self.emitted, max(0, len(self.emitted) - REACH), None))
        paths = {box.id: [0.0, 0.0, 0.0, 0.0, 0.0] for box in mine}  # sums: weights, weighted corners
        usual = self._usual(mine, sizes)
        for index, boxes in [(here, mine), *before, *coming]:
            weight = math.exp(-(((index - here) / SIGMA) ** 2) / 2)
            for box in boxes:
                if (path := paths.get(box.id)) is not None:
                    left, top, right, bottom = box.xyxy
                    path[0] += weight
                    path[1] += weight * left
                    path[2] += weight * top
                    path[3] += weight * right
                    path[4] += weight * bottom
        self.emitted.append((here, mine, sizes))
        leaving = tuple(smooth_box(box, paths[box.id], usual.get(box.id), self._was_sure(box.id)) for box in mine)
        return TrackedFrame(held.frame, leaving)

    def _without_last_scene(self, held: BufferedFrame) -> list[Box]:
        """The tracker guesses on over a cut for one frame, since it may be a flash. When the next frame says that it
        was none, these guesses go; those that it goes on with (and a cover of everything, id 0) stay."""
        boxes, new = list(held.boxes.values()), held.scene > self.scene
        self.scene = max(self.scene, held.scene)
        if not new or not self.waiting or self.waiting[0].scene != held.scene:
            return boxes
        stay = self.waiting[0].boxes
        return [b for b in boxes if b.state is not BoxState.COASTED or not b.id or b.id in stay]

    def _without_old_guesses(self, frame: Frame, boxes: list[Box]) -> list[Box]:
        now = frame.time_s
        if now is None:
            return boxes
        known = (box.id for box in boxes if box.state is not BoxState.COASTED)
        self.seen_s |= {track: max(now, self.seen_s.get(track, now)) for track in known}
        return [box for box in boxes if now - self.seen_s.get(box.id, now) <= self._patience(box.id)]

    def _usual(self, boxes: list[Box], mine: Sizes) -> dict[int, TrackStatistics]:
        """What is usual for each track of a leaving frame, from its sightings around it."""
        around = [mine, *(sizes for _, _, sizes in self.emitted), *(held.sizes for held in islice(self.waiting, USUAL))]
        found = {}
        for box in boxes:
            if seen := [sizes[box.id] for sizes in around if box.id in sizes]:
                found[box.id] = statistics_of(seen)
        return found

    def _patience(self, track: int) -> float:
        """Seconds for which a track is guessed on. One that was never sure may be no face at all."""
        longest = math.inf if self.max_coast_s is None else self.max_coast_s
        return longest if self._was_sure(track) else min(longest, WEAK_S)

    def _was_sure(self, track: int) -> bool:
        """Whether a track had a sure score; one of which nothing is known counts as such."""
        return self.best.get(track, 1.0) >= self.sure

    def _backfill(self, box: Box, index: int) -> None:
        """Cover a young track's place in the frames of its scene before its birth."""
        young = self.young.get(box.id)
        if young is None:
            return
        young.seen.append((index, np.array(box.xyxy)))
        if len(young.seen) >= YOUNG:
            del self.young[box.id]
        birth, first = young.seen[0]
        if young.followed or (box.score < ONCE and len(young.seen) < 2):
            return
        weak = not self._was_sure(box.id)
        inside = WEAK_BACK if weak and not is_cut(first, self.waiting[-1].frame.size) else len(self.waiting)
        before = [at for at, w in enumerate(self.waiting) if w.frame.index < birth and w.scene == young.scene]
        places = None
        if before and (len(young.seen) <= 2 or not weak):
            before = before[-(WEAK_EDGE if weak else BACK) :]
            chain = [self.waiting[at] for at in (before[-1] + 1, *reversed(before))]
            places = track_through(chain, first, inside=inside)
            young.followed = places is not None and not weak
        if places is None:
            before = before[-(WEAK_EDGE if weak else ON) :]
            places = self._carried_back(young, before, inside)
        for at, place in zip(reversed(before), places, strict=False):
            made, guess = replace(box, xyxy=xyxy(place), state=BoxState.BACKFILLED), self._find(at, box.id)
            if guess is not None and guess.state is BoxState.COASTED:
                self._both(at, guess, made)
            else:
                self._put(at, made)

    def _carried_back(self, young: TrackOnset, before: list[int], inside: int) -> list[Array]:
        """A young track's places in the waiting frames `before`, from the last one back: moved with the camera, and
        along its own motion as far as its sightings tell it. inside: as in `track_through`."""
        if not before:
            return []
        first, seen = before[-1] + 1, []  # where its first sighting waits
        place_of = {held.frame.index: at for at, held in enumerate(self.waiting)}  # live, frames are dropped
        for index, box in young.seen:
            for at in range(place_of[index], first, -1):
                box = warp_box(box, between(self.waiting[at], self.waiting[at - 1]))
            seen.append((index, box))
        speed, place, places = _speed(seen), young.seen[0][1], []
        for step, now in enumerate(reversed(before), 1):
            last, place = self.waiting[now + 1], place - speed
            affine = between(last, self.waiting[now])
            if affine is not None:
                place, speed = warp_box(place, affine), np.tile(affine[:, :2] @ speed[:2], 2)
            inside -= not is_cut(place, self.waiting[now].frame.size)
            if inside < 0:
                break
            places.append(grow_xyxy(place, 1 + SPREAD * step))
        return places

    def _extend(self, held: BufferedFrame) -> None:
        """Follow the faces of a leaving frame that are not seen again in the frames that wait.

        There the tracker's guesses, made without looking, give way to where the looks are found.
        """
        after = [at for at, w in enumerate(islice(self.waiting, ON)) if w.scene == held.scene]
        for box in held.boxes.values():
            guess = self._find(after[0], box.id) if after else None
            if box.state is not BoxState.OBSERVED or guess is None or guess.state is not BoxState.COASTED:
                continue
            places = track_through([held, *(self.waiting[at] for at in after)], np.array(box.xyxy), lost=0)
            for at, place in zip(after, places or (), strict=False):
                self._put(at, replace(guess, xyxy=xyxy(place)))
                self.seen_s[box.id] = self.waiting[at].frame.time_s or 0.0

    def _fill_gap(self, box: Box) -> bool:
        """Cover the line between this sighting and the last one, when that still waits; whether it does. A longer line
        may lead from one face to another: there this one is followed back by its looks, too."""
        last = len(self.waiting) - 1
        for start in range(last - 1, -1, -1):
            if self.waiting[start].scene != self.waiting[last].scene:
                continue  # a flash between two sightings; over a cut no track lives on
            old = self._find(start, box.id)
            if old is not None and old.state is BoxState.OBSERVED:
                break
        else:
            return False
        back: dict[int, Array] = {}
        if last - start > NEAR:
            chain = [self.waiting[at] for at in range(last, max(start, last - 1 - ON), -1)]
            places = track_through(chain, np.array(box.xyxy), lost=0) or ()
            back = dict(zip(range(last - 1, start, -1), places, strict=False))
        for at in range(start + 1, last):
            share = (at - start) / (last - start)
            line = (1 - share) * np.array(old.xyxy) + share * np.array(box.xyxy)
            guess = self._find(at, box.id)
            if last - start <= NEAR:
                line = grow_xyxy(line, 1 + NEAR_SPREAD)
            elif guess is not None:  # never smaller than what would have been covered without looking ahead
                line = union_xyxy(line, np.array(guess.xyxy))
            made = replace(box, xyxy=xyxy(line), state=BoxState.BACKFILLED)
            if at in back:
                self._both(at, made, replace(made, xyxy=xyxy(back[at])))
            else:
                self._put(at, made)
        return True

    def _find(self, at: int, track: int) -> Box | None:
        return self.waiting[at].boxes.get(track)

    def _both(self, at: int, one: Box, other: Box) -> None:
        """Cover both places where a track may be in a waiting frame: in one box where they touch, else the other in a
        box of its own, with the track's number and a minus."""
        places = np.array([one.xyxy, other.xyxy])
        if iou_xyxy(places[:1], places[1:])[0, 0] > TOUCH:
            self._put(at, replace(other, xyxy=xyxy(union_xyxy(*places))))
        else:
            self._put(at, one)
            self._put(at, replace(other, id=-other.id))

    def _put(self, at: int, box: Box) -> None:
        """Put a box into a waiting frame, in the place of an earlier guess of the same track."""
        self.waiting[at].boxes.pop(box.id, None)  # it comes to stand behind the others
        self.waiting[at].boxes[box.id] = box


def _speed(seen: list[tuple[int, Array]]) -> Array:
    """Pixels a frame by which a track's corners move, from its first sightings; its size stays."""
    if len(seen) < 3:
        return np.zeros(4)
    frames = np.array([index for index, _ in seen], float)
    centres = np.array([(box[:2] + box[2:]) / 2 for _, box in seen])
    frames -= frames.mean()
    slope: Array = (frames[:, None] * centres).sum(0) / (frames**2).sum()
    return np.tile(slope, 2)
