"""The records of a batch. Each input's records are kept beside the journal until the batch ends, so that a kill loses
none; then they are joined into one file. If that file is unchanged, a later `--resume` reuses the records in it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from facestream.pipeline.batch.journal import Journal, WrittenRecords
from facestream.pipeline.batch.manifest import Entry, sha256
from facestream.pipeline.errors import BadInput, SinkLost
from facestream.pipeline.records import ending_of, head
from facestream.pipeline.video.output import Temporary, check, sweep


class RecordStore:
    """Collects the records of a batch. target: the joined file. Raises BadConfig for its ending, BadInput if it cannot
    be written or was not written by an earlier run of this batch."""

    def __init__(self, target: Path, journal: Journal, overwrite: bool, resume: bool) -> None:
        self.ending = ending_of(target)
        self._target = target
        self._journal = journal
        before = journal.written_records.get(str(target.absolute())) if resume else None
        ours = before is not None and before.sha256 == sha256(target)
        check(target, overwrite or ours)
        sweep(target)
        try:
            journal.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if before is not None and ours:
                self._split(before)
        except OSError as e:
            raise BadInput(f"records cannot be kept ({e.strerror})", str(journal.folder)) from None

    def draft(self, output: str) -> Path:
        """Where a file's records are written while it is processed."""
        return self._journal.folder / f"{_short(output)}.part"

    def of(self, source: str, entry: Entry) -> Path:
        """The path of a finished file's records. It exists only if they are complete and of this content, these
        settings and this name: records of another run have another path."""
        what = json.dumps([source, entry.input_sha256, entry.key, self.ending])
        return self._journal.folder / f"{_short(entry.output)}-{_short(what)}"

    def commit(self, source: str, entry: Entry) -> None:
        """Turn the draft of a finished file into its records."""
        try:
            for old in self._journal.folder.glob(f"{_short(entry.output)}-*"):
                old.unlink()
            os.replace(self.draft(entry.output), self.of(source, entry))
        except OSError as e:
            raise SinkLost(f"records cannot be kept ({e.strerror})", str(self._journal.folder)) from None

    def gather(self, finished: Iterable[tuple[str, Entry]]) -> None:
        """Write the joined file, in the order of the sources given; nothing if there are none."""
        parts = [self.of(source, entry) for source, entry in finished]
        if parts:
            temporary = Temporary(self._target)
            try:
                places = self._join(temporary.path, parts)
                written = WrittenRecords(sha256=sha256(temporary.path), places=places)
                temporary.commit()
            except OSError as e:
                temporary.discard()
                raise SinkLost(f"cannot write the records ({e.strerror})", str(self._target)) from None
            except BaseException:
                temporary.discard()
                raise
            self._journal.note_records(self._target, written)
        shutil.rmtree(self._journal.folder, ignore_errors=True)

    def _join(self, path: Path, parts: list[Path]) -> dict[str, tuple[int, int]]:
        places = {}
        with path.open("wb") as file:
            file.write(head(self.ending).encode())
            for part in parts:
                start = file.tell()
                with part.open("rb") as rows:
                    shutil.copyfileobj(rows, file)
                places[part.name] = (start, file.tell())
        return places

    def _split(self, written: WrittenRecords) -> None:
        with self._target.open("rb") as file:
            for name, (start, end) in written.places.items():
                file.seek(start)
                draft = self._journal.folder / f"{name}.part"
                draft.write_bytes(file.read(end - start))
                os.replace(draft, self._journal.folder / name)


def _short(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]
