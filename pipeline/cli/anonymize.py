"""`facestream anonymize`: copies of files and folders with all faces covered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from facestream.pipeline.cli.options import batching, config_of, covering, shared, sound
from facestream.pipeline.errors import BadInput
from facestream.pipeline.system import importing

if TYPE_CHECKING:
    from facestream.engines.base import Detector
    from facestream.pipeline.cli.jobs import Run
    from facestream.pipeline.config import Config
    from facestream.pipeline.run import Job, Recorder, Report


class Target(click.ParamType[Path]):
    """An output path; with a slash at its end it is a folder, which is created."""

    name = "PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(value)
        if str(value).endswith((os.sep, os.altsep or os.sep)):
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                raise BadInput(f"cannot create the folder ({e.strerror})", str(value)) from None
        return path


@click.command()
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option("-o", "--output", required=True, type=Target(), help="file, or folder for several inputs")
@covering
@sound
@click.option("--two-pass", is_flag=True, help="process each video twice, with a look-ahead of 120 frames; slower")
@click.option(
    "--records", type=click.Path(path_type=Path), metavar="FILE", help="write boxes and ids: .jsonl, .csv or .mot"
)
@click.option("--report", is_flag=True, help="write the moments at risk beside each output, see docs/review.md")
@batching
@shared
def anonymize(
    inputs: tuple[str, ...], output: Path, records: Path | None, two_pass: bool, report: bool, list_file: Path | None,
    resume: bool, manifest: Path | None, ray: str, **flags: Any,
) -> int:  # fmt: skip
    """Copy videos and images with all faces covered.

    Folders keep their structure. A bad file does not stop the others.
    """
    if not inputs and list_file is None:
        raise BadInput("no input is given", do="name files, folders or globs, or a --list")
    with importing():  # a third of a second of CPU, which --help does without
        from facestream.pipeline.batch.listed import Listed
        from facestream.pipeline.cli.jobs import check_files, jobs_of, run_all
        from facestream.pipeline.run import run
        from facestream.pipeline.video.uri import Kind, parse

    jobs = jobs_of(inputs, output, flags["overwrite"]) if inputs else []
    listed = Listed((), ())
    if list_file is not None:
        listed = Listed.read(list_file)
        jobs += listed.jobs(output, flags["overwrite"])
    alone = len(jobs) == 1 and jobs[0].output == output and not (resume or manifest or listed.missing or ray)
    if any(parse(job.source).kind is Kind.PIPE for job in jobs) and (two_pass or report or not alone):
        raise BadInput(
            "a pipe can be read only once", "INPUT", "without --two-pass, --report, --manifest, --resume and --ray"
        )
    if alone:
        runner: Run = _twice if two_pass else run
        if report:
            from facestream.pipeline.review.job_report import Reported

            runner = Reported(runner)
        return run_all(jobs, records, flags, runner)
    from facestream.pipeline.batch.run import Batch
    from facestream.pipeline.batch.run_batch import run_batch

    config = config_of(flags)
    check_files(jobs, config, flags, [records, manifest], [list_file] if list_file is not None else [])
    return run_batch(
        Batch(
            jobs, output, config, two_pass, records, manifest, resume, flags["overwrite"], flags["quiet"],
            config.anonymize.workers, listed.missing, ray, report,
        )
    )  # fmt: skip


def _twice(job: Job, config: Config, detector: Detector, notes: Recorder | None, progress: bool) -> Report:
    from facestream.pipeline.jobs.two_pass import run_twice

    return run_twice(job, config, detector, notes, progress)
