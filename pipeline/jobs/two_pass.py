"""Two passes over a file: the first tracks all faces with a long look-ahead, the second covers them."""

from __future__ import annotations

from pathlib import Path

from facestream.engines.base import Detector
from facestream.engines.checked import checked
from facestream.pipeline.config import Config
from facestream.pipeline.jobs.replay import RecordReplay
from facestream.pipeline.records import Record, record
from facestream.pipeline.run import Job, Recorder, Report, run_stages
from facestream.pipeline.stages.chain import FacePipeline
from facestream.pipeline.types import TrackedFrame
from msgspec import structs


class RecordBuffer:
    """Keeps the records of one video."""

    def __init__(self) -> None:
        self.rows: dict[int, Record] = {}

    def write(self, tracked: TrackedFrame, source: str) -> None:
        row = checked(record(tracked, source), Record)
        self.rows[row.frame] = row


def first_pass(config: Config) -> Config:
    """The configuration of the first pass."""
    settings = config.advanced.two_pass
    ahead = {"lookahead": settings.lookahead, "coast_s": max(settings.bridge_s, config.tracker.coast_s)}
    return structs.replace(config, tracker=structs.replace(config.tracker, **ahead))


def run_twice(
    job: Job, config: Config, detector: Detector, records: Recorder | None = None, progress: bool = True
) -> Report:
    """Run one job in two passes, with a look-ahead of four seconds; otherwise like `run_stages`.

    Gaps of up to two seconds are filled, and faces are tracked in both directions as far as they match. The
    source is decoded twice. The report covers both passes.
    """
    records_of_pass = RecordBuffer()
    pipeline = FacePipeline(detector, first_pass(config), config.tracker.coast_s, keep_pixels=False)
    first = run_stages(Job(job.source, None), config, pipeline, records_of_pass, progress)
    second = run_stages(job, config, RecordReplay(records_of_pass.rows, Path(job.source)), records, progress)
    second.seconds += first.seconds
    second.cpu_s += first.cpu_s
    return second
