"""`facestream evaluate`: figures against truth."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from engines.detector import load
from pipeline import mot
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


@evaluate.command()
@click.argument("detections", type=click.Path(path_type=Path))
@click.argument("truth", type=click.Path(path_type=Path))
@click.option("--cmc", is_flag=True, help="give the tracker the camera's motion from SEQ/gmc.txt")
@click.option("--interpolate", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="fill gaps up to this")
@click.option("--high", type=click.FloatRange(0, 1), default=mot.HIGH, show_default=True, help="as [tracker] high")
@click.option("--birth", type=click.FloatRange(0, 1), default=mot.BIRTH, show_default=True, help="as [tracker] birth")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="settings, see config.toml")
@click.option("--json", "as_json", is_flag=True, help="the last line is one JSON object")
def tracks(
    detections: Path, truth: Path, cmc: bool, interpolate: float, high: float, birth: float, as_json: bool, **flags: Any
) -> int:
    """HOTA, MOTA, IDF1 and id switches of the tracker on given detections.

    DETECTIONS holds SEQ/det/det.txt, TRUTH SEQ/gt/gt.txt and SEQ/seqinfo.ini, as MOT17 does; it may be one
    folder. Only boxes that were detected are scored (and those between, with --interpolate), not those that
    the tracker guesses. Detections with a score under 0.1 are left out. --high and --birth fit the detector that made
    det.txt, and stand in the place of the configuration's, which fit the shipped one.
    """
    config = config_of(flags).tracker.model_copy(update={"high": high, "birth": birth})
    sequences, left_out = mot.read_sequences(detections, truth, cmc)
    if left_out:
        say("warning", f"without detections or without truth, left out: {', '.join(left_out)}")
    scores = mot.evaluate(sequences, truth, config, interpolate)
    wide = max(map(len, scores))
    print(f"{'':{wide}}   HOTA   MOTA   IDF1   IDSW")
    for name, score in scores.items():
        print(f"{name:{wide}} {score.HOTA:6.2f} {score.MOTA:6.2f} {score.IDF1:6.2f} {score.IDSW:6d}")
    if as_json:
        print(json.dumps(asdict(scores["all"])))
    return 0
