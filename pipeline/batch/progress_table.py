"""The progress bars of a batch, on a terminal: one for all files, and one for each that is being processed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from facestream.pipeline.batch.worker import Progress, Task


class ProgressTable:
    """Bars below each other: the batch's, then one per file in progress. Draws nothing if stream is None.

    files: how many files the batch has. stream: the terminal.
    """

    def __init__(self, stream: TextIO | None, files: int) -> None:
        self.stream = stream
        self.bars: dict[int, Any] = {}
        self.all = self._bar("files", "file", 0, files)

    def start(self, task: Task) -> None:
        """A file's processing begins."""
        taken = {bar.pos for bar in self.bars.values() if bar is not None}
        place = next(n for n in range(1, len(taken) + 2) if -n not in taken)  # tqdm counts downwards
        self.bars[task.index] = self._bar(Path(task.job.source).name, "frame", place, None)

    def update(self, progress: Progress) -> None:
        """A file has reached this frame."""
        if (bar := self.bars.get(progress.index)) is not None:
            bar.total = progress.total
            bar.update(progress.frames - bar.n)

    def end(self, index: int) -> None:
        """A file is done, or given up."""
        if (bar := self.bars.pop(index, None)) is not None:
            bar.close()
        if self.all is not None:
            self.all.update()

    def close(self) -> None:
        """Remove all bars."""
        for bar in (*self.bars.values(), self.all):
            if bar is not None:
                with suppress(OSError):  # the terminal is gone
                    bar.close()
        self.bars.clear()

    def _bar(self, name: str, unit: str, place: int, total: int | None) -> Any:
        if self.stream is None:
            return None
        from tqdm import tqdm

        return tqdm(
            total=total, desc=name, unit=unit, position=place, leave=False, file=self.stream, dynamic_ncols=True
        )
