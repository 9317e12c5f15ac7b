"""A batch's worker process, which anonymises one file after the other: a file that crashes it affects no other file."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TextIO

import av
from facestream.engines.loader import load_detector
from facestream.pipeline.batch.manifest import Entry, sha256
from facestream.pipeline.config import Config
from facestream.pipeline.errors import SinkLost, UserError
from facestream.pipeline.jobs.two_pass import run_twice
from facestream.pipeline.records import lines, record
from facestream.pipeline.run import Job, Report, run
from facestream.pipeline.types import TrackedFrame
from facestream.pipeline.url import redact

_EVERY_S = 0.3  # seconds between two progress messages


@dataclass(frozen=True, slots=True)
class Setup:
    """What all files of a batch share. key: fingerprint of the settings. ending: of the records file, or empty.
    report: the moments at risk of each are written beside its output."""

    config: Config
    two_pass: bool
    key: str
    ending: str = ""
    report: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """One file. before: its entry of an earlier run, if finished files are to be skipped. rows: file for its records.
    name: the source name in them (empty: the job's)."""

    index: int
    job: Job
    before: Entry | None = None
    rows: Path | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    index: int
    frames: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """code: the exit code that this file alone would give. line: its summary. skipped: it was finished before."""

    index: int
    entry: Entry
    code: int
    line: str = ""
    skipped: bool = False


class RecordWriter:
    """Counts frames and faces, reports progress periodically, and writes the records."""

    def __init__(self, report: Callable[[int], object], rows: TextIO | None, ending: str, name: str = "") -> None:
        self.frames = 0
        self.faces: Counter[str] = Counter()
        self._report = report
        self._rows = rows
        self._ending = ending
        self._name = name
        self._reported_s = time.monotonic()

    def write(self, tracked: TrackedFrame, source: str) -> None:
        self.frames += 1
        self.faces.update(str(box.state) for box in tracked.boxes)
        if self._rows is not None:
            try:
                self._rows.write(lines(record(tracked, self._name or source), self._ending))
            except OSError as e:
                raise SinkLost(f"records cannot be kept ({e.strerror})", self._rows.name) from None
        if time.monotonic() - self._reported_s > _EVERY_S:
            self._reported_s = time.monotonic()
            self._report(self.frames)

    def close(self) -> None:
        """Flush the records to disk. Raises SinkLost."""
        if self._rows is None:
            return
        try:
            self._rows.close()
        except OSError as e:
            raise SinkLost(f"records cannot be kept ({e.strerror})", self._rows.name) from None

    def forget(self) -> None:
        """Start over: the file is processed again."""
        self.frames = 0
        self.faces.clear()
        if self._rows is not None:
            self._rows.seek(0)
            self._rows.truncate()


def work(pipe: Connection, setup: Setup) -> None:
    """The process's main function: receives tasks through the pipe, sends progress and outcomes; None ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and stops us with SIGTERM
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    runner: Any = run_twice if setup.two_pass else run
    if setup.report:
        from facestream.pipeline.review.job_report import Reported

        runner = Reported(runner)
    try:
        detector = load_detector(setup.config.detector.model, setup.config.detector.options())

        def cover(job: Job, writer: RecordWriter) -> Report:
            report: Report = runner(job, setup.config, detector, writer, False)
            return report

        while (task := pipe.recv()) is not None:
            pipe.send(do_task(task, setup, cover, pipe.send))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def do_task(
    task: Task, setup: Setup, runner: Callable[[Job, RecordWriter], Report], on_progress: Callable[[Progress], object]
) -> Outcome:
    """Run one task; an error becomes part of its outcome."""
    job = task.job
    assert job.output is not None
    source = os.path.abspath(job.source)
    target = job.output.absolute()
    input_hash = sha256(Path(source))
    if task.before is not None and _still_good(task, setup, input_hash, target):
        return Outcome(task.index, task.before, 0 if task.before.state == "done" else 1, skipped=True)
    total = _expected(source)
    base: dict[str, Any] = {"input": source, "output": str(target), "key": setup.key, "input_sha256": input_hash}
    began = time.perf_counter()
    rows = None
    try:
        if task.rows is not None:
            rows = task.rows.open("w", encoding="utf-8", errors="surrogateescape")

        def on_frames(frames: int) -> None:
            on_progress(Progress(task.index, frames, total))

        writer = RecordWriter(on_frames, rows, setup.ending, task.name)
        report = runner(job, writer)
        try:
            writer.close()
        except UserError:
            target.unlink(missing_ok=True)  # what failed has no output
            raise
    except UserError as e:
        return Outcome(task.index, Entry(**base, state="failed", error=redact(e)), e.exit_code)
    except Exception as e:  # a bug of ours or of a library: this file fails closed, the others continue
        first = (str(e).splitlines() or [""])[0]
        error = redact(f"{job.source}: unexpected {type(e).__name__}: {first}")
        return Outcome(task.index, Entry(**base, state="failed", error=error), 1)
    finally:
        if rows is not None:
            with suppress(OSError):  # of what failed
                rows.close()
    entry = Entry(
        **base,
        state="cut short" if report.lost else "done",
        output_sha256=sha256(target),
        frames=report.frames,
        tracks=report.tracks,
        faces=dict(sorted(writer.faces.items())),
        warnings=tuple(redact(warning) for warning in report.warnings),
        error=redact(report.lost) if report.lost else "",
        seconds=round(time.perf_counter() - began, 3),
    )
    return Outcome(task.index, entry, 1 if report.lost else 0, report.line())


def _still_good(task: Task, setup: Setup, input_hash: str, target: Path) -> bool:
    """Whether an earlier run's output can be kept: same input, same settings, output unchanged since."""
    before = task.before
    assert before is not None
    if not before.has_output or before.key != setup.key or not input_hash or before.input_sha256 != input_hash:
        return False
    return sha256(target) == before.output_sha256


def _expected(source: str) -> int | None:
    """The expected number of frames of a video, from its header alone."""
    try:
        with av.open(source, metadata_errors="replace") as file:
            film = file.streams.video[0]
            if film.frames:
                return int(film.frames)
            if file.duration and film.average_rate:
                return round(file.duration / av.time_base * film.average_rate)
    except (av.FFmpegError, IndexError, ValueError):
        pass
    return None


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt
