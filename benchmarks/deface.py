"""Other tools' work on the same video, run as their own commands from where they are installed."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from facestream.pipeline.errors import BadConfig, BadInput

TOOLS = ("deface",)
# Its encoder would else stretch pictures to multiples of 16, where covers cannot be compared pixel by pixel.
SAME_SIZE = ("--ffmpeg-config", '{"codec": "libx264", "macro_block_size": 2}')


def executable(tool: str, command: str | None) -> str:
    """The path of a tool's command. BadConfig when it is not there."""
    path = shutil.which(command or tool)
    if path is None:
        raise BadConfig(f"{command or tool} is not installed", f"--against {tool}", "give its path with --command")
    return path


def cover_with(tool: str, command: str | None, source: Path, out: Path, extra: tuple[str, ...] = ()) -> float:
    """Let deface (its own defaults in the picture's own size, plus `extra` arguments) write `out`; returns the seconds
    that took.

    command: its executable; it has its own dependencies, so it is best kept in its own environment.
    BadConfig when it is not there, BadInput when it fails.
    """
    path = executable(tool, command)
    began = time.perf_counter()
    done = subprocess.run(
        [path, str(source), "--output", str(out), *SAME_SIZE, *extra],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode or not out.is_file():
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise BadInput(f"{tool} failed: {last}", str(source))
    return time.perf_counter() - began
