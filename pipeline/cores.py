"""How many cores there are to share out."""

from __future__ import annotations

import os


def half_of_cores() -> int:
    """Half of the cores that this process may use, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)
