"""What look-ahead remembers of tracks longer than frames wait."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from facestream.pipeline.stages.delay_line import Key
from facestream.pipeline.stages.settings import DEFAULTS, LookaheadSettings
from facestream.pipeline.types import Box, BoxKind, BoxState, Frame

FORGET_S = 120.0  # twice the longest tracker.remember_s and tracker.coast_s
SMALLEST = 1e-6  # the least that a detection leaves of the chance that its track is no face


@dataclass(slots=True)
class Evidence:
    """A track's detections that may still confirm it: number of the frame, and the logarithm of the chance that it is
    no face, 1 - score. confirmed: they have."""

    recent: deque[tuple[int, float]] = field(default_factory=deque)
    confirmed: bool = False


class TrackMemory:
    """Which tracks are confirmed, and when each was last known.

    A track is confirmed once its detections within `confirm_frames` frames are a face with confirm_probability, each
    taken for evidence of its own: 1 - (1 - score1) (1 - score2) ... It stays confirmed.
    max_coast_s: a track that was last known longer ago is no longer coasted (None: the tracker decides).
    """

    def __init__(
        self,
        confirm_probability: float,
        max_coast_s: float | None,
        settings: LookaheadSettings = DEFAULTS.lookahead,
    ) -> None:
        self.confirm_probability = confirm_probability
        self.max_coast_s = max_coast_s
        self.settings = settings
        self.evidence: dict[int, Evidence] = {}  # the track detected last at the end
        self.known_s: dict[Key, float] = {}  # time of the last frame that left with it detected or backfilled
        self._present_s: dict[int, float] = {}  # time of the last frame that came with it, the newest at the end

    def note_detection(self, box: Box, index: int) -> None:
        """Note a detection in the frame of this number."""
        evidence = self.evidence.pop(box.id, None) or Evidence()
        self.evidence[box.id] = evidence
        if evidence.confirmed:
            return
        evidence.recent.append((index, math.log(max(1 - box.score, SMALLEST))))
        while evidence.recent[0][0] <= index - self.settings.confirm_frames:
            evidence.recent.popleft()
        if sum(chance for _, chance in evidence.recent) <= math.log(1 - self.confirm_probability):
            evidence.confirmed = True
            evidence.recent.clear()

    def note_presence(self, track: int, time_s: float | None) -> None:
        """Note that a frame of this time came with a box of the track."""
        if time_s is not None:
            self._present_s.pop(track, None)
            self._present_s[track] = time_s

    def prune(self, oldest_s: float | None = None) -> None:
        """Forget tracks that were gone for longer than any tracker remembers them when the oldest waiting frame came,
        at oldest_s; and if there are too many, those that were detected longest ago."""
        if oldest_s is not None:
            while self._present_s and oldest_s - self._present_s[first := next(iter(self._present_s))] > FORGET_S:
                self._forget(first)
        while len(self.evidence) > self.settings.max_tracks:
            self._forget(next(iter(self.evidence)))

    def _forget(self, track: int) -> None:
        self.evidence.pop(track, None)
        self._present_s.pop(track, None)
        for kind in (BoxKind.FACE, BoxKind.ALTERNATE):
            self.known_s.pop((track, kind), None)

    def is_confirmed(self, key: Key) -> bool:
        """Whether a track was confirmed; unknown tracks count as confirmed, and so do covers of the whole frame."""
        track, kind = key
        if kind is BoxKind.WHOLE_FRAME:
            return True
        evidence = self.evidence.get(track)
        return evidence is None or evidence.confirmed

    def leaving(self, frame: Frame, boxes: list[Box]) -> list[Box]:
        """The boxes of a leaving frame without those that were inferred, not detected, of tracks that are not
        confirmed, and without those that were coasted for too long."""
        boxes = [box for box in boxes if box.state is BoxState.OBSERVED or self.is_confirmed(box.key)]
        now = frame.time_s
        if now is None or self.max_coast_s is None:
            return boxes
        for box in boxes:
            if box.state is not BoxState.COASTED:
                self.known_s[box.key] = max(now, self.known_s.get(box.key, now))
        return [box for box in boxes if now - self.known_s.get(box.key, now) <= self.max_coast_s]
