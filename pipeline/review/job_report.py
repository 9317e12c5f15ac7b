"""`anonymize --report`: the moments at risk and the estimate of a job, written beside its output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from facestream.engines.base import Detector
from facestream.pipeline.config import Config
from facestream.pipeline.review.command import RATE, Found, Recorders, found_of, stream_info
from facestream.pipeline.review.report import page, table
from facestream.pipeline.review.scout import Scout
from facestream.pipeline.run import Job, Recorder, Report
from facestream.pipeline.video.output import check, write_text

Runner = Callable[[Job, Config, Detector, Recorder | None, bool], Report]


def report_path(output: Path) -> Path:
    """Where the report on an output lies."""
    return output.with_name(output.name + ".report.html")


@dataclass(frozen=True, slots=True)
class Reported:
    """A runner whose jobs get a report: `runner` with a second detector on a sample of the frames."""

    runner: Runner

    def __call__(
        self, job: Job, config: Config, detector: Detector, records: Recorder | None = None, progress: bool = True
    ) -> Report:
        """See run(). BadInput where the report exists and may not be replaced."""
        if job.output is None:
            return self.runner(job, config, detector, records, progress)
        path = report_path(job.output)
        check(path, job.overwrite, [job.source])
        info = stream_info(Path(job.source))
        rate = float(info.rate or RATE)
        scout = Scout(config, info.frames, rate)
        keep = Recorders(*([records] if records is not None else []), scout)
        report = self.runner(job, config, detector, keep, progress)
        found = found_of(keep.rows, scout.notes, scout.size, rate, config)
        write_text(path, text(found, Path(job.source).name, scout.notes.model), "the report")
        return report


def text(found: Found, name: str, model: str) -> str:
    """The report as HTML."""
    rows = [(span, f"{100 * m.risk:.0f} %", str(m.frame), m.describe()) for span, m in found.spans()]
    note = f"A second detector ({model}) ran on {found.estimate.frames} frames."
    body = [table(("when", "risk", "frame", "why"), rows) if rows else "No moment is at risk."]
    return page(f"Moments at risk in {name}", found.estimate.describe() + ".", note, body)
