"""A batch's diary, line by line on the disk, so that what a killed run had finished is known.

It lies outside the output folder, in $XDG_STATE_HOME/facestream (~/.local/state/facestream), named after that folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from pathlib import Path

from pydantic import ValidationError

from pipeline.batch.manifest import Entry
from pipeline.errors import BadInput


class Journal:
    """begun: outputs that a run started to write and never finished: they, and their temporary files, are ours.

    done: the last entry of each output. Raises BadInput where another run is at work on the same folder, or where the
    diary cannot be kept.
    """

    def __init__(self, output: Path) -> None:
        where = os.path.realpath(output)
        name = hashlib.sha256(os.fsencode(where)).hexdigest()[:32]
        home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        self.path = home / "facestream" / f"{name}.jsonl"
        self.done: dict[str, Entry] = {}
        self.begun: set[str] = set()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115  it stays open for the whole run
        except OSError as e:
            do = "set XDG_STATE_HOME to a folder that can be written"
            raise BadInput(f"the batch's diary cannot be kept ({e.strerror})", str(self.path), do) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise BadInput("another run is at work on this folder", where, "wait for it, or stop it") from None
        self._file.seek(0)
        line = "\n"
        for line in self._file:
            self._take(line)
        if not line.endswith("\n"):  # torn by a kill: what comes next begins a line of its own
            self._file.write("\n")

    def begin(self, output: str) -> None:
        """From now on the output may be there, half-known."""
        self.begun.add(output)
        self._write(json.dumps({"begun": output}))

    def finish(self, entry: Entry) -> None:
        self.begun.discard(entry.output)
        self.done[entry.output] = entry
        self._write(entry.model_dump_json())

    def rows(self, output: str) -> Path:
        """Where the records of an output wait until the batch is over."""
        return self.path.with_suffix("") / hashlib.sha256(os.fsencode(output)).hexdigest()[:32]

    def forget_rows(self) -> None:
        folder = self.path.with_suffix("")
        for file in folder.glob("*"):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()

    def close(self) -> None:
        """Let another run at it."""
        self._file.close()

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _take(self, line: str) -> None:
        try:
            row = json.loads(line)
            if "begun" in row:
                self.begun.add(row["begun"])
                return
            entry = Entry.model_validate(row)
        except (ValueError, TypeError, ValidationError):
            return  # a line that a killed run left half-written
        self.done[entry.output] = entry
        self.begun.discard(entry.output)


def sweep(output: Path) -> None:
    """Remove the temporary files that a killed run left of an output."""
    stem = os.fsdecode(os.fsencode(output.name)[:200])
    head, tail = f".{stem}.facestream-", ".part"
    with contextlib.suppress(OSError):
        for path in output.parent.iterdir():
            if path.name.startswith(head) and path.name.endswith(tail):
                path.unlink(missing_ok=True)
