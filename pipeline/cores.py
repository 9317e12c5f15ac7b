"""How many cores there are to share out."""

from __future__ import annotations

from facestream.pipeline.system import cores, memory_gb

__all__ = ["cores", "half_of_cores", "workers"]

_WORKER_GB = 1.0  # a 4K video's job takes about as much, one of 1080p a third


def half_of_cores() -> int:
    """At least one."""
    return max(1, cores() // 2)


def workers() -> int:
    """How many files to work on side by side: one a core, where there is memory for so many."""
    return max(1, min(cores(), int(memory_gb() / _WORKER_GB)))
