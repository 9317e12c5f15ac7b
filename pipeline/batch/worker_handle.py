"""The parent's handle on a worker process."""

from __future__ import annotations

from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from typing import Any

from facestream.pipeline.batch.worker import Setup, Task, work

_STOP_S = 10.0  # seconds in which a worker may clean up


class WorkerHandle:
    """A worker process and its current task."""

    def __init__(self, setup: Setup) -> None:
        context = get_context("spawn")  # a fork would not copy threads and libraries' state correctly
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
        with suppress(OSError):  # the worker is dead: the next recv on the pipe reports it
            self.pipe.send(task)

    def dismiss(self) -> None:
        with suppress(OSError):
            self.pipe.send(None)
        self.process.join(_STOP_S)
        self.stop()

    def stop(self) -> int | None:
        """Terminate the process, kill it if needed; it removes its unfinished output. Returns its exit code."""
        if self.process.is_alive():
            self.process.join(0.2)  # it may be exiting by itself, and its own exit code is the informative one
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(_STOP_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()
        return self.process.exitcode
