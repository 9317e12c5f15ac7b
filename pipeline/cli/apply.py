"""`facestream apply`: cover the faces of saved records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from facestream.pipeline.cli.jobs import check_files, jobs_of, report_job
from facestream.pipeline.cli.options import config_of, covering, sound
from facestream.pipeline.jobs.replay import RecordReplay
from facestream.pipeline.records import read_records
from facestream.pipeline.run import run_stages


@click.command()
@click.argument("input_", metavar="INPUT")
@click.argument("records", type=click.Path(path_type=Path), metavar="FILE.jsonl")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="file to write")
@covering
@sound
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="settings, see config.toml")
@click.option("--overwrite", is_flag=True, help="replace an existing output")
@click.option("--quiet", is_flag=True, help="no progress bar and no summary")
def apply(input_: str, records: Path, output: Path, **flags: Any) -> int:
    """Cover the faces of saved records, edited by hand or not (.jsonl, .csv or .mot)."""
    config = config_of(flags)
    (job,) = jobs_of((input_,), output, flags["overwrite"])
    check_files([job], config, flags, [], [records])
    report = run_stages(
        job, config, RecordReplay(read_records(records, job.source), records), progress=not flags["quiet"]
    )
    report_job(job, report, flags["quiet"])
    return 1 if report.lost else 0
