"""python -m train.evaluate --data DIR: average precision of a detector on a validation set."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from engines.boxes import area_xyxy, iou_xyxy
from engines.detector import Detector, DetectorOptions, load
from engines.errors import BadConfig, UserError
from engines.letterbox import view
from engines.types import Detections
from train.data import Labelled, read_image, read_split
from train.wider import evaluate

SIZES = ((0, 16), (16, 32), (32, 64), (64, 1e9))  # sqrt of a face's area, pixels


def detector_for(model: str | None, weights: Path | None, engine: Path | None, options: DetectorOptions) -> Detector:
    """The one detector that the flags name; the shipped plainS when none does."""
    if sum(x is not None for x in (model, weights, engine)) > 1:
        raise BadConfig("give one of --model, --weights and --engine")
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


def misses(found: list[Detections], images: list[Labelled], threshold: float) -> dict[str, float]:
    """Share of faces without a detection of at least `threshold` (IoU >= 0.5), by the face's size in pixels."""
    sizes, missed = [], []
    for detections, item in zip(found, images, strict=True):
        truth = item.xyxy[~item.ignore]
        sure = detections.xyxy[detections.scores >= threshold]
        best = iou_xyxy(truth, sure).max(1) if len(sure) and len(truth) else np.zeros(len(truth))
        sizes.append(np.sqrt(area_xyxy(truth)))
        missed.append(best < 0.5)
    size, miss = np.concatenate(sizes), np.concatenate(missed)
    bins = {f"{low}-{high:g}" if high < 1e9 else f"{low}+": (size >= low) & (size < high) for low, high in SIZES}
    return {
        "all": round(float(miss.mean()), 4),
        **{k: round(float(miss[w].mean()), 4) for k, w in bins.items() if w.any()},
    }


def measure(
    detector: Detector, images: list[Labelled], size: tuple[int, int] | None, threshold: float
) -> dict[str, Any]:
    """AP and miss rates over images that exist; those that are missing are left out and counted."""
    present = [item for item in images if item.path.is_file()]
    found = [
        detector.detect([view(read_image(item.path), size)])[0]
        for item in tqdm(present, unit="image", disable=None, dynamic_ncols=True)
    ]
    curve = evaluate(found, [i.xyxy for i in present], [i.ignore for i in present])
    return {
        "images": len(present),
        "missing": len(images) - len(present),
        "faces": int(sum((~i.ignore).sum() for i in present)),
        "ap": {"all": round(curve.ap, 4)},
        "threshold": threshold,
        "miss_rate": misses(found, present, threshold),
    }


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="folder with WIDER_val/ and wider_face_split/"
)
@click.option("--model", help="shipped model's name")
@click.option("--weights", type=click.Path(path_type=Path), help="weights.safetensors of a training run")
@click.option("--engine", type=click.Path(path_type=Path), help=".onnx file")
@click.option("--size", default="native", show_default=True, help="native, or WxH to shrink pictures into")
@click.option("--threshold", default=0.3, show_default=True, help="score at which misses are counted")
@click.option("--json", "as_json", is_flag=True, help="the last line is one JSON object")
def command(
    data: Path, model: str | None, weights: Path | None, engine: Path | None, size: str, threshold: float, as_json: bool
) -> None:
    """Average precision by the WIDER protocol, and the misses at a threshold by face size."""
    detector = detector_for(model, weights, engine, DetectorOptions(threshold=0.01, nms_iou=0.3, threads=2))
    result = measure(detector, read_split(data, "val"), parse_size(size), threshold)
    if as_json:
        print(json.dumps(result))
    else:
        print(f"{result['images']} images, {result['faces']} faces: AP {result['ap']['all']:.4f}")
        print(f"missed at score {threshold}: {result['miss_rate']}")


def main() -> None:
    try:
        command.main(prog_name="python -m train.evaluate", standalone_mode=False)
    except click.ClickException as e:
        print(f"evaluate: error: {e.format_message()}", file=sys.stderr)
        sys.exit(2)
    except UserError as e:
        print(f"evaluate: error: {e}", file=sys.stderr)
        sys.exit(e.exit_code)


if __name__ == "__main__":
    main()
