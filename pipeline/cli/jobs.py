"""What the commands on files share: inputs to jobs, and jobs run one after the other."""

from __future__ import annotations

import logging
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
from facestream.pipeline.video.uri import Kind, expand, parse

log = logging.getLogger(__name__)

Run = Callable[[Job, Config, Detector, Recorder | None, bool], Report]


def jobs_of(inputs: tuple[str, ...], output: Path, overwrite: bool) -> list[Job]:
    """One job a file. A single file goes to the output itself, anything else into it as a folder."""
    for text in inputs:
        uri = parse(text)
        if uri.kind not in (Kind.FILE, Kind.IMAGE, Kind.FOLDER):
            raise BadInput("not a file or folder", uri.shown, "anonymize works on files")
    files = expand(inputs, skip=output if output.is_dir() else None)
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
    stamp = config.cover.hide.removeprefix("image:") if config.cover.hide.startswith("image:") else None
    read = [*(job.source for job in jobs), flags.get("config_file"), config.detector.model, stamp, *inputs]
    check_distinct(read, [*(job.output for job in jobs), *outputs])


def run_all(jobs: list[Job], records: Path | None, flags: dict[str, Any], do: Run = run) -> int:
    """Run the jobs one after the other; a bad one does not stop the rest. The exit code is the worst one's."""
    config = config_of(flags)
    check_files(jobs, config, flags, [records])
    detector = detector_of(config)
    for written in (records, *(job.output for job in jobs)):
        if written is not None:
            sweep(written, dead=False)  # what a run left that was killed
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
        print(f"{job.source}{arrow}: {report.line()}")
