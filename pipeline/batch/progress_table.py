"""The progress table of a batch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from facestream.pipeline.batch.worker import Progress, Task
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Table


def progress_table(console: Console) -> Table:
    bars = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    # Result lines go to stdout: through the table if both are the terminal, otherwise directly.
    return Table(*bars, console=console, transient=True, redirect_stdout=sys.stdout.isatty())


class ProgressTable:
    """The progress table: a line per file in progress, and one for the batch. Does nothing if table is None."""

    def __init__(self, table: Table | None, files: int) -> None:
        self.table = table
        self.lines: dict[int, Any] = {}
        self.all = table.add_task("files", total=files, rate="") if table is not None else None

    def start(self, task: Task) -> None:
        if self.table is not None:
            self.lines[task.index] = self.table.add_task(Path(task.job.source).name, total=None, rate="")

    def update(self, progress: Progress) -> None:
        if self.table is not None and (line := self.lines.get(progress.index)) is not None:
            speed = next((t.speed for t in self.table.tasks if t.id == line), None)
            rate = f"{speed:.0f} frames/s" if speed else ""
            self.table.update(line, completed=progress.frames, total=progress.total, rate=rate)

    def end(self, index: int) -> None:
        if self.table is not None and self.all is not None:
            if (line := self.lines.pop(index, None)) is not None:
                self.table.remove_task(line)
            self.table.advance(self.all)
