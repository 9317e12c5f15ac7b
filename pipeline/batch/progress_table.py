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
    # Lines of results go to standard output: through the table where both are the terminal, else past it.
    return Table(*bars, console=console, transient=True, redirect_stdout=sys.stdout.isatty())


class ProgressTable:
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
