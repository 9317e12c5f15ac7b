"""Backfill: covers in the waiting frames before a track's first detection."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from facestream.engines.boxes import Array, grow_xyxy
from facestream.pipeline.stages.delay_line import DelayLine
from facestream.pipeline.stages.settings import DEFAULTS, Heuristics
from facestream.pipeline.stages.track_through import motion_between, track_through, warp_box
from facestream.pipeline.types import Box, BoxState, xyxy


@dataclass(slots=True)
class TrackOnset:
    """A track's first detections: frame and box; matched: the frames before the first one have their final covers."""

    seen: list[tuple[int, Array]]
    scene: int
    matched: bool = False


class Backfill:
    """Covers faces before their first detection. When a track is first detected, the waiting frames of its scene get a
    box for it too: the face is tracked backwards by template matching; if it is too small, its motion is extrapolated,
    with growing boxes (re-estimated with each of its first detections). Where the track is not confirmed by the time
    such a frame leaves, its box stays behind (see `TrackMemory`).
    """

    def __init__(self, line: DelayLine, heuristics: Heuristics = DEFAULTS) -> None:
        self.line = line
        self.heuristics = heuristics
        self.settings = heuristics.backfill
        self.onsets: dict[int, TrackOnset] = {}

    def begin(self, track: int, scene: int) -> None:
        """A track is new, or treated as new because the frame of its last detection has left."""
        self.onsets.setdefault(track, TrackOnset([], scene))

    def forget(self, first: int) -> None:
        """Frames up to this number have left: forget onsets without waiting frames before them."""
        self.onsets = {track: onset for track, onset in self.onsets.items() if onset.seen[0][0] > first}

    def cover(self, box: Box, index: int) -> None:
        """Cover a new track in the frames of its scene before its first detection."""
        onset = self.onsets.get(box.id)
        if onset is None:
            return
        settings = self.settings
        onset.seen.append((index, np.array(box.xyxy)))
        if len(onset.seen) >= settings.onset_detections:
            del self.onsets[box.id]
        start, first = onset.seen[0]
        if onset.matched:
            return
        frames = self.line.frames
        before = [at for at, w in enumerate(frames) if w.frame.index < start and w.scene == onset.scene]
        places = None
        if before and len(onset.seen) == 1:
            before = before[-settings.max_frames :]
            chain = [frames[at] for at in (before[-1] + 1, *reversed(before))]
            places = track_through(chain, first, heuristics=self.heuristics)
            onset.matched = places is not None
        if places is None:
            before = before[-settings.max_extrapolated :]
            places = self._extrapolate(onset, before)
        for at, place in zip(reversed(before), places, strict=False):
            made = replace(box, xyxy=xyxy(place), state=BoxState.BACKFILLED)
            guess = self.line.face(at, box.id)
            if guess is not None and guess.state is BoxState.COASTED:
                self.line.put_both(at, guess, made, self.heuristics.fill_gaps.merge_iou)
            else:
                self.line.put(at, made)

    def _extrapolate(self, onset: TrackOnset, before: list[int]) -> list[Array]:
        """A new track's extrapolated boxes in the waiting frames `before`, from the last one backwards: moved with the
        camera, and by its own motion as far as its detections show it."""
        if not before:
            return []
        frames = self.line.frames
        first = before[-1] + 1  # where its first detection waits
        seen = []
        place_of = {waiting.frame.index: at for at, waiting in enumerate(frames)}  # live, frames are dropped
        for index, box in onset.seen:
            for at in range(place_of[index], first, -1):
                box = warp_box(box, motion_between(frames[at], frames[at - 1]))
            seen.append((index, box))
        speed = _speed(seen)
        place = onset.seen[0][1]
        places = []
        for step, now in enumerate(reversed(before), 1):
            last = frames[now + 1]
            place = place - speed
            affine = motion_between(last, frames[now])
            if affine is not None:
                place = warp_box(place, affine)
                speed = np.tile(affine[:, :2] @ speed[:2], 2)
            places.append(grow_xyxy(place, 1 + self.heuristics.track_through.lost_growth * step))
        return places


def _speed(seen: list[tuple[int, Array]]) -> Array:
    """Motion of a track's corners in pixels per frame, from its first detections; its size stays constant."""
    if len(seen) < 3:
        return np.zeros(4)
    frames = np.array([index for index, _ in seen], float)
    centres = np.array([(box[:2] + box[2:]) / 2 for _, box in seen])
    frames -= frames.mean()
    slope: Array = (frames[:, None] * centres).sum(0) / (frames**2).sum()
    return np.tile(slope, 2)
