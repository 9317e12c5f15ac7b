"""Folders of clips with ground truth: NAME.truth.txt (MOT rows, frames from 1) beside NAME.mp4, .mkv or .avi."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

SUFFIXES = (".mp4", ".mkv", ".avi")


def clips_in(folder: Path) -> Iterator[tuple[str, Path, Path]]:
    """Name, video and truth of each clip, by name; a truth without a video is passed over."""
    for truth in sorted(folder.glob("*.truth.txt")):
        name = truth.name.removesuffix(".truth.txt")
        video = next((p for suffix in SUFFIXES if (p := folder / f"{name}{suffix}").is_file()), None)
        if video is not None:
            yield name, video, truth
