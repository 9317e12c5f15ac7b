"""Shared by the commands on files: turns inputs into jobs, and runs jobs one after the other."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from facestream.engines.base import Detector
from facestream.pipeline.batch.listed import place
from facestream.pipeline.cli.options import config_of
from facestream.pipeline.config import Config
from facestream.pipeline.detectors import detector_of
from facestream.pipeline.errors import BadInput, UserError
from facestream.pipeline.log import fail
from facestream.pipeline.records import RecordSink
from facestream.pipeline.run import Job, Recorder, Report, run
from facestream.pipeline.video.output import check_distinct, sweep
from facestream.pipeline.video.pipes import STDOUT
from facestream.pipeline.video.uri import Kind, expand, parse

log = logging.getLogger(__name__)

Run = Callable[[Job, Config, Detector, Recorder | None, bool], Report]


def jobs_of(inputs: tuple[str, ...], output: Path, overwrite: bool) -> list[Job]:
    """One job per file. A single file is written to `output` itself, several into the folder `output`."""
    pipes = [text for text in inputs if parse(text).kind is Kind.PIPE]
    if pipes and (len(inputs) > 1 or output.is_dir()):
        raise BadInput(
            "a pipe is one input, and goes to one file", parse(pipes[0]).redacted, "name it alone: - -o out.mp4"
        )
    if pipes:
        return [Job(pipes[0], output, overwrite)]
    for text in inputs:
        uri = parse(text)
        if uri.kind not in (Kind.FILE, Kind.IMAGE, Kind.FOLDER):
            raise BadInput("not a file or folder", uri.redacted, "anonymize works on files")
    left_out: list[str] = []
    files = expand(inputs, output if output.is_dir() else None, left_out)
    for line in left_out:
        log.warning("left out: %s", line)
    single = len(inputs) == 1 and files[0].path == Path(inputs[0])
    if single and not output.is_dir():
        return [Job(str(files[0].path), output, overwrite)]
    if output.exists() and not output.is_dir():
        raise BadInput("is a file, and several inputs need a folder", str(output))
    return place(files, output, overwrite)


def check_files(
    jobs: Iterable[Job],
    config: Config,
    flags: dict[str, Any],
    outputs: Iterable[Path | None],
    inputs: Iterable[Path] = (),
) -> None:
    """No output of a command may be a file that it reads, nor another output. Raises BadInput before any work."""
    cover_image = config.cover.hide.removeprefix("image:") if config.cover.hide.startswith("image:") else None
    read = [*(job.source for job in jobs), flags.get("config_file"), config.detector.model, cover_image, *inputs]
    check_distinct(read, [*(job.output for job in jobs), *outputs])


def run_all(jobs: list[Job], records: Path | None, flags: dict[str, Any], do: Run = run) -> int:
    """Run the jobs one after the other; a failed one does not stop the rest. Returns the worst exit code."""
    config = config_of(flags)
    check_files(jobs, config, flags, [records])
    detector = detector_of(config)
    for written in (records, *(job.output for job in jobs)):
        if written is not None:
            sweep(written, dead=False)  # leftovers of a killed run
    notes = RecordSink(records, flags["overwrite"]) if records else None
    worst = 0
    done = 0

    def work(job: Job) -> Report:
        return do(job, config, detector, notes, not flags["quiet"])

    try:
        for job in jobs:
            code = _one(work, job, notes, flags["quiet"], len(jobs) > 1)
            done += code != 2
            worst = max(worst, code)
    except BaseException:
        if notes:
            notes.abort()
        raise
    if notes:
        notes.close() if done else notes.abort()
    if len(jobs) > 1 and not flags["quiet"]:
        print(f"{done} of {len(jobs)} files done")
    return worst


def _one(do: Callable[[Job], Report], job: Job, notes: RecordSink | None, quiet: bool, many: bool) -> int:
    try:
        report = do(job)
    except UserError as e:
        if notes:
            notes.rollback()
        if not many:
            raise
        fail(e)
        return e.exit_code
    if notes:
        notes.commit()
    report_job(job, report, quiet)
    return 1 if report.lost else 0


def report_job(job: Job, report: Report, quiet: bool) -> None:
    for warning in report.warnings:
        log.warning("%s: %s", job.source, warning)
    if report.lost:
        log.warning("%s", report.lost)
    if not quiet:
        arrow = f" -> {job.output}" if job.output else ""
        print(f"{job.source}{arrow}: {report.line()}", file=sys.stderr if job.output == STDOUT else None)
