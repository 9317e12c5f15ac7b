"""Exports a review: the covered video, its records, and a report."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from facestream.pipeline.batch.manifest import Entry, verify
from facestream.pipeline.batch.manifest import write as write_manifest
from facestream.pipeline.config import Config
from facestream.pipeline.errors import BadInput, UserError
from facestream.pipeline.jobs.replay import RecordReplay
from facestream.pipeline.records import Record
from facestream.pipeline.review.draft import hash_of
from facestream.pipeline.review.report import Facts, html
from facestream.pipeline.review.session import Session, now
from facestream.pipeline.run import Job, Report, run_stages
from facestream.pipeline.types import BoxKind, Frame, TrackedFrame
from facestream.pipeline.video.output import check, write_text
from msgspec import Struct, structs, to_builtins


class ExportRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What the page asks for. name: of the covered video, a file in the folder of the source. by: who exports."""

    name: str
    overwrite: bool = False
    by: str = ""


class _Cancelled(UserError):
    exit_code = 130


class Export:
    """Writes `name`, `name.jsonl`, `name.manifest.json` and `name.report.html` on a thread of its own.

    What is written is what the document held when it began.
    """

    def __init__(self, session: Session, request: ExportRequest) -> None:
        """Raises BadInput for names that may not be, and for files that exist."""
        video = session.clip.video
        if not request.name or request.name != Path(request.name).name or request.name.startswith("."):
            raise BadInput("name a file, without a folder", request.name or "export")
        self.output = video.with_name(request.name)
        self.records = self.output.with_name(self.output.name + ".jsonl")
        self.manifest = self.output.with_name(self.output.name + ".manifest.json")
        self.report = self.output.with_name(self.output.name + ".report.html")
        for path in self.paths:
            check(path, request.overwrite, [video, session.records])
        self.request = request
        self.session = session
        self.rows = session.document.export()
        self.facts = Facts.of(session, request.by or session.user)
        self.config = _config(session)
        self.frames = 0
        self.error = ""
        self.done = False
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="export", daemon=True)

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.output, self.records, self.manifest, self.report

    def start(self) -> None:
        self._thread.start()

    def cancel(self) -> None:
        """Stop it; what it had begun goes."""
        self._stop = True
        if self._thread.is_alive():
            self._thread.join(20)

    def state(self) -> dict[str, Any]:
        """For the page."""
        return {
            "done": self.done, "error": self.error, "frames": self.frames, "of": len(self.rows),
            "files": [path.name for path in self.paths] if self.done and not self.error else [],
        }  # fmt: skip

    def write(self, tracked: TrackedFrame, source: str) -> None:
        """Count: a run tells of each frame that leaves."""
        self.frames += 1

    def push(self, frame: Frame) -> list[TrackedFrame]:
        if self._stop:
            raise _Cancelled("the export was stopped", str(self.output))
        return self._replay.push(frame)

    def flush(self) -> list[TrackedFrame]:
        return self._replay.flush()

    def _run(self) -> None:
        try:
            self._replay = RecordReplay(self.rows, self.session.records)
            job = Job(str(self.session.clip.video), self.output, self.request.overwrite)
            report = run_stages(job, self.config, self, self, progress=False)
            self._write(report)
        except UserError as e:
            self.error = str(e)
        except Exception as e:  # the page says it, instead of waiting for ever
            self.error = f"{type(e).__name__}: {e}"
        self.done = True

    def _write(self, report: Report) -> None:
        video = self.session.clip.video
        source = str(video)
        text = "".join(
            json.dumps(_row(structs.replace(row, source=source)), ensure_ascii=False) + "\n"
            for row in self.rows.values()
        )
        write_text(self.records, text)
        states: dict[str, int] = {}
        for row in self.rows.values():
            for face in row.faces:
                states[str(face.state)] = states.get(str(face.state), 0) + 1
        lost = str(report.lost) if report.lost else ""
        entry = Entry(
            input=str(video.absolute()), output=str(self.output.absolute()), state="cut short" if lost else "done",
            input_sha256=hash_of(video), output_sha256=hash_of(self.output), frames=report.frames,
            tracks=report.tracks, faces=states, warnings=report.warnings, error=lost, seconds=round(report.seconds, 3),
        )  # fmt: skip
        write_manifest(self.manifest, [entry], self.config, two_pass=False, complete=True)
        wrong, notes, good = verify(self.manifest)
        facts = replace(
            self.facts, input_sha256=entry.input_sha256, output=self.output.name, output_sha256=entry.output_sha256,
            records_sha256=hash_of(self.records), frames=report.frames,
            warnings=(*report.warnings, lost) if lost else report.warnings,
            manifest=self.manifest.name, manifest_check=(*wrong, *notes) or (f"{good} output is as it was written",),
            settings=to_builtins(self.config.cover) | {"audio": self.session.document.audio}, written=now(),
        )  # fmt: skip
        write_text(self.report, html(facts))


def _config(session: Session) -> Config:
    encode = structs.replace(session.config.encode, audio=session.document.audio)
    return structs.replace(session.config, encode=encode)


def _row(row: Record) -> dict[str, Any]:
    value: dict[str, Any] = to_builtins(row)
    for name in ("wall_s", "masks"):
        if not value[name]:
            del value[name]
    for face in value["faces"]:
        if face["kind"] == str(BoxKind.FACE):
            del face["kind"]
    return value
