"""A file gone through twice: first to know where every face is, then to cover it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from facestream.engines.base import Detector
from facestream.engines.checked import checked
from facestream.pipeline.config import Config
from facestream.pipeline.jobs.replay import RecordReplay
from facestream.pipeline.records import Record, record
from facestream.pipeline.run import Job, Recorder, Report, run_stages
from facestream.pipeline.stages.chain import FacePipeline
from facestream.pipeline.types import Frame, TrackedFrame
from msgspec import structs

WINDOW = 120  # frames that the first pass looks ahead: four seconds, without their pictures
BRIDGE_S = 2.0  # a face that was gone for so long and comes back is covered in between


class FrameShape:
    """What is kept of a picture while its frame waits in the first pass."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height


class PixelFreePipeline(FacePipeline):
    """A line whose frames wait without their pictures, so that a hundred of them cost little."""

    def _held(self, frame: Frame) -> Frame:
        shape: Any = FrameShape(frame.picture.width, frame.picture.height)
        return replace(frame, picture=shape)


class RecordBuffer:
    """Records of one video, kept."""

    def __init__(self) -> None:
        self.rows: dict[int, Record] = {}

    def write(self, tracked: TrackedFrame, source: str) -> None:
        row = checked(record(tracked, source), Record)
        self.rows[row.frame] = row


def first_pass(config: Config) -> Config:
    """The configuration of the first pass."""
    ahead = {"lookahead": WINDOW, "coast_s": max(BRIDGE_S, config.tracker.coast_s)}
    return structs.replace(config, tracker=structs.replace(config.tracker, **ahead))


def run_twice(
    job: Job, config: Config, detector: Detector, records: Recorder | None = None, progress: bool = True
) -> Report:
    """Do one job with a look-ahead of four seconds, whose wait nobody notices; see `run_stages` for the rest.

    Gaps of up to two seconds are bridged, and faces are followed both ways as far as their looks reach. The
    source is decoded twice. The report's figures are those of both passes.
    """
    records_of_pass = RecordBuffer()
    line = PixelFreePipeline(detector, first_pass(config), config.tracker.coast_s)
    first = run_stages(Job(job.source, None), config, line, records_of_pass, progress)
    second = run_stages(job, config, RecordReplay(records_of_pass.rows, Path(job.source)), records, progress)
    second.seconds += first.seconds
    second.cpu_s += first.cpu_s
    return second
