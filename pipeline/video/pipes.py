"""Pipes as sources and as a sink: read once, from front to back, and never waited for when the work is called off."""

from __future__ import annotations

import os
import select
import stat
import sys
from pathlib import Path

from facestream.pipeline.errors import BadInput

_POLL_MS = 200
STDIN = "-"
STDOUT = Path("-")


def is_pipe(path: str) -> bool:
    """A FIFO or a socket, under any name: /dev/stdin and /dev/fd/63 count as what they lead to."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


class PipeReader:
    """A pipe as FFmpeg reads it. Waits for the writer; after cancel() it is at its end."""

    def __init__(self, name: str) -> None:
        """name: a path, or - for standard input. Raises OSError."""
        self._own = name != STDIN
        # Without waiting for a writer: read() waits, and can be called off.
        self._fd = (
            os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
            if self._own
            else sys.stdin.fileno()
        )
        self._poll = select.poll() if hasattr(select, "poll") else None  # Windows can only wait
        if self._poll is not None:
            self._poll.register(self._fd, select.POLLIN)
        self._cancelled = False

    def read(self, size: int = -1) -> bytes:
        while not self._cancelled:
            if self._poll is not None and not self._poll.poll(_POLL_MS):
                continue
            try:
                return os.read(self._fd, size if size > 0 else 65536)
            except BlockingIOError:
                continue
        return b""

    def cancel(self) -> None:
        """May be called from any thread."""
        self._cancelled = True

    def close(self) -> None:
        self._cancelled = True
        if self._own and self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class StandardOutput:
    """In the place of a temporary file: what is written goes out at once. What others print to standard output goes to
    standard error from now on, or it would end up in the video."""

    def __init__(self) -> None:
        self.target = STDOUT
        if os.isatty(1):
            raise BadInput("standard output is a terminal", "-o -", "lead it into a file or a program: ... -o - | ...")
        sys.stdout.flush()
        self._fd = os.dup(1)
        os.dup2(2, 1)
        self.path = Path(f"pipe:{self._fd}")

    def commit(self) -> None:
        self.discard()

    def discard(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
