"""Numbers of threads and worker processes for this machine."""

from __future__ import annotations

from facestream.pipeline.system import cores, memory_gb

__all__ = ["cores", "half_of_cores", "workers"]

_WORKER_GB = 1.0  # a 4K video's job takes about as much, one of 1080p a third


def half_of_cores() -> int:
    """At least one."""
    return max(1, cores() // 2)


def workers() -> int:
    """Number of files to process in parallel: one per core, if there is memory for them."""
    return max(1, min(cores(), int(memory_gb() / _WORKER_GB)))
