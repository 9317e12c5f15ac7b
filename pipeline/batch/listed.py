"""Inputs by a list in a file, and where outputs go below a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facestream.pipeline.errors import BadInput, UserError
from facestream.pipeline.run import Job
from facestream.pipeline.video.uri import MediaFile, expand


@dataclass(frozen=True, slots=True)
class Listed:
    """files: with their places below the folder that they have in common. missing: a line for what is not there."""

    files: tuple[MediaFile, ...]
    missing: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Listed:
        """One file, folder or glob a line; empty lines are skipped. `-` reads standard input. Raises BadInput."""
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
        """A job for each; the output is a folder. Raises BadInput where it cannot be."""
        if output.exists() and not output.is_dir():
            raise BadInput("is a file, and a list of inputs needs a folder", str(output))
        return place(self.files, output, overwrite)


def place(files: Sequence[MediaFile], output: Path, overwrite: bool) -> list[Job]:
    """Jobs that keep the files' structure below a folder, which is made. Raises BadInput where it cannot be."""
    jobs = [Job(str(file.path), output / file.relative, overwrite) for file in files]
    try:
        for folder in {job.output.parent for job in jobs if job.output}:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise BadInput(f"cannot make the folder ({e.strerror})", str(output)) from None
    return jobs
