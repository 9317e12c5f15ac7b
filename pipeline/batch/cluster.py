"""Batches on a Ray cluster: one task per file, or one per segment of a long file.

All machines must see the inputs and the output folder under the same paths and have this software. A task whose process
or machine is lost is repeated elsewhere.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from facestream.engines.base import Detector
from facestream.engines.loader import load_detector
from facestream.pipeline.batch import manifest
from facestream.pipeline.batch.manifest import Entry
from facestream.pipeline.batch.progress_table import ProgressTable
from facestream.pipeline.batch.run import Dispatcher
from facestream.pipeline.batch.segments import NotSegmentable, Segment, find_segments, run_segments
from facestream.pipeline.batch.worker import Outcome, RecordWriter, Setup, Task, do_task
from facestream.pipeline.config import Config
from facestream.pipeline.errors import BadConfig, BadInput
from facestream.pipeline.jobs.two_pass import run_twice
from facestream.pipeline.log import fail
from facestream.pipeline.run import Job, Recorder, Report, run
from facestream.pipeline.video.output import sweep

Runner = Callable[[Job, Config, Detector, Recorder | None, bool], Report]
RETRIES = 3  # repetitions of a task whose process or machine was lost
_ANSWER_S = 10.0  # seconds for a cluster to accept a connection
_STOP_S = 10.0  # seconds in which tasks may clean up


@dataclass(frozen=True, slots=True)
class Answer:
    """A task's result. rows: its records."""

    outcome: Outcome
    rows: str = ""


class Executor:
    """Runs the segments' tasks on the cluster."""

    def submit(self, do: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        ray = ray_module()
        return partial(_result, ray, remote(do).remote(*arguments))


def ray_module() -> ModuleType:
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports usage statistics by default
        import ray
    except ImportError:
        raise BadInput("Ray is not installed", "--ray", "pip install 'facestream[ray]'") from None
    module: ModuleType = ray
    return module


@lru_cache(maxsize=8)
def remote(do: Callable[..., Any]) -> Any:
    """A function as a Ray remote function; cached, since each is stored in the cluster."""
    ray = ray_module()
    return ray.remote(num_cpus=1, max_retries=RETRIES)(do)


def _result(ray: ModuleType, ticket: Any) -> Any:
    """A task's result. Its exceptions are raised without Ray's wrapper."""
    try:
        return ray.get(ticket)
    except ray.exceptions.RayTaskError as e:
        raise (e.cause if isinstance(e.cause, Exception) else e) from None


def cover_file(task: Task, setup: Setup) -> Answer:
    """Process one file, on a machine of the cluster."""
    config = setup.config
    if manifest.fingerprint(config, setup.two_pass) != setup.key:
        do = "install the same versions, and the same model, everywhere"
        error = BadConfig(f"the software of {platform.node()} is not that of the machine that asks", "--ray", do)
        source = os.path.abspath(task.job.source)
        output = str(task.job.output)
        return Answer(Outcome(task.index, Entry(input=source, output=output, state="failed", error=str(error)), 2))
    detector = load_detector(config.detector.model, config.detector.options())
    whole: Runner = run_twice if setup.two_pass else run

    def cover(job: Job, writer: RecordWriter) -> Report:
        segments = find_segments(job, config.anonymize.segment_s) if config.anonymize.segment_s else []
        if len(segments) > 1:
            try:
                return _reported(setup, _in_segments(segments, setup))(job, config, detector, writer, False)
            except NotSegmentable:
                writer.forget()
        return _reported(setup, whole)(job, config, detector, writer, False)

    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows") if task.rows is not None else None
        if rows is not None:
            rows.touch()
        outcome = do_task(replace(task, rows=rows), setup, cover, lambda _: None)
        return Answer(outcome, rows.read_text(encoding="utf-8") if rows is not None else "")


def _in_segments(segments: list[Segment], setup: Setup) -> Runner:
    def run_them(job: Job, config: Config, _: Detector, records: Recorder | None, __: bool) -> Report:
        return run_segments(job, config, segments, Executor(), setup.two_pass, records, keep_pixels=setup.report)

    return run_them


def _reported(setup: Setup, runner: Runner) -> Runner:
    """The runner, with a report on the moments at risk where that is wanted."""
    if not setup.report:
        return runner
    from facestream.pipeline.review.job_report import Reported

    return Reported(runner)


class ClusterDispatcher(Dispatcher):
    """Distributes the files over a cluster."""

    def _shared_out(self, config: Config) -> Config:
        """The settings, unchanged: the machines have their own cores, and compare settings with the batch's key."""
        return config

    def work(self) -> None:
        """Run until all files are processed. An interruption stops all tasks and removes unfinished outputs."""
        for line in self.batch.missing:
            fail(line)
            self.codes.append(2)
        ray = connect(self.batch.ray)
        self.busy: dict[Any, Task] = {}
        try:
            with self._table() as table:
                while self._dispatch(ray, table) or self.busy:
                    ready, _ = ray.wait(list(self.busy), num_returns=1)
                    for ticket in ready:
                        self._take_back(ray, ticket, table)
        finally:
            self._stop(ray)
            ray.shutdown()

    def _dispatch(self, ray: ModuleType, table: ProgressTable) -> bool:
        """Submit as many tasks as the cluster can take; returns whether there were any."""
        some = False
        max_busy = self.batch.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        while self.waiting and len(self.busy) < max_busy:
            index, job = self.waiting.pop(0)
            task = self._task(index, job)
            if task is None:
                continue
            # No output existed on submission; a lost worker may have finished one before the repetition.
            assert task.job.output is not None
            away = Job(os.path.abspath(task.job.source), task.job.output.absolute(), True)
            sent = replace(task, job=away, name=task.job.source)
            self.busy[remote(cover_file).remote(sent, self.setup)] = task
            table.start(task)
            some = True
        return some

    def _take_back(self, ray: ModuleType, ticket: Any, table: ProgressTable) -> None:
        task = self.busy.pop(ticket)
        table.end(task.index)
        try:
            answer: Answer = _result(ray, ticket)
        except Exception as e:  # lost too often, or the cluster itself is: the others may still be done
            lost = isinstance(e, ray.exceptions.RayError)
            why = f"its worker was lost {RETRIES + 1} times" if lost else (str(e).splitlines() or [""])[0]
            error = f"{task.job.source}: {why} ({type(e).__name__}); it is left out"
            source = os.path.abspath(task.job.source)
            output = str(_output(task))
            answer = Answer(Outcome(task.index, Entry(input=source, output=output, state="failed", error=error), 1))
        sweep(_output(task))
        outcome = answer.outcome
        if task.rows is not None and outcome.entry.has_output and not outcome.skipped:
            task.rows.write_text(answer.rows, encoding="utf-8")
        self._finish(outcome)

    def _stop(self, ray: ModuleType) -> None:
        """Stop running tasks and remove their temporary files."""
        for ticket in self.busy:
            ray.cancel(ticket, recursive=True)
        if self.busy:
            ray.wait(list(self.busy), num_returns=len(self.busy), timeout=_STOP_S)
        for task in self.busy.values():
            sweep(_output(task))


def _output(task: Task) -> Path:
    assert task.job.output is not None
    return task.job.output.absolute()


def connect(address: str) -> ModuleType:
    """Connect to Ray: `local` (this machine, for this run), `auto` (the cluster that this machine belongs to),
    HOST:PORT of one, or ray://HOST:PORT. Raises BadInput if none answers."""
    ray = ray_module()
    where: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    stop = signal.getsignal(signal.SIGTERM)
    try:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host:  # else Ray itself goes on trying for minutes
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
        ray.init(address, log_to_driver=False, logging_level="ERROR", configure_logging=True, **where)
    except Exception as e:  # it raises bare ones too
        first = (str(e).splitlines() or [""])[0].rstrip(".")
        raise BadInput(f"no Ray cluster answers ({first})", address, "ray start --head on one machine") from None
    finally:
        signal.signal(signal.SIGTERM, stop)  # Ray puts its own there, which leaves no time to clean up
    return ray
