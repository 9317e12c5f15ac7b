"""Many files: by several processes, one bad one never stopping the rest, and resumable after anything."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from multiprocessing import connection, get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Table

from pipeline.batch import manifest
from pipeline.batch.journal import Journal, sweep
from pipeline.batch.manifest import Entry
from pipeline.batch.worker import Outcome, Progress, Setup, Task, work
from pipeline.config import Config
from pipeline.errors import BadInput
from pipeline.flags import detector_of, say
from pipeline.records import RecordSink
from pipeline.run import Job
from pipeline.video.output import check

_STOP_S = 10.0  # for which a worker may clean up after itself


@dataclass(frozen=True, slots=True)
class Batch:
    """jobs: each with an output. output: the folder (or file) that names the batch. missing: inputs that are not there.

    workers: processes, 0 for as many as pay off. ray: address of a cluster that does the work
    instead. resume: finished files are skipped.
    """

    jobs: list[Job]
    output: Path
    config: Config
    two_pass: bool = False
    records: Path | None = None
    manifest: Path | None = None
    resume: bool = False
    overwrite: bool = False
    quiet: bool = False
    workers: int = 0
    missing: tuple[str, ...] = ()
    ray: str = ""


def run_batch(batch: Batch) -> int:
    """Do it all; the exit code is the worst file's. Raises UserError for what concerns all files."""
    if batch.manifest is not None:
        check(batch.manifest, batch.overwrite or batch.resume)
    detector_of(batch.config)  # else every worker would say what is wrong
    notes = RecordSink(batch.records, batch.overwrite) if batch.records is not None else None
    journal = None
    try:
        journal = Journal(batch.output)
        dispatcher = _dispatcher(batch, journal)
        try:
            dispatcher.work()
        finally:
            if batch.manifest is not None:
                complete = len(dispatcher.entries) == len(batch.jobs)
                entries = [dispatcher.entries[i] for i in sorted(dispatcher.entries)]
                manifest.write(batch.manifest, entries, batch.config, batch.two_pass, complete)
        if notes is not None:
            _gather(notes, dispatcher)
    except BaseException:
        if notes is not None:
            notes.abort()
        raise
    finally:
        if journal is not None:
            journal.close()
    return dispatcher.summary()


def _dispatcher(batch: Batch, journal: Journal) -> Dispatcher:
    if not batch.ray:
        return Dispatcher(batch, journal)
    from pipeline.batch.cluster import ClusterDispatcher

    return ClusterDispatcher(batch, journal)


def _gather(notes: RecordSink, dispatcher: Dispatcher) -> None:
    """All records into one file, in the files' order."""
    kept = [entry for _, entry in sorted(dispatcher.entries.items()) if entry.kept]
    for entry in kept:
        notes.file.write(dispatcher.journal.rows(entry.output).read_text(encoding="utf-8"))
    if kept:
        notes.close()
    else:
        notes.abort()
    dispatcher.journal.forget_rows()


class Dispatcher:
    """Hands out the files to the workers and takes back what became of them."""

    def __init__(self, batch: Batch, journal: Journal) -> None:
        self.batch, self.journal = batch, journal
        self.entries: dict[int, Entry] = {}
        self.codes: list[int] = []
        self.skipped = 0
        ending = batch.records.suffix.lower() if batch.records is not None else ""
        key = manifest.fingerprint(batch.config, batch.two_pass)
        self.setup = Setup(batch.config, batch.two_pass, key, ending)
        self.waiting = list(enumerate(batch.jobs))
        self.crew: list[Hand] = []

    def work(self) -> None:
        """Until nothing waits and nobody works. An interruption stops all workers and leaves nothing unfinished."""
        for line in self.batch.missing:
            say("error", line)
            self.codes.append(2)
        with self._table() as table:
            try:
                for _ in range(self._size()):
                    self._give(Hand(self.setup), table)
                while self.crew:
                    self._listen(table)
            finally:
                for hand in self.crew:
                    hand.stop()
                    sweep(Path(hand.output))

    def _size(self) -> int:
        cores = len(os.sched_getaffinity(0))
        return min(len(self.waiting), self.batch.workers or max(1, cores // 2))

    def _give(self, hand: Hand, table: Board) -> None:
        """The next file that can be worked on, or leave."""
        while self.waiting:
            index, job = self.waiting.pop(0)
            task = self._task(index, job)
            if task is not None:
                hand.take(task)
                if hand not in self.crew:
                    self.crew.append(hand)
                table.start(task)
                return
        hand.dismiss()
        if hand in self.crew:
            self.crew.remove(hand)

    def _task(self, index: int, job: Job) -> Task | None:
        assert job.output is not None
        name = str(job.output.absolute())
        before = self.journal.done.get(name) if self.batch.resume else None
        ours = self.batch.resume and (name in self.journal.begun or self._is_ours(before))
        if name in self.journal.begun:
            sweep(job.output)
        if job.output.exists() and not (job.overwrite or ours):
            error = BadInput("the output exists already", str(job.output), "--overwrite replaces it")
            self._note(Outcome(index, Entry(input=job.source, output=name, state="failed", error=str(error)), 2))
            return None
        rows = None
        if self.setup.ending:
            rows = self.journal.rows(name)
            rows.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.journal.begin(name)
        return Task(index, replace(job, overwrite=job.overwrite or ours), before, rows)

    def _is_ours(self, before: Entry | None) -> bool:
        return before is not None and before.kept and manifest.sha256(Path(before.output)) == before.output_sha256

    def _listen(self, table: Board) -> None:
        """Wait for a word from any worker, or for one's death."""
        ready = connection.wait([hand.pipe for hand in self.crew])
        for hand in [hand for hand in self.crew if hand.pipe in ready]:
            try:
                word = hand.pipe.recv()
            except (EOFError, OSError):
                self._bury(hand, table)
                continue
            if isinstance(word, Progress):
                table.move(word)
                continue
            table.end(word.index)
            self.journal.finish(word.entry)
            self._note(word)
            hand.task = None
            self._give(hand, table)

    def _bury(self, hand: Hand, table: Board) -> None:
        """A worker died: its file failed, its temporary file goes, and another worker takes its place."""
        self.crew.remove(hand)
        code = hand.stop()
        task = hand.task
        if task is None:
            return
        table.end(task.index)
        sweep(Path(hand.output))
        how = f"signal {-code}" if code and code < 0 else f"exit code {code}"
        error = f"{task.job.source}: the process that worked on it died ({how}); it is left out"
        entry = Entry(input=os.path.abspath(task.job.source), output=hand.output, state="failed", error=error)
        self.journal.finish(entry)
        self._note(Outcome(task.index, entry, 1))
        if self.waiting:
            self._give(Hand(self.setup), table)

    def _note(self, outcome: Outcome) -> None:
        entry, job = outcome.entry, self.batch.jobs[outcome.index]
        self.entries[outcome.index] = entry
        self.codes.append(outcome.code)
        self.skipped += outcome.skipped
        if not entry.kept:
            say("error", entry.error)
            return
        for warning in entry.warnings if not outcome.skipped else ():
            say("warning", f"{job.source}: {warning}")
        if entry.error:
            say("warning", entry.error)
        if not self.batch.quiet:
            print(f"{job.source} -> {job.output}: {outcome.line or 'done before'}", flush=True)

    def summary(self) -> int:
        kept = [entry for entry in self.entries.values() if entry.kept]
        if not self.batch.quiet:
            count = len(self.batch.jobs) + len(self.batch.missing)
            before = f", {self.skipped} of them before" if self.skipped else ""
            boxes = sum(sum(entry.faces.values()) for entry in kept)
            frames = sum(entry.frames for entry in kept)
            failed = f", {count - len(kept)} failed" if count > len(kept) else ""
            print(f"{len(kept)} of {count} files done{before}{failed}: {frames} frames, {boxes} boxes")
        return max(self.codes, default=0)

    @contextmanager
    def _table(self) -> Iterator[Board]:
        live = not self.batch.quiet and sys.stderr.isatty()
        table = progress_table(Console(stderr=True)) if live else None
        with table or nullcontext():
            yield Board(table, len(self.batch.jobs))


class Hand:
    """A worker process, and what it is at."""

    def __init__(self, setup: Setup) -> None:
        context = get_context("spawn")  # threads and libraries' state do not survive a fork
        ours, theirs = context.Pipe()
        self.pipe: Any = ours
        self.process: SpawnProcess = context.Process(target=work, args=(theirs, setup), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Task | None = None
        self.output = ""

    def take(self, task: Task) -> None:
        self.task = task
        self.output = str(task.job.output.absolute()) if task.job.output is not None else ""
        with suppress(OSError):  # it is dead: the pipe's end says so when it is listened to
            self.pipe.send(task)

    def dismiss(self) -> None:
        with suppress(OSError):
            self.pipe.send(None)
        self.process.join(_STOP_S)
        self.stop()

    def stop(self) -> int | None:
        """End it, first gently: it removes what it had begun. Returns its exit code."""
        if self.process.is_alive():
            self.process.join(0.2)  # it may be dying by itself, of what we want to know
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(_STOP_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()
        return self.process.exitcode


def progress_table(console: Console) -> Table:
    bars = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    # Lines of results go to standard output: through the table where both are the terminal, else past it.
    return Table(*bars, console=console, transient=True, redirect_stdout=sys.stdout.isatty())


class Board:
    """The progress table: a line a file that is worked on, and one for all. Without a table it does nothing."""

    def __init__(self, table: Table | None, files: int) -> None:
        self.table = table
        self.lines: dict[int, Any] = {}
        self.all = table.add_task("files", total=files, rate="") if table is not None else None

    def start(self, task: Task) -> None:
        if self.table is not None:
            self.lines[task.index] = self.table.add_task(Path(task.job.source).name, total=None, rate="")

    def move(self, word: Progress) -> None:
        if self.table is not None and (line := self.lines.get(word.index)) is not None:
            rate = next((t.speed for t in self.table.tasks if t.id == line), None)
            shown = f"{rate:.0f} frames/s" if rate else ""
            self.table.update(line, completed=word.frames, total=word.total, rate=shown)

    def end(self, index: int) -> None:
        if self.table is not None and self.all is not None:
            if (line := self.lines.pop(index, None)) is not None:
                self.table.remove_task(line)
            self.table.advance(self.all)
