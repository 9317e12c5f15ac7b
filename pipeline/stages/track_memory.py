"""What look-ahead remembers of tracks longer than frames wait."""

from __future__ import annotations

import math

from facestream.pipeline.stages.delay_line import Key
from facestream.pipeline.stages.settings import DEFAULTS, LookaheadSettings
from facestream.pipeline.types import Box, BoxKind, BoxState, Frame

FORGET_S = 120.0  # twice the longest tracker.remember_s and tracker.coast_s


class TrackMemory:
    """Each track's best score, and when it was last known. confirm_score: of a confirmed face.

    max_coast_s: a track that was last known longer ago is no longer coasted (None: the tracker decides).
    """

    def __init__(
        self, confirm_score: float, max_coast_s: float | None, settings: LookaheadSettings = DEFAULTS.lookahead
    ) -> None:
        self.confirm_score = confirm_score
        self.max_coast_s = max_coast_s
        self.settings = settings
        self.best: dict[int, float] = {}  # best score so far, the track detected last at the end
        self.known_s: dict[Key, float] = {}  # time of the last frame that left with it detected or backfilled
        self._present_s: dict[int, float] = {}  # time of the last frame that came with it, the newest at the end

    def note_detection(self, box: Box) -> None:
        """Note a detection."""
        self.best[box.id] = max(box.score, self.best.pop(box.id, 0.0))

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
        while len(self.best) > self.settings.max_tracks:
            self._forget(next(iter(self.best)))

    def _forget(self, track: int) -> None:
        self.best.pop(track, None)
        self._present_s.pop(track, None)
        for kind in (BoxKind.FACE, BoxKind.ALTERNATE):
            self.known_s.pop((track, kind), None)

    def is_confirmed(self, key: Key) -> bool:
        """Whether a track was confirmed; unknown tracks count as confirmed, and so do boxes that are not faces."""
        track, kind = key
        return kind is not BoxKind.FACE or self.best.get(track, 1.0) >= self.confirm_score

    def without_old_guesses(self, frame: Frame, boxes: list[Box]) -> list[Box]:
        """The boxes of a leaving frame without those that were coasted for too long."""
        now = frame.time_s
        if now is None:
            return boxes
        for box in boxes:
            if box.state is not BoxState.COASTED:
                self.known_s[box.key] = max(now, self.known_s.get(box.key, now))
        return [box for box in boxes if now - self.known_s.get(box.key, now) <= self._patience(box.key)]

    def _patience(self, key: Key) -> float:
        """Seconds for which a track coasts; short if it was never confirmed, since it may be a false alarm."""
        longest = math.inf if self.max_coast_s is None else self.max_coast_s
        return longest if self.is_confirmed(key) else min(longest, self.settings.weak_coast_s)
