"""Plots of training runs, curves, and contact sheets of detections and misses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from facestream.engines.boxes import Array, area_xyxy
from facestream.engines.types import Detections
from facestream.train.data import Labelled, read_image
from facestream.train.fddb import Roc
from facestream.train.test_scales import resized
from facestream.train.wider import Curve, missed

matplotlib.use("Agg")  # before pyplot: there may be no screen
import matplotlib.pyplot as plt


def training_curve(log: Path, out: Path) -> None:
    """Draw the losses of a log.jsonl against the step, smoothed over ten entries, as a PNG."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [r["step"] for r in rows]
    fig, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for key in ("loss", "classes", "boxes"):
        values = [r[key] for r in rows]
        smooth = [sum(values[max(0, i - 9) : i + 1]) / len(values[max(0, i - 9) : i + 1]) for i in range(len(values))]
        (line,) = axes.plot(steps, smooth, label=key)
        axes.plot(steps, values, color=line.get_color(), alpha=0.2, linewidth=0.8)
    axes.set(xlabel="step", ylabel="loss", yscale="log", title=f"{log.parent.name}: training loss")
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    fig.savefig(out, dpi=120)
    plt.close(fig)


def precision_recall(curves: dict[str, Curve], out: Path, published: dict[str, Curve] | None = None) -> None:
    """Precision against recall, a line for each difficulty, as a PNG (the paper's figures 5 and 7); others' dashed."""
    fig, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    for name, curve in curves.items():
        axes.plot(curve.recall, curve.precision, label=f"{name}: {curve.ap:.3f}")
    for name, curve in (published or {}).items():
        axes.plot(curve.recall, curve.precision, "--", linewidth=1, label=f"{name}: {curve.ap:.3f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower left")
    axes.grid(alpha=0.3)
    fig.savefig(out, dpi=120)
    plt.close(fig)


def hardest_misses(
    images: list[Labelled], found: list[Detections], threshold: float, out: Path, tiles: int = 48, side: int = 128
) -> None:
    """A contact sheet of missed faces, the largest first, each with its box and surroundings."""
    hardest: list[tuple[float, Labelled, Array]] = []
    for item, detections in zip(images, found, strict=True):
        truth, flags = missed(detections, item, threshold)
        hardest += [(float(area_xyxy(box)), item, box) for box in truth[flags]]
    hardest.sort(key=lambda row: -row[0])
    columns = 8
    sheet = np.full((-(-tiles // columns) * side, columns * side, 3), 40, np.uint8)
    for n, (_, item, box) in enumerate(hardest[:tiles]):
        y, x = divmod(n, columns)
        sheet[y * side : (y + 1) * side, x * side : (x + 1) * side] = _tile(read_image(item.path), box, side)
    cv2.imwrite(str(out), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def _tile(rgb: Array, xyxy: Array, side: int) -> Array:
    """A square around a box, three times its size, with the box drawn."""
    centre = (xyxy[:2] + xyxy[2:]) / 2
    reach = 1.5 * float((xyxy[2:] - xyxy[:2]).max())
    scale = side / (2 * reach)
    matrix = np.array([[scale, 0, side / 2 - scale * centre[0]], [0, scale, side / 2 - scale * centre[1]]])
    tile = cv2.warpAffine(rgb, matrix, (side, side))
    x0, y0, x1, y1 = (int(v) for v in (xyxy.reshape(2, 2) * scale + matrix[:, 2]).reshape(-1))
    return cv2.rectangle(tile, (x0, y0), (x1, y1), (255, 60, 60), 1)


def receiver_operating(curve: Roc, out: Path) -> None:
    """FDDB's two scores against the number of false alarms, as a PNG (the paper's figures 6a and 6b)."""
    fig, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    for name in ("discrete", "continuous"):
        axes.plot(
            curve.false, getattr(curve, name), label=f"{name}: {curve.at(2000)[name == 'continuous']:.3f} at 2000"
        )
    axes.set(xlabel="false alarms", ylabel="share of faces", xlim=(0, 2000), ylim=(0, 1.02))
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    fig.savefig(out, dpi=120)
    plt.close(fig)


def colour_of(score: float) -> tuple[int, int, int]:
    """RGB of a detection's score as in the paper's figure 8: blue at 0.5 (and below), green at 1."""
    share = min(max((score - 0.5) * 2, 0.0), 1.0)
    return 0, round(255 * share), round(255 * (1 - share))


def qualitative(paths: list[Path], found: list[Detections], out: Path, tiles: int = 12, side: int = 480) -> None:
    """A contact sheet of images with their detections from 0.5 on, coloured by score, most faces first (figure 8)."""
    accepted = [int((f.scores >= 0.5).sum()) for f in found]
    columns = 4
    rows = -(-min(tiles, max(1, len(paths))) // columns)
    sheet = np.full((rows * side, columns * side, 3), 40, np.uint8)
    for n, index in enumerate(sorted(range(len(paths)), key=lambda i: -accepted[i])[:tiles]):
        rgb = read_image(paths[index])
        scale = side / max(rgb.shape[:2])
        rgb = resized(rgb, scale)
        for box, score in zip(found[index].xyxy * scale, found[index].scores, strict=True):
            if score >= 0.5:
                x0, y0, x1, y1 = (round(float(v)) for v in box)
                cv2.rectangle(rgb, (x0, y0), (x1, y1), colour_of(float(score)), 2)
        y, x = divmod(n, columns)
        sheet[y * side : y * side + min(side, rgb.shape[0]), x * side : x * side + min(side, rgb.shape[1])] = rgb[
            :side, :side
        ]
    cv2.imwrite(str(out), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
