"""A batch's journal, which lets `--resume` skip what an earlier, perhaps killed, run finished. Written line by line.

It is stored outside the output folder, in $XDG_STATE_HOME/facestream (~/.local/state/facestream on Linux), and named
after that folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from facestream.engines.checked import checked
from facestream.pipeline.batch.manifest import Entry
from facestream.pipeline.errors import BadInput, SinkLost
from facestream.pipeline.system import lock, state_folder
from msgspec import Struct, to_builtins


class WrittenRecords(Struct, frozen=True, forbid_unknown_fields=True):
    """A records file as written. places: byte range of each input's records in it."""

    sha256: str
    places: dict[str, tuple[int, int]]


class Journal:
    """begun: outputs that a run started and did not finish; they and their temporary files belong to this batch.

    done: the last entry of each output. written_records: the records files that were written, by path. Raises BadInput
    if another run works on the same folder, or if the journal cannot be written.
    """

    def __init__(self, output: Path) -> None:
        where = os.path.realpath(output)
        name = hashlib.sha256(os.fsencode(where)).hexdigest()[:32]
        self.path = state_folder() / f"{name}.jsonl"
        self.done: dict[str, Entry] = {}
        self.begun: set[str] = set()
        self.written_records: dict[str, WrittenRecords] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115  it stays open for the whole run
        except OSError as e:
            do = "set XDG_STATE_HOME to a folder that can be written"
            raise BadInput(f"the batch's journal cannot be kept ({e.strerror})", str(self.path), do) from None
        if not lock(self._file):
            self._file.close()
            raise BadInput("another run is at work on this folder", where, "wait for it, or stop it")
        self._file.seek(0)
        line = "\n"
        for line in self._file:
            self._take(line)
        if not line.endswith("\n"):  # torn by a kill: what comes next begins a line of its own
            self._file.write("\n")

    def begin(self, output: str) -> None:
        """Note that an output may exist from now on, unfinished."""
        self.begun.add(output)
        self._write(json.dumps({"begun": output}))

    def finish(self, entry: Entry) -> None:
        self.begun.discard(entry.output)
        self.done[entry.output] = entry
        self._write(json.dumps(to_builtins(entry)))  # which takes names that are no UTF-8, too

    def note_records(self, records: Path, written: WrittenRecords) -> None:
        """Note that the batch's records were joined into one file."""
        self.written_records[str(records.absolute())] = written
        self._write(json.dumps({"records": str(records.absolute())} | to_builtins(written)))

    @property
    def folder(self) -> Path:
        """The folder for records that wait for the end of the batch, beside the journal."""
        return self.path.with_suffix("")

    def close(self) -> None:
        """Unlock the journal for other runs."""
        with contextlib.suppress(OSError):  # a line that the disk had no room for
            self._file.close()

    def _write(self, line: str) -> None:
        try:
            self._file.write(line + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as e:
            raise SinkLost(f"the batch's journal cannot be written ({e.strerror})", str(self.path)) from None

    def _take(self, line: str) -> None:
        try:
            row = json.loads(line)
            if "begun" in row:
                self.begun.add(row["begun"])
                return
            if (path := row.pop("records", None)) is not None:
                self.written_records[path] = checked(row, WrittenRecords)
                return
            entry = checked(row, Entry)
        except (ValueError, TypeError):
            return  # a line that a killed run left half-written
        self.done[entry.output] = entry
        self.begun.discard(entry.output)
