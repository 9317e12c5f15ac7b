"""Inputs from a list file (`--list`), and their output paths below a folder."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facestream.pipeline.errors import BadInput, UserError
from facestream.pipeline.run import Job
from facestream.pipeline.video.encode import CONTAINERS
from facestream.pipeline.video.uri import IMAGE_SUFFIXES, MediaFile, expand

log = logging.getLogger(__name__)

OTHERWISE = ".mp4"  # what is written for a kind of file that we only read


@dataclass(frozen=True, slots=True)
class Listed:
    """The inputs of a list. files: with paths relative to their common folder. missing: an error line for each input
    that does not exist."""

    files: tuple[MediaFile, ...]
    missing: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Listed:
        """Read a list: one file, folder or glob per line; empty lines are skipped; `-` is stdin. Raises BadInput."""
        try:
            text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as e:
            raise BadInput(f"cannot read the list ({getattr(e, 'strerror', None) or e})", str(path)) from None
        found: list[Path] = []
        missing = []
        for line in text.splitlines():
            if not line.strip():
                continue
            try:
                found += [file.path for file in expand([line])]
            except UserError as e:
                missing.append(str(e))
        if not found and not missing:
            raise BadInput("the list is empty", str(path))
        unique = {os.path.abspath(file): file for file in found}
        root = os.path.commonpath([os.path.dirname(name) for name in unique]) if unique else ""
        places = [MediaFile(file, Path(os.path.relpath(name, root))) for name, file in unique.items()]
        return cls(tuple(sorted(places, key=lambda file: file.relative.parts)), tuple(missing))

    def jobs(self, output: Path, overwrite: bool) -> list[Job]:
        """A job per file; the output is a folder. Raises BadInput if it cannot be one."""
        if output.exists() and not output.is_dir():
            raise BadInput("is a file, and a list of inputs needs a folder", str(output))
        return place(self.files, output, overwrite)


def place(files: Sequence[MediaFile], output: Path, overwrite: bool) -> list[Job]:
    """Jobs that keep the files' folder structure below `output`, which is created. Raises BadInput if that fails."""
    taken = {file.relative for file in files}
    jobs = []
    for file in files:
        relative = file.relative
        if relative.suffix.lower() not in CONTAINERS and relative.suffix.lower() not in IMAGE_SUFFIXES:
            relative = relative.with_suffix(OTHERWISE)
            if relative in taken:
                relative = file.relative.with_name(file.relative.name + OTHERWISE)
            taken.add(relative)
            log.warning("%s: %s is not written here, the output is %s", file.path, file.path.suffix, relative.name)
        jobs.append(Job(str(file.path), output / relative, overwrite))
    try:
        for folder in {job.output.parent for job in jobs if job.output}:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise BadInput(f"cannot create the folder ({e.strerror})", str(output)) from None
    return jobs
