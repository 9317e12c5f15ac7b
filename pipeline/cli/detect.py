"""`facestream detect`: the faces of each frame as records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from facestream.pipeline.cli.options import shared
from facestream.pipeline.system import importing


@click.command()
@click.argument("input_", metavar="INPUT")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="records: .jsonl, .csv, .mot"
)
@shared
def detect(input_: str, output: Path, **flags: Any) -> int:
    """Write the faces of each frame as records, without a video."""
    with importing():  # a third of a second of CPU, which --help does without
        from facestream.pipeline.cli.jobs import run_all
        from facestream.pipeline.run import Job
        from facestream.pipeline.video.uri import Kind, expand, parse

    pipe = parse(input_).kind is Kind.PIPE
    jobs = [Job(input_, None)] if pipe else [Job(str(file.path), None) for file in expand([input_])]
    return run_all(jobs, output, flags)
