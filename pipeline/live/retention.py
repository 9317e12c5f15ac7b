"""Retention of recorded segments: deletes those beyond an age or a total size, oldest first.

Segments are recognised by their names alone, so it does not matter which run wrote them. Other files are never touched.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PERIOD_S = 10.0  # seconds between two scans of the folder while a segment is written
FIRST_S = 1_735_689_600.0  # 2025: an earlier time is of a machine whose clock had not been set; its age is unknown
FRESH_S = 600.0  # an unfinished file that was modified within this time may belong to another run


@dataclass(frozen=True, slots=True)
class Limits:
    """age_s: maximum seconds since a segment's end. octets: maximum total size of an output's segments, bytes. 0: no
    limit."""

    age_s: float = 0.0
    octets: int = 0

    def __bool__(self) -> bool:
        return bool(self.age_s or self.octets)


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment: time of its last modification (Unix seconds), and size in bytes."""

    ended_s: float
    path: Path
    octets: int


class SegmentCleaner:
    """Deletes old segments of one output; sink.segment_path() names them."""

    def __init__(self, path: Path, limits: Limits, on_event: Callable[[str], None] = lambda message: None) -> None:
        """path: the output as the user named it, without a segment's time."""
        self._folder = path.absolute().parent
        self._begin = f"{path.stem}-"
        self.limits = limits
        self.on_event = on_event
        name = rf"{re.escape(path.stem)}-(\d{{8}}-\d{{6}})(?:-\d+)?"
        self._whole = re.compile(name + re.escape(path.suffix))
        self._unfinished = re.compile(rf"{name}\.unfinished(?:-\d+)?{re.escape(path.suffix)}")
        self._next_s = 0.0
        self._failed = False

    def sweep(self, writing: Path | None, now: bool = False) -> None:
        """Delete segments beyond the limits. writing: the current unfinished file, which counts and is kept. Unless
        `now`, scans the folder only every PERIOD_S."""
        if not self.limits or (not now and time.monotonic() < self._next_s):
            return
        self._next_s = time.monotonic() + PERIOD_S
        segments = sorted(self._segments(writing), key=lambda segment: (segment.ended_s, segment.path.name))
        total = sum(segment.octets for segment in segments) + _size(writing)
        for segment in segments:
            age_s = time.time() - segment.ended_s if segment.ended_s >= FIRST_S else 0.0
            old = self.limits.age_s and age_s > self.limits.age_s
            if not old and not (self.limits.octets and total > self.limits.octets):
                continue
            try:
                segment.path.unlink(missing_ok=True)
                total -= segment.octets
            except OSError as error:
                if not self._failed:
                    self._failed = True
                    self.on_event(f"old segments cannot be removed: {segment.path.name} ({error.strerror})")

    def _segments(self, writing: Path | None) -> Iterator[Segment]:
        # After weeks the folder holds tens of thousands of files, of other cameras most of them.
        try:
            with os.scandir(self._folder) as entries:
                files = [entry.name for entry in entries if entry.name.startswith(self._begin)]
        except OSError:
            return
        for path in map(self._folder.joinpath, files):
            whole = self._whole.fullmatch(path.name)
            unfinished = self._unfinished.fullmatch(path.name)
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
