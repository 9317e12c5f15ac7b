"""Many files: by several processes, one bad one never stopping the rest, and resumable after anything."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path

from facestream.pipeline.batch import manifest
from facestream.pipeline.batch.journal import Journal
from facestream.pipeline.batch.manifest import Entry
from facestream.pipeline.batch.progress_table import ProgressTable, progress_table
from facestream.pipeline.batch.record_store import RecordStore
from facestream.pipeline.batch.worker import Outcome, Progress, Setup, Task
from facestream.pipeline.batch.worker_handle import WorkerHandle
from facestream.pipeline.config import Config
from facestream.pipeline.cores import cores, workers
from facestream.pipeline.detectors import detector_of
from facestream.pipeline.errors import BadInput
from facestream.pipeline.log import fail
from facestream.pipeline.records import ending_of
from facestream.pipeline.run import Job
from facestream.pipeline.video.output import check, sweep
from msgspec import structs
from rich.console import Console

log = logging.getLogger(__name__)


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
        check(batch.manifest, batch.overwrite or (batch.resume and manifest.is_ours(batch.manifest)))
    if batch.records is not None:
        ending_of(batch.records)
    detector_of(batch.config)  # else every worker would say what is wrong
    journal = Journal(batch.output)
    try:
        records = None
        if batch.records is not None:
            records = RecordStore(batch.records, journal, batch.overwrite, batch.resume)
        dispatcher = _dispatcher(batch, journal, records)
        try:
            dispatcher.work()
        finally:
            if batch.manifest is not None:
                sweep(batch.manifest)
                complete = len(dispatcher.entries) == len(batch.jobs)
                told = [entry for _, entry in sorted(dispatcher.entries.items())]
                manifest.write(batch.manifest, told, batch.config, batch.two_pass, complete)
        if records is not None:
            entries = sorted(dispatcher.entries.items())
            records.gather((batch.jobs[i].source, entry) for i, entry in entries if entry.has_output)
    finally:
        journal.close()
    return dispatcher.summary()


def _dispatcher(batch: Batch, journal: Journal, records: RecordStore | None) -> Dispatcher:
    if not batch.ray:
        return Dispatcher(batch, journal, records)
    from facestream.pipeline.batch.cluster import ClusterDispatcher

    return ClusterDispatcher(batch, journal, records)


class Dispatcher:
    """Hands out the files to the workers and takes back what became of them."""

    def __init__(self, batch: Batch, journal: Journal, records: RecordStore | None = None) -> None:
        self.batch, self.journal, self.records = batch, journal, records
        self.entries: dict[int, Entry] = {}
        self.codes: list[int] = []
        self.skipped = 0
        key = manifest.fingerprint(batch.config, batch.two_pass)
        self.size = min(len(batch.jobs), batch.workers or workers())
        self.setup = Setup(
            self._shared_out(batch.config), batch.two_pass, key, records.ending if records is not None else ""
        )
        self.waiting = list(enumerate(batch.jobs))
        self.workers: list[WorkerHandle] = []

    def _shared_out(self, config: Config) -> Config:
        """The settings for each worker: what is left to choose of their threads is their part of the cores."""
        if self.size < 2:
            return config
        part = max(1, cores() // self.size)
        encode = structs.replace(config.encode, threads=config.encode.threads or part)
        decode = structs.replace(config.decode, threads=config.decode.threads or max(1, part // 2))
        return structs.replace(config, encode=encode, decode=decode)

    def work(self) -> None:
        """Until nothing waits and nobody works. An interruption stops all workers and leaves nothing unfinished."""
        for line in self.batch.missing:
            fail(line)
            self.codes.append(2)
        with self._table() as table:
            try:
                for _ in range(self.size):
                    self._give(WorkerHandle(self.setup), table)
                while self.workers:
                    self._listen(table)
            finally:
                for worker in self.workers:
                    worker.stop()
                    sweep(Path(worker.output))

    def _give(self, worker: WorkerHandle, table: ProgressTable) -> None:
        """The next file that can be worked on, or leave."""
        while self.waiting:
            index, job = self.waiting.pop(0)
            task = self._task(index, job)
            if task is not None:
                worker.take(task)
                if worker not in self.workers:
                    self.workers.append(worker)
                table.start(task)
                return
        worker.dismiss()
        if worker in self.workers:
            self.workers.remove(worker)

    def _task(self, index: int, job: Job) -> Task | None:
        assert job.output is not None
        name = str(job.output.absolute())
        before = self.journal.done.get(name) if self.batch.resume else None
        ours = self.batch.resume and (name in self.journal.begun or self._is_ours(before))
        if name in self.journal.begun:
            sweep(job.output)
        error = None
        if os.path.isdir(job.source):
            error = BadInput("no permission to look into the folder", job.source)
        elif job.output.exists() and not (job.overwrite or ours):
            error = BadInput("the output exists already", str(job.output), "--overwrite replaces it")
        if error is not None:
            self._note(Outcome(index, Entry(input=job.source, output=name, state="failed", error=str(error)), 2))
            return None
        draft = None
        if self.records is not None:
            draft = self.records.draft(name)
            if before is not None and not self.records.of(job.source, before).exists():
                before = None  # its output may be good, but what was found in it is not known any more
        self.journal.begin(name)
        return Task(index, replace(job, overwrite=job.overwrite or ours), before, draft)

    def _is_ours(self, before: Entry | None) -> bool:
        return before is not None and before.has_output and manifest.sha256(Path(before.output)) == before.output_sha256

    def _listen(self, table: ProgressTable) -> None:
        """Wait for a word from any worker, or for one's death."""
        ready = connection.wait([worker.pipe for worker in self.workers])
        for worker in [worker for worker in self.workers if worker.pipe in ready]:
            try:
                word = worker.pipe.recv()
            except (EOFError, OSError):
                self._on_worker_death(worker, table)
                continue
            if isinstance(word, Progress):
                table.move(word)
                continue
            table.end(word.index)
            self._finish(word)
            worker.task = None
            self._give(worker, table)

    def _on_worker_death(self, worker: WorkerHandle, table: ProgressTable) -> None:
        """A worker died: its file failed, its temporary file goes, and another worker takes its place."""
        self.workers.remove(worker)
        code = worker.stop()
        task = worker.task
        if task is None:
            return
        table.end(task.index)
        sweep(Path(worker.output))
        how = f"signal {-code}" if code and code < 0 else f"exit code {code}"
        error = f"{task.job.source}: the process that worked on it died ({how}); it is left out"
        entry = Entry(input=os.path.abspath(task.job.source), output=worker.output, state="failed", error=error)
        self._finish(Outcome(task.index, entry, 1))
        if self.waiting:
            self._give(WorkerHandle(self.setup), table)

    def _finish(self, outcome: Outcome) -> None:
        """Write down what became of a file. Its records first: what the journal calls done has them."""
        if self.records is not None and outcome.entry.has_output and not outcome.skipped:
            self.records.commit(self.batch.jobs[outcome.index].source, outcome.entry)
        self.journal.finish(outcome.entry)
        self._note(outcome)

    def _note(self, outcome: Outcome) -> None:
        entry, job = outcome.entry, self.batch.jobs[outcome.index]
        self.entries[outcome.index] = entry
        self.codes.append(outcome.code)
        self.skipped += outcome.skipped
        if not entry.has_output:
            fail(entry.error)
            return
        for warning in entry.warnings if not outcome.skipped else ():
            log.warning("%s: %s", job.source, warning)
        if entry.error:
            log.warning("%s", entry.error)
        if not self.batch.quiet:
            print(f"{job.source} -> {job.output}: {outcome.line or 'done before'}", flush=True)

    def summary(self) -> int:
        kept = [entry for entry in self.entries.values() if entry.has_output]
        if not self.batch.quiet:
            count = len(self.batch.jobs) + len(self.batch.missing)
            before = f", {self.skipped} of them before" if self.skipped else ""
            boxes = sum(sum(entry.faces.values()) for entry in kept)
            frames = sum(entry.frames for entry in kept)
            failed = f", {count - len(kept)} failed" if count > len(kept) else ""
            print(f"{len(kept)} of {count} files done{before}{failed}: {frames} frames, {boxes} boxes")
        return max(self.codes, default=0)

    @contextmanager
    def _table(self) -> Iterator[ProgressTable]:
        live = not self.batch.quiet and sys.stderr.isatty()
        table = progress_table(Console(stderr=True)) if live else None
        with table or nullcontext():
            yield ProgressTable(table, len(self.batch.jobs))
