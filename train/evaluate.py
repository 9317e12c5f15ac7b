"""python -m train.evaluate --data DIR: average precision of a detector on a validation set."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from tqdm import tqdm

from engines.boxes import Array, area_xyxy, iou_xyxy, nms_xyxy
from engines.command import finish
from engines.detector import Detector, DetectorOptions, load
from engines.errors import BadConfig, BadInput
from engines.letterbox import ImageView, view
from engines.types import Detections
from train.data import Labelled, read_image
from train.wider import Curve, evaluate, missed, read_validation

SIZES = ((0, 16), (16, 32), (10, 32), (32, 64), (64, 1e9))  # sqrt of a face's area, in pixels of the input
PYRAMID = (500, 800, 1200, 1600)  # shortest sides (paper section 4.3)
LONGEST = 1600


def detector_for(
    model: str | None, weights: Path | None, engine: Path | None, peer: str | None, options: DetectorOptions
) -> Detector:
    """The one detector that the flags name; the shipped plainS when none does."""
    if sum(x is not None for x in (model, weights, engine, peer)) > 1:
        raise BadConfig("give one of --model, --weights, --engine and --peer")
    if peer is not None:
        from engines.peers import load_peer

        return load_peer(peer, options)
    if weights is not None:
        from engines.torch_engine import TorchDetector
        from train.checkpoint import load_weights
        from train.model import Deploy

        return TorchDetector(Deploy(load_weights(weights)[0]), options)
    return load(str(engine) if engine is not None else model or "plainS", options)


def parse_size(text: str) -> tuple[int, int] | None:
    """`native` -> None, `640x384` -> (640, 384), the limit that pictures are shrunk into."""
    if text == "native":
        return None
    try:
        width, height = (int(v) for v in text.lower().split("x"))
    except ValueError:
        raise BadConfig(f"{text!r} is neither native nor like 640x384", "--size") from None
    return width, height


def scaled(rgb: Array, shortest: int, longest: int) -> ImageView:
    """A view with its shorter side at `shortest`, larger or smaller, unless the longer one would pass `longest`."""
    height, width = rgb.shape[:2]
    scale = min(shortest / min(height, width), longest / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return ImageView(cv2.resize(rgb, size, interpolation=how), width, height)


def detect_pyramid(detector: Detector, rgb: Array) -> Detections:
    """Detections at the paper's four sizes, merged by NMS. Levels that come out alike are looked at once."""
    views = {v.rgb.shape: v for v in (scaled(rgb, side, LONGEST) for side in PYRAMID)}
    found = [detector.detect([v])[0] for v in views.values()]
    xyxy, scores = np.concatenate([f.xyxy for f in found]), np.concatenate([f.scores for f in found])
    keep = nms_xyxy(xyxy, scores, detector.options.nms_iou)
    return Detections(xyxy[keep], scores[keep])


def misses(found: list[Detections], images: list[Labelled], threshold: float, zoom: float) -> dict[str, float]:
    """Share of faces without a detection of at least `threshold` (IoU >= 0.5), by the face's size in the input."""
    rows = [missed(detections, item, threshold) for detections, item in zip(found, images, strict=True)]
    size = zoom * np.concatenate([np.sqrt(area_xyxy(truth)) for truth, _ in rows])
    miss = np.concatenate([flags for _, flags in rows])
    rates = {"all": round(float(miss.mean()), 4) if len(miss) else 0.0}
    for low, high in SIZES:
        among = (size >= low) & (size < high)
        if among.any():
            rates[f"{low}-{high:g}" if high < 1e9 else f"{low}+"] = round(float(miss[among].mean()), 4)
    return rates


def false_alarms(found: list[Detections], images: list[Labelled], threshold: float) -> float:
    """Detections of at least `threshold` an image that touch no labelled face, sure or not (IoU < 0.3)."""
    count = 0
    for detections, item in zip(found, images, strict=True):
        sure = detections.xyxy[detections.scores >= threshold]
        count += int((iou_xyxy(sure, item.xyxy).max(1) < 0.3).sum()) if len(item.xyxy) else len(sure)
    return count / max(1, len(images))


@dataclass(frozen=True, slots=True)
class Show:
    """How pictures are shown: shrunk into `size` (width, height), or scaled by `zoom`, or at the pyramid's sizes."""

    size: tuple[int, int] | None = None
    zoom: float = 1.0
    pyramid: bool = False

    def detect(self, detector: Detector, rgb: Array) -> Detections:
        if self.pyramid:
            return detect_pyramid(detector, rgb)
        if self.zoom != 1:
            return detector.detect([scaled(rgb, max(1, round(self.zoom * min(rgb.shape[:2]))), 1 << 20)])[0]
        return detector.detect([view(rgb, self.size)])[0]


def measure(
    detector: Detector, sets: dict[str, list[Labelled]], show: Show, threshold: float
) -> tuple[dict[str, Any], dict[str, Curve], list[Detections]]:
    """The printed figures, the curves, and what was found in each image that exists.

    sets: the same images with each difficulty's ignore flags. Images that are missing are left out and counted.
    """
    everything = next(iter(sets.values()))
    there = [i for i, item in enumerate(everything) if item.path.is_file()]
    if not there:
        raise BadInput("none of the images is there", str(everything[0].path if everything else ""))
    bar = tqdm(there, unit="image", disable=None, dynamic_ncols=True)
    found = [show.detect(detector, read_image(everything[i].path)) for i in bar]
    sets = {name: [items[i] for i in there] for name, items in sets.items()}
    curves = {n: evaluate(found, [i.xyxy for i in s], [i.ignore for i in s]) for n, s in sets.items()}
    widest = list(sets.values())[-1]
    result = {
        "images": len(there),
        "missing": len(everything) - len(there),
        "faces": int(sum((~i.ignore).sum() for i in widest)),
        "ap": {name: round(curve.ap, 4) for name, curve in curves.items()},
        "threshold": threshold,
        "miss_rate": misses(found, widest, threshold, show.zoom),
        "false_alarms": round(false_alarms(found, widest, threshold), 4),
    }
    return result, curves, found


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="folder with WIDER_val/, wider_face_split/"
)
@click.option("--model", help="shipped model's name")
@click.option("--weights", type=click.Path(path_type=Path), help="weights.safetensors of a training run")
@click.option("--engine", type=click.Path(path_type=Path), help=".onnx file")
@click.option("--peer", help="yunet or centerface, through the same code")
@click.option("--size", default="native", show_default=True, help="native, or WxH to shrink pictures into")
@click.option("--zoom", type=float, help="show pictures this much larger or smaller than they are")
@click.option("--pyramid", is_flag=True, help="the paper's four sizes, merged")
@click.option("--threshold", default=0.25, show_default=True, help="score at which misses are counted")
@click.option("--plots", type=click.Path(path_type=Path), help="folder for the curve and the hardest misses")
@click.option("--json", "as_json", is_flag=True, help="the last line is one JSON object")
def command(
    data: Path, model: str | None, weights: Path | None, engine: Path | None, peer: str | None, size: str,
    zoom: float | None, pyramid: bool, threshold: float, plots: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Average precision by the WIDER protocol, and the misses at a threshold by face size."""
    if (zoom is not None) + pyramid + (size != "native") > 1:
        raise BadConfig("give one of --size, --zoom and --pyramid")
    if zoom is not None and not 0 < zoom <= 8:
        raise BadConfig(f"{zoom} is not in 0..8", "--zoom")
    show = Show(parse_size(size), zoom or 1.0, pyramid)
    detector = detector_for(model, weights, engine, peer, DetectorOptions(threshold=0.01, nms_iou=0.3, threads=2))
    sets = read_validation(data)
    result, curves, found = measure(detector, sets, show, threshold)
    if plots is not None:
        from train.plots import hardest_misses, precision_recall

        plots.mkdir(parents=True, exist_ok=True)
        precision_recall(curves, plots / "pr.png")
        items = [item for item in list(sets.values())[-1] if item.path.is_file()]
        hardest_misses(items, found, threshold, plots / "misses.jpg")
    if as_json:
        print(json.dumps(result))
    else:
        ap = ", ".join(f"{name} {value:.4f}" for name, value in result["ap"].items())
        print(f"{result['images']} images, {result['faces']} faces: AP {ap}")
        print(f"missed at score {threshold}: {result['miss_rate']}")
        print(f"false alarms at that score: {result['false_alarms']} an image")


if __name__ == "__main__":
    finish(command, "evaluate")
