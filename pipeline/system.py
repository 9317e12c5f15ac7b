"""What differs between Linux, macOS and Windows."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

PICTURE_OCTETS = 64 << 10  # a block of this size has pages of its own; smaller ones are packed
_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_M_ARENA_MAX = -8
_FAR = 1 << 30  # Windows locks bytes, also against writing: one that no file of ours has


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gb() -> float:
    """The machine's memory, in GiB."""
    import psutil

    return float(psutil.virtual_memory().total) / 2**30


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    if sys.platform == "win32":
        import psutil

        memory = psutil.Process().memory_info()
        return float(getattr(memory, "peak_wset", memory.rss)) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, Linux KiB


def give_memory_back() -> None:
    """Make glibc return the memory of pictures to the system as soon as they are freed, here and in FFmpeg; and share
    its heaps between threads.

    By itself it moves the bound above which blocks get pages of their own up to the largest block ever freed. Pictures
    then lie in heaps, between small blocks that stay: with every encoder that is opened, as for each segment of a
    recording, the heaps grow. And it has eight heaps a core, each of which grows to the most that it ever held: with
    every camera that comes and goes its threads fill others. No effect with other C libraries.
    """
    if sys.platform != "linux":
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, PICTURE_OCTETS)
        mallopt(_M_ARENA_MAX, max(2, cores()))


def trim_memory() -> None:
    """Give back what lies free between blocks of glibc's heaps: by itself it gives back their ends alone. Takes some
    milliseconds at most. No effect with other C libraries."""
    if sys.platform != "linux":
        return
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def state_folder() -> Path:
    """Where the program keeps what it must remember for this user: `facestream` in $XDG_STATE_HOME, else in
    ~/.local/state (Linux), ~/Library/Application Support (macOS) or %LOCALAPPDATA% (Windows)."""
    if sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / "Library" / "Application Support"
    else:
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "facestream"


def lock(file: IO[Any]) -> bool:
    """Hold an open file until it is closed, or this process ends. False where another one holds it, or where that
    cannot be. It keeps nobody from reading and writing."""
    try:
        if sys.platform == "win32":
            import msvcrt

            place = file.tell()
            file.seek(_FAR)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(place)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def importing() -> Iterator[None]:
    """Around imports: what is imported stays, so the garbage collector need not look through it, now or later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def without_huge_pages() -> None:
    """x264 asks Linux for pages of 2 MB, which rounds each of its pictures up: 10 MB more at 1080p, and no faster."""
    if sys.platform == "linux":
        import contextlib
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE of prctl(2)
