"""Runs other anonymisation tools on the same video, as commands from wherever they are installed."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from facestream.pipeline.errors import BadConfig, BadInput

TOOLS = ("deface",)
# Its encoder would otherwise stretch frames to multiples of 16, and covers could not be compared pixel by pixel.
SAME_SIZE = ("--ffmpeg-config", '{"codec": "libx264", "macro_block_size": 2}')


def executable(tool: str, command: str | None) -> str:
    """The path of a tool's command. Raises BadConfig if it is not installed."""
    path = shutil.which(command or tool)
    if path is None:
        raise BadConfig(f"{command or tool} is not installed", f"--against {tool}", "give its path with --command")
    return path


def cover_with(tool: str, command: str | None, source: Path, out: Path, extra: tuple[str, ...] = ()) -> float:
    """Let deface write `out` (its defaults at the frame's own size, plus `extra` arguments); returns the seconds taken.

    command: its executable; it has its own dependencies, so it is best kept in its own environment.
    Raises BadConfig if it is not installed, BadInput if it fails.
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
