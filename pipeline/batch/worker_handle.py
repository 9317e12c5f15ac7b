"""A worker process as the batch sees it."""

from __future__ import annotations

from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from typing import Any

from facestream.pipeline.batch.worker import Setup, Task, work

_STOP_S = 10.0  # for which a worker may clean up after itself


class WorkerHandle:
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
