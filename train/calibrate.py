"""python -m train.calibrate WEIGHTS --data VAL: scores that mean what they say, and one threshold for every net.

A net's logits get the gain and the shift of a logistic regression (Platt, 1999) of "is this box a face" on the logit,
so that a score is the share of such boxes on the validation pictures that are faces; or, with --missed, a shift alone,
which puts the program's default where that share of the faces is missed. The program's default of 0.2 then asks the
same of every net: its own default threshold is the raw score that becomes 0.2. Both are kept beside the
weights and become part of the graph that build_engine.py writes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from facestream.engines.boxes import F32, Array, iou_xyxy
from facestream.engines.command import finish
from facestream.engines.options import DetectorOptions
from facestream.engines.torch_engine import TorchDetector
from facestream.engines.types import Detections
from facestream.train.checkpoint import load_weights, save_weights
from facestream.train.data import Labelled, read_image
from facestream.train.model import Deploy
from facestream.train.test_scales import Scales
from facestream.train.wider import missed, read_validation
from torch.nn import functional as F

LOWEST = 0.003  # scores under this take no part


@dataclass(frozen=True, slots=True)
class Calibration:
    """calibrated logit = gain * logit + shift. threshold: the raw score that becomes the program's default.

    missed: share of the faces below that.
    """

    gain: float
    shift: float
    threshold: float
    missed: float


def evidence(found: list[Detections], images: list[Labelled]) -> tuple[F32, Array]:
    """The score of each detection and whether it is a face: IoU 0.5 or more with one, each face once, the best first.

    Detections on ignore regions (IoU 0.3 or more) are left out.
    """
    scores = []
    right = []
    for detections, item in zip(found, images, strict=True):
        faces = item.xyxy[~item.ignore]
        doubtful = item.xyxy[item.ignore]
        taken = np.zeros(len(faces), bool)
        for i in np.argsort(-detections.scores, kind="stable"):
            box = detections.xyxy[i : i + 1]
            iou = np.where(taken, 0, iou_xyxy(box, faces)[0]) if len(faces) else np.zeros(0)
            hit = len(iou) > 0 and float(iou.max()) >= 0.5
            if hit:
                taken[int(iou.argmax())] = True
            elif len(doubtful) and iou_xyxy(box, doubtful).max() >= 0.3:
                continue
            scores.append(float(detections.scores[i]))
            right.append(hit)
    return np.asarray(scores, np.float32), np.asarray(right, bool)


def logit(scores: Array) -> Array:
    clipped: Array = np.clip(scores, 1e-6, 1 - 1e-6)
    out: Array = np.log(clipped / (1 - clipped))
    return out


def platt(scores: F32, right: Array) -> tuple[float, float]:
    """Gain and shift of the logistic regression of `right` on the scores' logits."""
    x = torch.from_numpy(logit(scores).astype(np.float64))
    y = torch.from_numpy(right.astype(np.float64))
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = F.binary_cross_entropy_with_logits(line[0] * x + line[1], y)
        loss.backward()
        return loss

    solver.step(closure)  # type: ignore[arg-type]
    gain, shift = line.detach().tolist()
    return float(gain), float(shift)


def shift_for_misses(found: list[Detections], images: list[Labelled], default: float, share: float) -> float:
    """The shift, at a gain of 1, with which this share of the faces is missed at the program's threshold."""
    low, high = LOWEST, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        flags = np.concatenate([missed(f, item, middle)[1] for f, item in zip(found, images, strict=True)])
        low, high = (low, middle) if flags.mean() > share else (middle, high)
    return float(logit(np.asarray(default)) - logit(np.asarray(low)))


def halved(images: list[Labelled], half: str) -> list[Labelled]:
    """half: all, or those of even or odd number, to choose on one half and report on the other."""
    return images if half == "all" else images[{"even": 0, "odd": 1}[half] :: 2]


def calibrate(
    found: list[Detections], images: list[Labelled], default: float, share: float | None = None
) -> Calibration:
    """`found` in `images` by the uncalibrated net; default: the program's threshold. share: of the faces that may be
    missed there; None: a score is the share of boxes that are faces."""
    if share is None:
        gain, shift = platt(*evidence(found, images))
    else:
        gain, shift = 1.0, shift_for_misses(found, images, default, share)
    threshold = 1 / (1 + float(np.exp((shift - logit(np.asarray(default))) / gain)))
    flags = np.concatenate([missed(f, item, threshold)[1] for f, item in zip(found, images, strict=True)])
    return Calibration(round(gain, 4), round(shift, 4), round(threshold, 4), round(float(flags.mean()), 4))


@click.command()
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="folder in WIDER FACE's layout")
@click.option("--half", type=click.Choice(["all", "even", "odd"]), default="all", help="of the pictures, by number")
@click.option(
    "--missed", type=click.FloatRange(0, 1), help="put the default threshold where this share of the faces is missed"
)
@click.option("--threads", default=1, show_default=True)
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), required=True, help="weights to write")
def command(weights: Path, data: Path, half: str, missed: float | None, threads: int, out: Path) -> None:
    """Measure a net's calibration and write its weights again with it."""
    torch.set_num_threads(threads)
    model, note = load_weights(weights)
    images = halved(list(read_validation(data).values())[-1], half)
    detector = TorchDetector(Deploy(model), DetectorOptions(threshold=LOWEST))
    found = [Scales().detect(detector, read_image(item.path)) for item in images]
    result = calibrate(found, images, DetectorOptions().threshold, missed)
    calibration = asdict(result) | {"on": f"{data.name}, {half}"}
    save_weights(out, model, note | {"calibration": calibration})
    print(calibration)


if __name__ == "__main__":
    finish(command, "calibrate")
