"""Atomic outputs: a file is written under a temporary name; rename on success, when it is complete."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from facestream.pipeline.errors import BadInput, SinkLost
from facestream.pipeline.system import lock


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
    if path.exists() and not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise BadInput("the output is write-protected", where, "name another file, or allow writing: chmod u+w")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise BadInput("no permission to write into the output's folder", where)


def check_distinct(
    inputs: Iterable[str | os.PathLike[str] | None], outputs: Iterable[str | os.PathLike[str] | None]
) -> None:
    """All outputs of a command against all that it reads and against each other, by the file and not by its name: links
    and other spellings of a path count. None, "" and "-" stand for no file. Raises BadInput: nothing was touched yet.
    """
    read: dict[tuple[object, ...], str] = {}
    for source in [os.fspath(name) for name in inputs if name]:
        for key in _identities(source):
            read.setdefault(key, source)
    written: dict[tuple[object, ...], str] = {}
    for output in [os.fspath(name) for name in outputs if name]:
        if output == "-":
            continue
        keys = list(_identities(output))
        for key in keys:
            if key in read:
                raise BadInput(f"the output is an input of this command ({read[key]})", output, "name another")
            if key in written:
                what = f"two outputs of this command are one file (the other: {written[key]})"
                raise BadInput(what, output, "name another")
        written |= dict.fromkeys(keys, output)


def _identities(path: str) -> Iterator[tuple[object, ...]]:
    """What tells a file from others: its inode, where it is there; its folder's inode and its name, with links
    followed."""
    with contextlib.suppress(OSError, ValueError):
        status = os.stat(path)
        yield status.st_dev, status.st_ino
    with contextlib.suppress(OSError, ValueError):
        real = os.path.realpath(path)
        folder = os.stat(os.path.dirname(real))
        yield folder.st_dev, folder.st_ino, os.path.basename(real)


class Temporary:
    """An empty hidden file beside the target: written to, then committed (renamed) or discarded.

    It is locked until then, so that a later run can tell what a killed one left from what is still written. Making it
    shows an unwritable folder before the work starts.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        head, tail = _hidden(target)
        self.path = target.absolute().with_name(f"{head}{os.urandom(4).hex()}{tail}")
        try:
            self._file = open(self.path, "xb")  # noqa: SIM115  it stays open, and locked, until the file is whole
        except PermissionError:
            raise BadInput("no permission to write into the output's folder", str(target)) from None
        except OSError as e:
            raise BadInput(f"the output cannot be written ({e.strerror})", str(target)) from None
        lock(self._file)

    def commit(self) -> None:
        """Rename the file to its final name, replacing an existing one."""
        self._rename(self.target)

    def _rename(self, target: Path) -> None:
        """Rename; the file stays locked meanwhile, except on Windows, which renames no open file."""
        if sys.platform == "win32":
            self._file.close()
        os.replace(self.path, target)
        self._file.close()

    def discard(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


def sweep(target: Path, dead: bool = True) -> None:
    """Remove the temporary files that a killed run left of an output. dead: nobody writes it any more; else those
    that somebody still holds are left alone."""
    head, tail = _hidden(target)
    with contextlib.suppress(OSError):
        for path in target.absolute().parent.iterdir():
            if path.name.startswith(head) and path.name.endswith(tail) and (dead or _is_left(path)):
                path.unlink(missing_ok=True)


def _hidden(target: Path) -> tuple[str, str]:
    """How the name of a temporary file begins and ends."""
    stem = os.fsdecode(os.fsencode(target.name)[:200])  # a name holds 255 bytes at most
    return f".{stem}.facestream-", ".part"


def _is_left(path: Path) -> bool:
    with path.open("ab") as file:
        return lock(file)


def write_text(path: Path, text: str, what: str = "it") -> None:
    """Write a text file (UTF-8) that appears under its name only when it is whole.

    what: the file in the words of the message. Raises SinkLost if it cannot be written; then nothing of it is left.
    """
    temporary = Temporary(path)
    try:
        temporary.path.write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError as e:
        temporary.discard()
        raise SinkLost(f"cannot write {what} ({e.strerror})", str(path)) from None
    except BaseException:
        temporary.discard()
        raise
    temporary.commit()
