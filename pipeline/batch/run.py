"""Batches: many files in several worker processes; a bad file does not stop the rest, and a batch can be resumed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import connection
from pathlib import Path

from facestream.pipeline.batch import manifest
from facestream.pipeline.batch.journal import Journal
from facestream.pipeline.batch.manifest import Entry
from facestream.pipeline.batch.progress_table import ProgressTable
from facestream.pipeline.batch.record_store import RecordStore
from facestream.pipeline.batch.worker import Outcome, Progress, Setup, Task
from facestream.pipeline.batch.worker_handle import WorkerHandle
from facestream.pipeline.config import Config
from facestream.pipeline.cores import cores, workers
from facestream.pipeline.errors import BadInput
from facestream.pipeline.log import beside_bars, fail
from facestream.pipeline.run import Job
from facestream.pipeline.video.output import sweep
from msgspec import structs

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """jobs: each with an output. output: the folder (or file) that identifies the batch. missing: inputs that do not
    exist.

    workers: number of processes, 0 chooses. ray: address of a cluster that runs the jobs instead. resume: skip
    finished files.
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
    report: bool = False


class Dispatcher:
    """Hands the files to the workers and collects their outcomes."""

    def __init__(self, batch: Batch, journal: Journal, records: RecordStore | None = None) -> None:
        self.batch = batch
        self.journal = journal
        self.records = records
        self.entries: dict[int, Entry] = {}
        self.codes: list[int] = []
        self.skipped = 0
        key = manifest.fingerprint(batch.config, batch.two_pass)
        self.size = min(len(batch.jobs), batch.workers or workers())
        self.setup = Setup(
            self._shared_out(batch.config),
            batch.two_pass,
            key,
            records.ending if records is not None else "",
            batch.report,
        )
        self.waiting = list(enumerate(batch.jobs))
        self.workers: list[WorkerHandle] = []

    def _shared_out(self, config: Config) -> Config:
        """The settings for each worker: thread counts that are 0 become the worker's share of the cores."""
        if self.size < 2:
            return config
        part = max(1, cores() // self.size)
        encode = structs.replace(config.encode, threads=config.encode.threads or part)
        decode = structs.replace(config.decode, threads=config.decode.threads or max(1, part // 2))
        return structs.replace(config, encode=encode, decode=decode)

    def work(self) -> None:
        """Run until all files are processed. An interruption stops all workers and removes unfinished outputs."""
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
        """Give the worker the next file that can be processed; without one, end the worker."""
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
        elif self.batch.report and not (job.overwrite or ours):
            from facestream.pipeline.review.job_report import report_path

            if (report := report_path(job.output)).exists():
                error = BadInput("the report exists already", str(report), "--overwrite replaces it")
        if error is not None:
            self._note(Outcome(index, Entry(input=job.source, output=name, state="failed", error=str(error)), 2))
            return None
        draft = None
        if self.records is not None:
            draft = self.records.draft(name)
            if before is not None and not self.records.of(job.source, before).exists():
                before = None  # its output may be good, but its records are gone
        self.journal.begin(name)
        return Task(index, replace(job, overwrite=job.overwrite or ours), before, draft)

    def _is_ours(self, before: Entry | None) -> bool:
        return before is not None and before.has_output and manifest.sha256(Path(before.output)) == before.output_sha256

    def _listen(self, table: ProgressTable) -> None:
        """Wait for a message from any worker, or for a worker's death."""
        ready = connection.wait([worker.pipe for worker in self.workers])
        for worker in [worker for worker in self.workers if worker.pipe in ready]:
            try:
                message = worker.pipe.recv()
            except (EOFError, OSError):
                self._on_worker_death(worker, table)
                continue
            if isinstance(message, Progress):
                table.update(message)
                continue
            table.end(message.index)
            self._finish(message)
            worker.task = None
            self._give(worker, table)

    def _on_worker_death(self, worker: WorkerHandle, table: ProgressTable) -> None:
        """Handle a worker's death: its file has failed, its temporary file is removed, a new worker replaces it."""
        self.workers.remove(worker)
        code = worker.stop()
        task = worker.task
        if task is None:
            return
        table.end(task.index)
        sweep(Path(worker.output))
        how = f"signal {-code}" if code and code < 0 else f"exit code {code}"
        error = f"{task.job.source}: its worker process died ({how}); the file is skipped"
        entry = Entry(input=os.path.abspath(task.job.source), output=worker.output, state="failed", error=error)
        self._finish(Outcome(task.index, entry, 1))
        if self.waiting:
            self._give(WorkerHandle(self.setup), table)

    def _finish(self, outcome: Outcome) -> None:
        """Record the outcome of a file. Its records come first: a file that the journal calls done has them."""
        if self.records is not None and outcome.entry.has_output and not outcome.skipped:
            self.records.commit(self.batch.jobs[outcome.index].source, outcome.entry)
        self.journal.finish(outcome.entry)
        self._note(outcome)

    def _note(self, outcome: Outcome) -> None:
        entry = outcome.entry
        job = self.batch.jobs[outcome.index]
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
            with beside_bars():
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
        table = ProgressTable(sys.stderr if live else None, len(self.batch.jobs))
        try:
            yield table
        finally:
            table.close()
