"""python -m train.fuse VERIFIER --data VAL...: joins the verifier's score to the detectors' and writes its graph.

    logit(joint) = gains[0] logit(detector) + gains[1] verifier + shift

is a logistic regression (Platt, 1999) of "is this box a face" on validation pictures, over the detections of all
the detectors together, so that a score is the share of such boxes that are faces. With --missed the shift is then moved
so that at the program's default threshold this share of the faces is missed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from facestream.engines.base import Detector
from facestream.engines.boxes import F32, Array
from facestream.engines.command import finish
from facestream.engines.face_crops import SIDE, face_crops
from facestream.engines.loader import load_detector
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.engines.verified import INPUTS
from facestream.train.calibrate import evidence, halved, logit, shift_for_misses
from facestream.train.data import Labelled, read_image
from facestream.train.test_scales import Scales
from facestream.train.verifier import VerifierNet, load_verifier
from facestream.train.wider import read_validation
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

LOWEST = 0.02  # detector's scores under this take no part
OPSET = 17


@dataclass(frozen=True, slots=True)
class Fusion:
    """logit(joint) = gains[0] logit(detector) + gains[1] verifier + shift."""

    gains: tuple[float, float]
    shift: float

    def scores(self, detector: F32, verifier: F32) -> F32:
        """Joint scores [N] of detector's scores [N] and verifier's logits [N]."""
        joint = self.gains[0] * logit(detector) + self.gains[1] * verifier + self.shift
        out: F32 = (1 / (1 + np.exp(-joint))).astype(np.float32)
        return out


class Fused(nn.Module):
    """The graph that ships: `crops` uint8 [N, SIDE, SIDE, 3], `scores` [N] -> `verified` [N]."""

    def __init__(self, net: VerifierNet, fusion: Fusion) -> None:
        super().__init__()
        self.net = net
        self.fusion = fusion

    def forward(self, crops: Tensor, scores: Tensor) -> Tensor:
        own = self.net(crops.permute(0, 3, 1, 2))
        clipped = scores.clamp(1e-6, 1 - 1e-6)
        detector = torch.log(clipped) - torch.log(1 - clipped)
        return torch.sigmoid(self.fusion.gains[0] * detector + self.fusion.gains[1] * own + self.fusion.shift)


@dataclass(frozen=True, slots=True)
class VerifiedPicture:
    """One picture's detections and the verifier's logits [N] of them."""

    item: Labelled
    found: Detections
    logits: F32


def look(detector: Detector, net: nn.Module, items: list[Labelled]) -> list[VerifiedPicture]:
    """A detector's boxes in pictures at their own size, each seen by the verifier."""
    out = []
    for item in tqdm(items, unit="image", disable=None):
        rgb = read_image(item.path)
        found = Scales().detect(detector, rgb)
        crops = torch.from_numpy(face_crops(rgb, found.xyxy, (), SIDE)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            logits = net(crops).numpy() if len(found) else np.zeros(0, np.float32)
        out.append(VerifiedPicture(item, found, logits))
    return out


def joined(seen: list[VerifiedPicture], fusion: Fusion) -> list[Detections]:
    """Detections with the joint score, best first."""
    out = []
    for one in seen:
        scores = fusion.scores(one.found.scores, one.logits)
        order = np.argsort(-scores, kind="stable")
        out.append(Detections(one.found.xyxy[order], scores[order]))
    return out


def regression(features: Array, right: Array) -> tuple[Array, float]:
    """Weights [K] and shift of the logistic regression of `right` [N] on features [N, K]."""
    x = torch.from_numpy(features.astype(np.float64))
    y = torch.from_numpy(right.astype(np.float64))
    line = torch.zeros(features.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.binary_cross_entropy_with_logits(x @ line[:-1] + line[-1], y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(closure)  # type: ignore[arg-type, no-untyped-call]
    *gains, shift = line.detach().tolist()
    return np.asarray(gains), float(shift)


def fuse(seen: list[VerifiedPicture], default: float, missed: float | None = None) -> Fusion:
    """The fusion by regression. Which of two boxes on a face is the face depends on the joint score, so it is fitted
    twice. missed: share of the faces to be missed at the `default` threshold; None: as the regression has it."""
    fusion = Fusion((0.5, 0.5), 0.0)
    for _ in range(2):
        features = []
        labels = []
        for one in seen:
            order = np.argsort(-fusion.scores(one.found.scores, one.logits), kind="stable")
            number = Detections(one.found.xyxy[order], np.arange(len(order), 0, -1).astype(np.float32))
            ranks, right = evidence([number], [one.item])
            kept = order[len(order) - ranks.astype(np.intp)]
            features.append(np.stack([logit(one.found.scores[kept]), one.logits[kept]], 1))
            labels.append(right)
        gains, shift = regression(np.concatenate(features), np.concatenate(labels))
        fusion = Fusion((round(float(gains[0]), 4), round(float(gains[1]), 4)), round(shift, 4))
    if missed is not None:
        move = shift_for_misses(joined(seen, fusion), [one.item for one in seen], default, missed)
        fusion = Fusion(fusion.gains, round(fusion.shift + move, 4))
    return fusion


def export(net: VerifierNet, fusion: Fusion, note: dict[str, Any], path: Path) -> None:
    """Write the graph as ONNX, with what it is made of in its metadata ("facestream", JSON)."""
    import onnx

    crops = torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8)
    torch.onnx.export(
        Fused(net, fusion).eval(), (crops, torch.full((2,), 0.5)), str(path), input_names=INPUTS,
        output_names=["verified"], opset_version=OPSET, dynamo=False,
        dynamic_axes={name: {0: "boxes"} for name in [*INPUTS, "verified"]},
    )  # fmt: skip
    model = onnx.load(str(path))
    entry = model.metadata_props.add()
    entry.key = "facestream"
    entry.value = json.dumps({"fusion": asdict(fusion), **note})
    onnx.save(model, str(path))


@click.command()
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("--data", "folders", multiple=True, type=click.Path(path_type=Path), required=True,
              help="folder in WIDER FACE's layout; may be given again")  # fmt: skip
@click.option("--half", type=click.Choice(["all", "even", "odd"]), default="all", help="of the pictures, by number")
@click.option("--engine", "engines", multiple=True, default=("plainXS16", "plainS", "plainM"), show_default=True)
@click.option("--missed", type=click.FloatRange(0, 1), help="share of the faces missed at the default threshold")
@click.option("--threads", default=2, show_default=True)
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), required=True, help=".onnx to write")
def command(
    weights: Path, folders: tuple[Path, ...], half: str, engines: tuple[str, ...], missed: float | None,
    threads: int, out: Path,
) -> None:  # fmt: skip
    """Fit the joint score and write the verifier's graph."""
    torch.set_num_threads(threads)
    net, note = load_verifier(weights)
    items = [item for folder in folders for item in halved(list(read_validation(folder).values())[-1], half)]
    options = DetectorOptions(threshold=LOWEST, threads=threads, verify=False)
    seen = [one for name in engines for one in look(load_detector(name, options), net, items)]
    fusion = fuse(seen, DetectorOptions().threshold, missed)
    out.parent.mkdir(parents=True, exist_ok=True)
    export(net, fusion, {"training": note, "fused on": [f"{folder.name}, {half}" for folder in folders]}, out)
    print(json.dumps(asdict(fusion)))


if __name__ == "__main__":
    finish(command, "fuse")
