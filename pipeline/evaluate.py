"""`facestream evaluate`: figures against truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from engines.detector import load
from pipeline.errors import BadConfig
from pipeline.flags import config_of, say, shared
from pipeline.leaks import LeakMeter, read_truth
from pipeline.pixels import measure
from pipeline.records import read_records
from pipeline.run import Job, run, run_stages
from pipeline.saved import Saved
from pipeline.twopass import run_twice


@click.group()
def evaluate() -> None:
    """Measure against truth."""


@evaluate.command()
@click.argument("video")
@click.argument("truth", type=click.Path(path_type=Path), metavar="TRUTH.txt")
@click.option("--two-pass", is_flag=True, help="as anonymize --two-pass would cover")
@click.option("--records", type=click.Path(path_type=Path), help="as these records cover, instead of detecting")
@click.option("--pixels", type=click.Path(path_type=Path), metavar="OUTPUT", help="as this covered video shows")
@click.option("--smallest", type=float, default=0.0, help="leave out faces with a shorter longer side, pixels")
@click.option("--json", "as_json", is_flag=True, help="the last line is one JSON object")
@shared
def leaks(
    video: str, truth: Path, two_pass: bool, records: Path | None, pixels: Path | None,
    smallest: float, as_json: bool, **flags: Any,
) -> int:  # fmt: skip
    """Share of true face-frames (MOT file) that would be left uncovered.

    By default the video is gone through and nothing is written. --pixels judges a covered video, by any tool,
    against its source by what is left of each face's detail: a solid cover or a blur shows best.
    """
    if sum((two_pass, records is not None, pixels is not None)) > 1:
        raise BadConfig("give one of --two-pass, --records and --pixels")
    config = config_of(flags)
    faces = read_truth(truth)
    lost = False
    if pixels is not None:
        result = measure(Path(video), pixels, faces, smallest)
    else:
        meter = LeakMeter(faces, config.cover, smallest)
        job = Job(video, None)
        if records is not None:
            report = run_stages(job, config, Saved(read_records(records, video), records), meter, not flags["quiet"])
        else:
            detector = load(config.detector.model, config.detector.options())
            report = (run_twice if two_pass else run)(job, config, detector, meter, not flags["quiet"])
        if report.lost:
            say("warning", report.lost)
        lost, result = report.lost is not None, meter.result()
    if as_json:
        print(json.dumps(result.as_dict()))
    else:
        print(
            f"{result.leaked} of {result.face_frames} face-frames leak ({result.leak_rate:.2%}; "
            f"{result.leak_rate_tau50:.2%} by more than half), longest run {result.longest_exposed_run} frames, "
            f"in {result.leaky_tracks} of {result.tracks} tracks; over-blur {result.overblur:.2f}"
        )
    return 1 if lost else 0
