"""The records of a batch. Each file's wait beside the journal until all are done, so that a kill loses none; then they
become one file. Where that file is still what was written, a later `--resume` takes the finished files' from it."""

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
    """target: the one file. Raises BadConfig for its ending, BadInput where it cannot be written, or is not ours."""

    def __init__(self, target: Path, journal: Journal, overwrite: bool, resume: bool) -> None:
        self.ending = ending_of(target)
        self._target, self._journal = target, journal
        before = journal.written_records.get(str(target.absolute())) if resume else None
        ours = before is not None and before.sha256 == sha256(target)
        check(target, overwrite or ours)
        sweep(target)
        try:
            journal.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if before is not None and ours:
                self._take_apart(before)
        except OSError as e:
            raise BadInput(f"records cannot be kept ({e.strerror})", str(journal.folder)) from None

    def draft(self, output: str) -> Path:
        """Where a file's records are written while it is worked on."""
        return self._journal.folder / f"{_short(output)}.part"

    def of(self, source: str, entry: Entry) -> Path:
        """The records of a finished file. They are there only if whole, and of this content, these settings and this
        name: those of another run are another file."""
        what = json.dumps([source, entry.input_sha256, entry.key, self.ending])
        return self._journal.folder / f"{_short(entry.output)}-{_short(what)}"

    def commit(self, source: str, entry: Entry) -> None:
        """A file is done, and its draft is whole."""
        try:
            for old in self._journal.folder.glob(f"{_short(entry.output)}-*"):
                old.unlink()
            os.replace(self.draft(entry.output), self.of(source, entry))
        except OSError as e:
            raise SinkLost(f"records cannot be kept ({e.strerror})", str(self._journal.folder)) from None

    def gather(self, finished: Iterable[tuple[str, Entry]]) -> None:
        """Write the one file, in the order of the sources given; none where there are no sources."""
        parts = [self.of(source, entry) for source, entry in finished]
        if parts:
            temporary = Temporary(self._target)
            try:
                places = self._put_together(temporary.path, parts)
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

    def _put_together(self, path: Path, parts: list[Path]) -> dict[str, tuple[int, int]]:
        places = {}
        with path.open("wb") as file:
            file.write(head(self.ending).encode())
            for part in parts:
                start = file.tell()
                with part.open("rb") as rows:
                    shutil.copyfileobj(rows, file)
                places[part.name] = (start, file.tell())
        return places

    def _take_apart(self, written: WrittenRecords) -> None:
        with self._target.open("rb") as file:
            for name, (start, end) in written.places.items():
                file.seek(start)
                draft = self._journal.folder / f"{name}.part"
                draft.write_bytes(file.read(end - start))
                os.replace(draft, self._journal.folder / name)


def _short(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]
