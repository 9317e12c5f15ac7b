"""Output files that appear under their name only when they are whole."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import BadInput


def check(path: Path, overwrite: bool, inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """All that can be known of an output path before any work starts. Raises BadInput."""
    try:
        _check(path, overwrite, inputs)
    except PermissionError:  # a folder further up is closed
        raise BadInput("no permission to write into the output's folder", str(path)) from None


def _check(path: Path, overwrite: bool, inputs: Iterable[str | os.PathLike[str]]) -> None:
    where = str(path)
    folder = path.absolute().parent
    if path.is_dir():
        raise BadInput("the output is a folder", where, "name a file in it")
    if not folder.exists():
        raise BadInput("the output's folder does not exist", where, f"make it: mkdir -p {folder}")
    if not folder.is_dir():
        raise BadInput("the output's folder is a file", where)
    for source in inputs:
        with contextlib.suppress(OSError, ValueError):
            if os.path.samefile(source, path):
                raise BadInput("the output is the input itself", where, "name another file")
    if path.exists() and not overwrite:
        raise BadInput("the output exists already", where, "--overwrite replaces it")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise BadInput("no permission to write into the output's folder", where)


class Temporary:
    """An empty hidden file beside the target: written to, then kept (renamed) or dropped.

    Making it shows an unwritable folder before the work starts.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        stem = os.fsdecode(os.fsencode(target.name)[:200])  # a name holds 255 bytes at most
        self.path = target.absolute().with_name(f".{stem}.facestream-{secrets.token_hex(4)}.part")
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except PermissionError:
            raise BadInput("no permission to write into the output's folder", str(target)) from None
        except OSError as e:
            raise BadInput(f"the output cannot be written ({e.strerror})", str(target)) from None

    def keep(self) -> None:
        """Give it its name; what had that name before is replaced."""
        os.replace(self.path, self.target)

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
