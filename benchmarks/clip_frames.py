"""python -m facestream.benchmarks.clip_frames CLIPS: misses and false alarms of detectors in frames of real clips.

CLIPS holds NAME.truth.txt (MOT rows, frames from 1) beside NAME.mp4, .avi or .mkv. A face counts as found when a box of
the score overlaps it by an IoU of 0.3; a box that overlaps no labelled face by 0.1 is a false alarm. Detectors are
compared at the score at which each misses as many faces as the reference at its own: equal misses, then false alarms.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import click
import numpy as np
from facestream.benchmarks.baselines import BASELINES, load_baseline
from facestream.benchmarks.clips import clips_in
from facestream.engines.base import Detector
from facestream.engines.boxes import F32, Array, iou_xyxy
from facestream.engines.command import finish
from facestream.engines.errors import BadInput
from facestream.engines.loader import load_detector, shipped
from facestream.engines.options import DetectorOptions
from facestream.pipeline.evaluate.leaks import read_truth
from facestream.train.test_scales import Scales

LOWEST = 0.01  # score from which boxes are kept
FOUND = 0.3
APART = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """A frame, RGB uint8 [H, W, 3], and its faces xyxy [N, 4] in its pixels; labelled: whether all faces are."""

    rgb: Array
    faces: F32
    labelled: bool


@dataclass(frozen=True, slots=True)
class Row:
    """missed: share of the faces; false_alarms: boxes a frame, in the clips whose faces are all labelled."""

    detector: str
    score: float
    missed: float
    false_alarms: float


def samples(folder: Path, every: int, longest: int, unlabelled: frozenset[str]) -> list[Sample]:
    """Every N-th frame of each clip from its first on, shrunk to `longest` px. BadInput when there is no clip."""
    out = []
    for name, video, listing in clips_in(folder):
        truth = read_truth(listing)
        with av.open(str(video)) as container:
            for number, frame in enumerate(container.decode(video=0), 1):
                if number % every != 1 % every:
                    continue
                scale = min(1.0, longest / max(frame.width, frame.height))
                rgb = frame.reformat(round(frame.width * scale), round(frame.height * scale), "rgb24").to_ndarray()
                faces = np.array(list(truth.get(number - 1, {}).values()), np.float32).reshape(-1, 4) * scale
                out.append(Sample(rgb, faces, name not in unlabelled))
    if not out:
        raise BadInput("no clip beside its NAME.truth.txt", str(folder))
    return out


def scores_of(detector: Detector, frames: list[Sample]) -> tuple[F32, F32]:
    """The best score on each face (0: nothing there), and the scores of false alarms in labelled frames."""
    faces = []
    false = []
    for frame in frames:
        found = Scales().detect(detector, frame.rgb)
        iou = iou_xyxy(frame.faces, found.xyxy)
        faces.append(np.where(iou >= FOUND, found.scores[None], 0).max(1, initial=0))
        if frame.labelled:
            false.append(found.scores[(iou < APART).all(0)])
    return np.concatenate(faces).astype(np.float32), np.concatenate(false).astype(np.float32)


def at(name: str, faces: F32, false: F32, frames: int, score: float) -> Row:
    return Row(
        name, round(score, 4), round(float((faces < score).mean()), 4), round((false >= score).sum() / frames, 3)
    )


def score_with_misses(faces: F32, share: float) -> float:
    """The highest score at which at most this share of the faces is missed."""
    allowed = int(share * len(faces) + 1e-6)
    return float(np.sort(faces)[min(allowed, len(faces) - 1)])


@click.command()
@click.argument("clips", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--engine", "engines", multiple=True, help="an .onnx file, beside the shipped models; repeatable")
@click.option("--reference", default="yunet", show_default=True, help="whose misses the others are given")
@click.option("--score", default=0.2, show_default=True, help="of the reference")
@click.option("--every", default=7, show_default=True, help="look at each N-th frame")
@click.option("--longest", default=960, show_default=True, help="frames are shrunk to this, px")
@click.option("--unlabelled", default="parisstreet,armwrestle", show_default=True, help="clips without false alarms")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object a line")
def command(
    clips: Path, engines: tuple[str, ...], reference: str, score: float, every: int, longest: int, unlabelled: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Misses and false alarms of the shipped models and the baselines at `score`, then at equal misses."""
    options = DetectorOptions(threshold=LOWEST)
    detectors: dict[str, Detector] = {name: load_baseline(name, options) for name in BASELINES}
    detectors |= {Path(name).stem: load_detector(name, options) for name in (*shipped(), *engines)}
    frames = samples(clips, every, longest, frozenset(unlabelled.split(",")))
    labelled = max(1, sum(frame.labelled for frame in frames))
    found = {name: scores_of(detector, frames) for name, detector in detectors.items()}
    share = at(reference, *found[reference], labelled, score).missed
    rows = []
    for name, (faces, false) in found.items():
        rows += [at(name, faces, false, labelled, s) for s in (score, score_with_misses(faces, share))]
    if as_json:
        print("\n".join(json.dumps(asdict(row)) for row in rows))
        return
    print(f"{len(frames)} frames, {sum(len(frame.faces) for frame in frames)} faces")
    for row in rows:
        print(
            f"{row.detector:<14} score {row.score:.3f}: {100 * row.missed:5.1f} % missed, {row.false_alarms:6.2f} false"
        )


if __name__ == "__main__":
    finish(command, "clip_frames")
