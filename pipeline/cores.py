"""How many cores there are to share out."""

from __future__ import annotations

import os

_WORKER_GB = 1.0  # a 4K video's job takes about as much, one of 1080p a third


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def half_of_cores() -> int:
    """At least one."""
    return max(1, cores() // 2)


def workers() -> int:
    """How many files to work on side by side: one a core, where there is memory for so many."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(cores(), int(memory_gb / _WORKER_GB)))
