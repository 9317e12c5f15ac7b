"""How long segments are segments: those beyond an age or a total size go, the oldest first, whole.

What may go is told by its name alone, so it does not matter which run made it. Nothing else is ever touched.
"""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PERIOD_S = 10.0  # between two looks at the folder while a segment is written
FRESH_S = 600.0  # an unfinished file that was written to since then may be another run's


@dataclass(frozen=True, slots=True)
class Limits:
    """age_s: since a segment's end. octets: of all segments of one output together. 0 for none."""

    age_s: float = 0.0
    octets: int = 0

    def __bool__(self) -> bool:
        return bool(self.age_s or self.octets)


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment: when it was last written to (Unix seconds), and bytes."""

    ended_s: float
    path: Path
    octets: int


class SegmentCleaner:
    """Removes old segments of one output, see sink.segment_path() for their names."""

    def __init__(self, path: Path, limits: Limits, on_event: Callable[[str], None] = lambda message: None) -> None:
        """path: the output as it was asked for, without a segment's time."""
        self._folder, self.limits, self.on_event = path.absolute().parent, limits, on_event
        name = rf"{re.escape(path.stem)}-(\d{{8}}-\d{{6}})(?:-\d+)?{re.escape(path.suffix)}"
        self._whole = re.compile(name)
        self._unfinished = re.compile(rf"\.{name}\.facestream-[0-9a-f]{{8}}\.part")
        self._next_s = 0.0
        self._failed = False

    def sweep(self, writing: Path | None, now: bool = False) -> None:
        """Remove what is too much. writing: the unfinished file of now, which counts and stays. Without `now`, looks
        into the folder every PERIOD_S only."""
        if not self.limits or (not now and time.monotonic() < self._next_s):
            return
        self._next_s = time.monotonic() + PERIOD_S
        segments = sorted(self._segments(writing), key=lambda segment: (segment.ended_s, segment.path.name))
        total = sum(segment.octets for segment in segments) + _size(writing)
        for segment in segments:
            old = self.limits.age_s and time.time() - segment.ended_s > self.limits.age_s
            if not old and not (self.limits.octets and total > self.limits.octets):
                return
            try:
                segment.path.unlink(missing_ok=True)
                total -= segment.octets
            except OSError as error:
                if not self._failed:
                    self._failed = True
                    self.on_event(f"old segments cannot be removed: {segment.path.name} ({error.strerror})")

    def _segments(self, writing: Path | None) -> Iterator[Segment]:
        try:
            files = list(self._folder.iterdir())
        except OSError:
            return
        for path in files:
            whole, unfinished = self._whole.fullmatch(path.name), self._unfinished.fullmatch(path.name)
            named = whole or unfinished
            if named is None or path == writing or not _is_time(named[1]):
                continue
            try:
                known = path.lstat()
            except OSError:
                continue
            fresh = unfinished and time.time() - known.st_mtime < FRESH_S
            if stat.S_ISREG(known.st_mode) and not fresh:
                yield Segment(known.st_mtime, path, known.st_size)


def _size(path: Path | None) -> int:
    try:
        return 0 if path is None else path.stat().st_size
    except OSError:
        return 0


def _is_time(text: str) -> bool:
    try:
        time.strptime(text, "%Y%m%d-%H%M%S")
    except ValueError:
        return False
    return True
