"""python -m train.evaluate --data DIR: average precision of a detector on a validation set."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from facestream.engines.base import Detector
from facestream.engines.boxes import F32, Bool, area_xyxy, iou_xyxy
from facestream.engines.command import finish
from facestream.engines.errors import BadConfig, BadInput
from facestream.engines.loader import load_detector, shipped
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.train.data import Labelled, read_image
from facestream.train.snip import LEVELS
from facestream.train.test_scales import Scales, scales_from_options, trained_levels
from facestream.train.wider import Curve, evaluate, missed, published_curves, read_test, read_validation, write_results
from tqdm import tqdm

from facestream.checkout import benchmarks

log = logging.getLogger("facestream.train.evaluate")

FALSE_A_FOLD = 200
SIZES = ((0, 16), (0, 20), (16, 32), (10, 32), (32, 64), (64, 1e9))  # root of a face's area, in pixels of the input


def detector_for(
    model: str | None, weights: Path | None, engine: Path | None, peer: str | None, options: DetectorOptions,
    device: str = "cpu",
) -> Detector:  # fmt: skip
    """The one detector that the flags name; the shipped plainS when none does."""
    if sum(x is not None for x in (model, weights, engine, peer)) > 1:
        raise BadConfig("give one of --model, --weights, --engine and --peer")
    if peer is not None:
        baseline: Detector = benchmarks("baselines", "--peer").load_baseline(peer, options)
        return baseline
    if weights is not None:
        from facestream.engines.torch_engine import TorchDetector
        from facestream.train.checkpoint import load_deploy

        return TorchDetector(load_deploy(weights), options, device)
    return load_detector(str(engine) if engine is not None else model or "plainS", options)


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
    """Detections of at least `threshold` an image that touch no labelled face."""
    return int((false_scores(found, images) >= threshold).sum()) / max(1, len(images))


def false_scores(found: list[Detections], images: list[Labelled]) -> F32:
    """The scores of all detections that touch no labelled face, valid or ignored (IoU < 0.3)."""
    alone = [
        d.scores[(iou_xyxy(d.xyxy, item.xyxy) < 0.3).all(1)] if len(item.xyxy) else d.scores
        for d, item in zip(found, images, strict=True)
    ]
    return np.concatenate([np.zeros(0, np.float32), *alone])


Measure = Callable[[list[Detections], list[F32], list[Bool]], Curve]


def measure(
    detector: Detector, sets: dict[str, list[Labelled]], scales: Scales, threshold: float, curve: Measure = evaluate,
) -> tuple[dict[str, Any], dict[str, Curve], list[Detections]]:  # fmt: skip
    """The printed figures, the curves, and what was found in each image that exists.

    sets: the same images with each difficulty's ignore flags. Images that are missing are left out and counted. Misses
    and false alarms are counted at `threshold`.
    """
    listed = next(iter(sets.values()))
    existing = [i for i, item in enumerate(listed) if item.path.is_file()]
    if not existing:
        raise BadInput("none of the images is there", str(listed[0].path if listed else ""))
    bar = tqdm(existing, unit="image", disable=None, dynamic_ncols=True)
    start = time.perf_counter()
    found = [scales.detect(detector, read_image(listed[i].path)) for i in bar]
    spent = time.perf_counter() - start
    sets = {name: [items[i] for i in existing] for name, items in sets.items()}
    curves = {n: curve(found, [i.xyxy for i in s], [i.ignore for i in s]) for n, s in sets.items()}
    widest = list(sets.values())[-1]
    accepted = [f.filter_by_score(threshold) for f in found]
    result = {
        "images": len(existing),
        "missing": len(listed) - len(existing),
        "faces": int(sum((~i.ignore).sum() for i in widest)),
        "ap": {name: round(c.ap, 4) for name, c in curves.items()},
        "threshold": threshold,
        "miss_rate": misses(accepted, widest, threshold, scales.zoom),
        "false_alarms": round(false_alarms(accepted, widest, threshold), 4),
        "ms_per_image": round(1000 * spent / len(existing), 1),
    }
    return result, curves, found


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for beside the detector."""

    data: Path | None
    protocol: str
    scales: Scales
    threshold: float
    plots: Path | None
    published: Path | None = None
    results: Path | None = None


def on_test(detector: Detector, request: Request, root: Path) -> dict[str, Any]:
    """Detections in WIDER's test images, for its server (the paper's figure 5)."""
    if request.results is None:
        raise BadConfig("is missing", "--results", "the test set's truth is not public, only detections can be written")
    listed = read_test(root)
    items = [item for item in listed if item.path.is_file()]
    if not items:
        raise BadInput("none of the images is there", str(listed[0].path if listed else root))
    found = [request.scales.detect(detector, read_image(i.path)) for i in tqdm(items, unit="image", disable=None)]
    write_results(found, items, request.results)
    return {"images": len(items), "missing": len(listed) - len(items), "results": str(request.results)}


def on_wider(detector: Detector, request: Request, root: Path) -> dict[str, Any]:
    """WIDER's protocol, or VOC's on Pascal-Faces and AFW."""
    if request.protocol == "wider":
        sets = read_validation(root)
        curve = evaluate
    else:
        from facestream.train.pascal import read_faces, voc_curve

        sets = {"all": read_faces(root, request.protocol)}
        curve = voc_curve
    result, curves, found = measure(detector, sets, request.scales, request.threshold, curve)
    existing = [item for item in list(sets.values())[-1] if item.path.is_file()]
    if request.results is not None:
        write_results(found, existing, request.results)
    if request.plots is not None:
        from facestream.train.plots import hardest_misses, precision_recall, qualitative

        request.plots.mkdir(parents=True, exist_ok=True)
        others = published_curves(request.published) if request.published is not None else None
        precision_recall(curves, request.plots / "pr.png", others)
        hardest_misses(existing, found, request.threshold, request.plots / "misses.jpg")
        qualitative([item.path for item in existing], found, request.plots / "sheet.jpg")
    return result


def on_fddb(detector: Detector, request: Request, root: Path) -> dict[str, Any]:
    """FDDB's ROC over its ten folds; with --plots also the result files that its own program reads."""
    from facestream.train.fddb import read_fddb, summary, write_results

    listed = read_fddb(root)
    photos = [p for p in listed if p.path.is_file()]
    if not photos:
        raise BadInput("none of the images is there", str(listed[0].path if listed else root))
    bar = tqdm(photos, unit="image", disable=None, dynamic_ncols=True)
    found = [request.scales.detect(detector, read_image(p.path)) for p in bar]
    figures, curve = summary(found, photos)
    if request.plots is not None:
        from facestream.train.plots import qualitative, receiver_operating

        request.plots.mkdir(parents=True, exist_ok=True)
        receiver_operating(curve, request.plots / "roc.png")
        qualitative([p.path for p in photos], found, request.plots / "sheet.jpg")
        write_results(found, photos, request.plots / "fddb")
    return {"images": len(photos), "missing": len(listed) - len(photos), **figures}


def timing(detector: Detector, request: Request, count: int) -> dict[str, Any]:
    """Table 2 on this device."""
    from facestream.train.timing import pictures, timed

    paths = [i.path for i in next(iter(read_validation(request.data).values()))] if request.data is not None else []
    images = pictures(paths, count)
    return {"images": len(images), "device": getattr(detector, "device", "cpu"), "timing": timed(detector, images)}


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="folder with WIDER_val/ and wider_face_split/, or as --protocol says",
)
@click.option("--protocol", default="wider", show_default=True, type=click.Choice(["wider", "fddb", "pascal", "afw"]))
@click.option("--model", help="shipped model's name; with --timing also one that is not, untrained")
@click.option("--weights", type=click.Path(path_type=Path), help="weights.safetensors of a training run")
@click.option("--engine", type=click.Path(path_type=Path), help=".onnx file")
@click.option("--peer", help="yunet or centerface, through the same code")
@click.option(
    "--device", default="auto", show_default=True, help="of --weights: cpu or cuda; auto = cuda when there is one"
)
@click.option(
    "--size", help="native; 1200x1600: shorter side 1200 unless the longer passes 1600; 640x384: shrunk into it"
)
@click.option("--zoom", default=1.0, help="show pictures this much larger or smaller than they are")
@click.option("--pyramid", is_flag=True, help="the paper's four sizes, merged, M3 left out of the largest")
@click.option("--snip", is_flag=True, help="SNIP's three sizes, each for its own faces, merged")
@click.option("--soft", is_flag=True, help="merge them by soft-NMS")
@click.option("--timing", "time_it", is_flag=True, help="ms an image at the paper's four sizes instead")
@click.option("--images", default=20, show_default=True, help="how many of --data --timing looks at")
@click.option(
    "--threshold", default=DetectorOptions().threshold, show_default=True, help="score at which misses are counted"
)
@click.option(
    "--plots", type=click.Path(path_type=Path), help="folder for curves, hardest misses and a sheet of detections"
)
@click.option("--published", type=click.Path(path_type=Path), help="folder of wider_pr_info_*.mat to draw beside ours")
@click.option(
    "--results", type=click.Path(path_type=Path), help="folder for detections as WIDER's own evaluation wants them"
)
@click.option(
    "--split",
    default="val",
    show_default=True,
    type=click.Choice(["val", "test"]),
    help="of WIDER; test: only --results",
)
@click.option("--verify/--no-verify", default=True, show_default=True, help="a shipped model with the verifier behind")
@click.option("--json", "as_json", is_flag=True, help="the last line is one JSON object")
def command(
    data: Path | None, protocol: str, model: str | None, weights: Path | None, engine: Path | None, peer: str | None,
    device: str, size: str | None, zoom: float, pyramid: bool, snip: bool, soft: bool, time_it: bool, images: int,
    threshold: float, plots: Path | None, published: Path | None, results: Path | None,
    split: str, verify: bool, as_json: bool,
) -> None:  # fmt: skip
    """Average precision by the WIDER protocol, and the misses at a threshold by face size; or FDDB's ROC, VOC's AP."""
    scales = scales_from_options(size, protocol, zoom, pyramid, snip, soft, trained_levels(weights) if snip else LEVELS)
    request = Request(data, protocol, scales, threshold, plots, published, results)
    if device == "auto":
        device = best_device(weights is not None or time_it)
    options = DetectorOptions(threshold=0.01, nms_iou=0.3, threads=2, verify=verify)
    detector = untrained(model, options, device) if time_it and weights is None else None
    detector = detector or detector_for(model, weights, engine, peer, options, device)
    if pyramid and not detector.coarsest_anchors:
        log.warning("which boxes are M3's is not known, so the largest size keeps them")
    if time_it:
        result = timing(detector, request, images)
    elif data is None:
        raise BadConfig("is missing", "--data", "where the images are; only --timing can do without")
    else:
        way = on_fddb if protocol == "fddb" else on_test if split == "test" else on_wider
        result = way(detector, request, data)
    print(json.dumps(result) if as_json else as_text(result))


def best_device(torch_runs: bool) -> str:
    if not torch_runs:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def untrained(model: str | None, options: DetectorOptions, device: str) -> Detector | None:
    """A named network that is not shipped, with random weights, for its speed; None for one that is shipped."""
    from facestream.train.model import SPECS, Deploy, build

    if model is None or model in shipped() or model not in SPECS:
        return None
    from facestream.engines.torch_engine import TorchDetector

    return TorchDetector(Deploy(build(model)), options, device)


def as_text(result: dict[str, Any]) -> str:
    if "timing" in result:
        rows = [f"{n}: {v['ms']} ms (paper {v['paper_ms']} ms, Quadro P6000)" for n, v in result["timing"].items()]
        return "\n".join([f"{result['images']} images on {result['device']}", *rows])
    if "results" in result:
        return f"{result['images']} images, {result['missing']} missing, into {result['results']}"
    head = f"{result['images']} images, {result['faces']} faces"
    if "ap" not in result:
        at = "\n".join(
            f"at {n} false alarms: {d:.4f} discrete, {c:.4f} continuous"
            for n, (d, c) in result["discrete_continuous_at_false"].items()
        )
        return f"{head}\n{at}\nfolds at {FALSE_A_FOLD} each: {result['folds']}"
    ap = ", ".join(f"{name} {value:.4f}" for name, value in result["ap"].items())
    return (
        f"{head}: AP {ap}; {result['ms_per_image']} ms an image\n"
        f"missed at score {result['threshold']}: {result['miss_rate']}\n"
        f"false alarms at that score: {result['false_alarms']} an image"
    )


if __name__ == "__main__":
    finish(command, "evaluate")
