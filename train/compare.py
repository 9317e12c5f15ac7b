"""python -m train.compare --data DIR: our detectors and the baselines under one protocol and runtime, in one table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from facestream.engines.base import Detector
from facestream.engines.command import finish
from facestream.engines.loader import load_detector
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.train.data import Labelled
from facestream.train.evaluate import false_scores, measure, misses
from facestream.train.test_scales import Scales
from facestream.train.wider import read_validation

from facestream.checkout import benchmarks


@dataclass(frozen=True, slots=True)
class Row:
    """One detector at one zoom. Shares are in 0..1; the keys of `missed` are sizes in pixels of the input.

    missed, false_alarms (per image): at the threshold. fair: the
    score at which it has `alarms` false alarms per image; missed_fair: what it misses existing, so that detectors with
    differently calibrated scores can be compared.
    """

    detector: str
    zoom: float
    ap: float
    missed: dict[str, float]
    false_alarms: float
    fair: float
    missed_fair: dict[str, float]


def score_at(found: list[Detections], images: list[Labelled], alarms: float) -> float:
    """The lowest score with at most `alarms` false alarms per image."""
    scores = np.sort(false_scores(found, images))[::-1]
    allowed = int(alarms * len(images))
    return float(np.nextafter(scores[allowed], 2)) if len(scores) > allowed else 0.0


def evaluate_detector(
    name: str,
    detector: Detector,
    images: list[Labelled],
    zoom: float,
    threshold: float,
    alarms: float,
) -> Row:
    result, _, found = measure(detector, {"all": images}, Scales(zoom=zoom), threshold)
    existing = [item for item in images if item.path.is_file()]
    fair = score_at(found, existing, alarms)
    return Row(
        name, zoom, result["ap"]["all"], result["miss_rate"], result["false_alarms"],
        round(fair, 3), misses(found, existing, fair, zoom),
    )  # fmt: skip


TABLE_SIZES = ("all", "0-16", "16-32", "32-64", "64+", "10-32")


def table(rows: list[Row], threshold: float, alarms: float) -> str:
    """A Markdown table, a line per detector and zoom."""
    sizes = [name if name == "all" else f"{name} px" for name in TABLE_SIZES]
    lines = [
        f"| detector | zoom | AP | missed at {threshold:g}: {' | '.join(sizes)} | false alarms an image "
        f"| missed at {alarms:g} false alarms an image: all | 10-32 px |",
        "|---" * (len(TABLE_SIZES) + 6) + "|",
    ]
    for row in rows:
        at = " | ".join(f"{100 * row.missed[s]:.1f} %" if s in row.missed else "" for s in TABLE_SIZES)
        fair = " | ".join(f"{100 * row.missed_fair[s]:.1f} %" if s in row.missed_fair else "" for s in ("all", "10-32"))
        lines.append(f"| {row.detector} | {row.zoom:g}x | {row.ap:.4f} | {at} | {row.false_alarms:.2f} | {fair} |")
    return "\n".join(lines)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="folder in WIDER FACE's layout")
@click.option("--model", "models", multiple=True, default=("plainXS16", "plainS", "plainM"), show_default=True,
              help="a shipped model's name or an engine file; may be given again")  # fmt: skip
@click.option("--baselines/--no-baselines", default=True, show_default=True, help="beside YuNet and CenterFace")
@click.option("--zoom", "zooms", multiple=True, type=float, default=(1.0, 0.5), show_default=True)
@click.option("--threshold", default=DetectorOptions().threshold, show_default=True)
@click.option("--alarms", default=1.0, show_default=True, help="false alarms an image at which all are compared too")
@click.option("--threads", default=2, show_default=True)
@click.option("--verify/--no-verify", default=True, show_default=True, help="our detectors with the verifier behind")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object on the last line")
def command(
    data: Path, models: tuple[str, ...], baselines: bool, zooms: tuple[float, ...], threshold: float,
    alarms: float, threads: int, verify: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run each detector on every validation image; prints AP, misses by size and false alarms."""
    options = DetectorOptions(threshold=0.01, nms_iou=0.3, threads=threads, verify=verify)
    detectors = {Path(name).stem: load_detector(name, options) for name in models}
    if baselines:
        known = benchmarks("baselines", "--baselines")
        detectors |= {name: known.load_baseline(name, options) for name in known.BASELINES}
    images = list(read_validation(data).values())[-1]
    rows = [
        evaluate_detector(
            name,
            d,
            images,
            zoom,
            threshold,
            alarms,
        )
        for zoom in zooms
        for name, d in detectors.items()
    ]
    print(json.dumps([asdict(row) for row in rows]) if as_json else table(rows, threshold, alarms))


if __name__ == "__main__":
    finish(command, "compare")
