"""`facestream anonymize`: files and folders to the same with faces covered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from facestream.engines.base import Detector
from facestream.pipeline.batch.listed import Listed
from facestream.pipeline.cli.jobs import check_files, jobs_of, run_all
from facestream.pipeline.cli.options import batching, config_of, covering, shared
from facestream.pipeline.config import Config
from facestream.pipeline.errors import BadInput
from facestream.pipeline.run import Job, Recorder, Report, run


class Target(click.ParamType[Path]):
    """An output; with a slash at its end it is a folder, and made."""

    name = "PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(value)
        if str(value).endswith(os.sep):
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                raise BadInput(f"cannot make the folder ({e.strerror})", str(value)) from None
        return path


@click.command()
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option("-o", "--output", required=True, type=Target(), help="file, or folder for several inputs")
@covering
@click.option("--two-pass", is_flag=True, help="go through each video twice: later frames tell what earlier ones hid")
@click.option(
    "--records", type=click.Path(path_type=Path), metavar="FILE", help="write what was found: .jsonl, .csv or .mot"
)
@batching
@shared
def anonymize(
    inputs: tuple[str, ...], output: Path, records: Path | None, two_pass: bool, list_file: Path | None,
    resume: bool, manifest: Path | None, ray: str, **flags: Any,
) -> int:  # fmt: skip
    """Write videos and images again with every face covered.

    Folders keep their structure; of several files, one bad one does not stop the rest.
    """
    if not inputs and list_file is None:
        raise BadInput("no input is given", do="name files, folders or globs, or a --list")
    jobs = jobs_of(inputs, output, flags["overwrite"]) if inputs else []
    listed = Listed((), ())
    if list_file is not None:
        listed = Listed.read(list_file)
        jobs += listed.jobs(output, flags["overwrite"])
    alone = len(jobs) == 1 and jobs[0].output == output and not (resume or manifest or listed.missing or ray)
    if alone:
        return run_all(jobs, records, flags, _twice if two_pass else run)
    from facestream.pipeline.batch.run import Batch, run_batch

    config = config_of(flags)
    check_files(jobs, config, flags, [records, manifest], [list_file] if list_file is not None else [])
    return run_batch(
        Batch(
            jobs, output, config, two_pass, records, manifest, resume, flags["overwrite"], flags["quiet"],
            config.anonymize.workers, listed.missing, ray,
        )
    )  # fmt: skip


def _twice(job: Job, config: Config, detector: Detector, notes: Recorder | None, progress: bool) -> Report:
    from facestream.pipeline.jobs.two_pass import run_twice

    return run_twice(job, config, detector, notes, progress)
