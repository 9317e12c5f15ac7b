"""`facestream evaluate`: metrics against ground truth."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from facestream.engines.options import DetectorOptions
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
    """Measure leaks and tracking against ground truth."""


@evaluate.command()
@click.argument("video")
@click.argument("truth", type=click.Path(path_type=Path), metavar="TRUTH.txt")
@click.option("--two-pass", is_flag=True, help="measure the covers of anonymize --two-pass")
@click.option("--records", type=click.Path(path_type=Path), help="measure the covers of these records; no detection")
@click.option("--pixels", type=click.Path(path_type=Path), metavar="OUTPUT", help="measure this anonymised video")
@click.option("--against", type=click.Choice(["deface"]), help="anonymise with this tool too, compare both by pixels")
@click.option("--command", metavar="PATH", help="the executable for --against")
@click.option("--redetect", type=click.Choice(["yunet", "centerface"]), help="run this detector on the output too")
@click.option("--pictures", type=click.Path(path_type=Path), metavar="DIR", help="write PNGs of when and what leaks")
@click.option("--smallest", type=float, default=0.0, help="ignore faces whose longer side is below this (px)")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object on the last line")
@shared
def leaks(
    video: str, truth: Path, two_pass: bool, records: Path | None, pixels: Path | None, against: str | None,
    command: str | None, redetect: str | None, pictures: Path | None, smallest: float, as_json: bool, **flags: Any,
) -> int:  # fmt: skip
    """Share of ground-truth face-frames (MOT file) that are left uncovered.

    By default the faces are detected as `anonymize` would, and nothing is written. --pixels measures an anonymised
    video of any tool, by how much of each face's detail is left; this is most exact for solid covers and blur.
    """
    if sum((two_pass, records is not None, pixels is not None)) > 1 or (against and pixels):
        raise BadConfig("give one of --two-pass, --records and --pixels, and --against not with --pixels")
    if redetect and not (pixels or against):
        raise BadConfig("there is no output to run it on", "--redetect", "give --pixels OUTPUT or --against")
    method = CoverMethod(Path(video), config_of(flags), two_pass, records, not flags["quiet"])
    faces = read_truth(truth)
    again = None
    if redetect:
        again = benchmarks("baselines", "--redetect").load_baseline(redetect, DetectorOptions(threshold=0.5))
    strip = Filmstrip() if pictures else None
    others = {}
    with tempfile.TemporaryDirectory() as folder:
        if against:
            pixels = Path(folder, "ours.mp4")
            theirs = Path(folder, "theirs.mp4")
            method.cover(pixels, None)
            benchmarks("deface", "--against").cover_with(against, command, Path(video), theirs)
            others[against] = measure(Path(video), theirs, faces, smallest, again).result()
        if pixels is not None:
            tally = measure(Path(video), pixels, faces, smallest, again, strip)
        else:
            meter = LeakMeter(faces, method.config.cover, smallest, strip)
            method.cover(None, meter)
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
        print(_as_text(result))
        for name, other in others.items():
            print(f"{name}: {_as_text(other)}")
    return 1 if method.lost else 0


class CoverMethod:
    """How the video is anonymised: in one pass, in two passes, or from records."""

    def __init__(self, video: Path, config: Config, two_pass: bool, records: Path | None, progress: bool) -> None:
        self.video = video
        self.config = config
        self.two_pass = two_pass
        self.records = records
        self.progress = progress
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


def _as_text(result: Leaks) -> str:
    again = "" if result.redetected is None else f"; {result.redetected:.2%} redetected"
    return (
        f"{result.leaked} of {result.face_frames} face-frames leak ({result.leak_rate:.2%}; "
        f"{result.leak_rate_tau50:.2%} by more than half), longest run {result.longest_exposed_run} frames, "
        f"in {result.leaky_tracks} of {result.tracks} tracks; over-blur {result.overblur:.2f}{again}"
    )


@evaluate.command()
@click.argument("detections", type=click.Path(path_type=Path))
@click.argument("truth", type=click.Path(path_type=Path))
@click.option("--cmc", is_flag=True, help="use the camera motion in SEQ/gmc.txt")
@click.option("--interpolate", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="fill gaps up to this")
@click.option(
    "--high-score", type=click.FloatRange(0, 1), default=mot.HIGH, show_default=True, help="tracker.high_score"
)
@click.option(
    "--new-track-score", type=click.FloatRange(0, 1), default=mot.BIRTH, show_default=True,
    help="tracker.new_track_score",
)  # fmt: skip
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="settings, see config.toml")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object on the last line")
def tracks(
    detections: Path,
    truth: Path,
    cmc: bool,
    interpolate: float,
    high_score: float,
    new_track_score: float,
    as_json: bool,
    **flags: Any,
) -> int:
    """HOTA, MOTA, IDF1 and id switches of the tracker on given detections.

    DETECTIONS contains SEQ/det/det.txt, TRUTH contains SEQ/gt/gt.txt and SEQ/seqinfo.ini, as in MOT17; both may be
    the same folder. Only detected boxes are scored (and interpolated ones, with --interpolate), not predicted ones.
    Detections with a score under 0.1 are ignored. --high-score and --new-track-score suit the detector of det.txt and
    replace the configuration's values, which suit the shipped detector.
    """
    config = structs.replace(config_of(flags).tracker, high_score=high_score, new_track_score=new_track_score)
    sequences, left_out = mot.read_sequences(detections, truth, cmc)
    if left_out:
        log.warning("skipped, without detections or without ground truth: %s", ", ".join(left_out))
    scores = mot.evaluate(sequences, truth, config, interpolate)
    width = max(map(len, scores))
    print(f"{'':{width}}   HOTA   MOTA   IDF1   IDSW")
    for name, score in scores.items():
        print(f"{name:{width}} {score.HOTA:6.2f} {score.MOTA:6.2f} {score.IDF1:6.2f} {score.IDSW:6d}")
    if as_json:
        print(json.dumps(asdict(scores["all"])))
    return 0


@evaluate.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("covered", type=click.Path(path_type=Path))
@click.option("--around", is_flag=True, help="the attackers may use what is around the covers, too")
@click.option("--json", "as_json", is_flag=True, help="the last line is one JSON object")
@shared
def attack(source: Path, covered: Path, around: bool, as_json: bool, **flags: Any) -> int:
    """Measure whether the covers of a video defeat a face matcher. SOURCE is the video, COVERED any tool's output.

    Of each person who is clearly visible for a second, frames of one time are the gallery, frames of another the probe.
    Three attackers: a stock matcher (dlib's) that knows uncovered faces; the same with a gallery that is covered the
    same way; and one that compares the covers' colours. Rank-1 is the share of probes that get the right name. Needs
    the extra `attack`.
    """
    from facestream.pipeline.evaluate.attack import attack as measure_attack

    people, scores = measure_attack(source, covered, config_of(flags), around, not flags["quiet"])
    print(f"{people} people; chance {1 / people:.1%} rank-1, 50 % equal error rate")
    for name, one in scores.items():
        suffix = "" if one.low > 1 / people else ", as by chance"
        rank1 = f"rank-1 {one.rank1:6.1%} ({one.low:.1%} to {one.high:.1%})"
        print(f"{name:24s} {rank1}, equal error {one.eer:.1%}{suffix}")
    if as_json:
        rows = {name: {k: round(v, 4) for k, v in asdict(one).items()} for name, one in scores.items()}
        print(json.dumps({"people": people, "chance": round(1 / people, 4), "attackers": rows}))
    return 0
