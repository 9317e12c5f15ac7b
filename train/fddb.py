"""FDDB: its folds and ellipses, and its discrete and continuous ROC (Jain and Learned-Miller, UMass technical report
UM-CS-2010-009; paper section 4.4, figures 6a and 6b)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from facestream.engines.boxes import F32, Array
from facestream.engines.errors import BadInput
from facestream.engines.types import Detections
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

FOLDS = 10
ROWS = 400  # an overlap is integrated over this many rows


@dataclass(frozen=True, slots=True)
class Photo:
    """An image of a fold, with its faces: ellipses float64 [N, 5], half axes (major, minor), the major axis's angle to
    the horizontal in radians, and the centre x, y in pixels."""

    path: Path
    fold: int
    ellipses: NDArray[np.float64]


def read_fddb(root: Path) -> list[Photo]:
    """All images of FDDB-folds/FDDB-fold-NN-ellipseList.txt, NN = 01..10.

    Blocks of a name without suffix, a count, and `major minor angle x y 1` a face. Images lie in originalPics/ or in
    `root` itself. BadInput names file and line.
    """
    folder = next((f for f in (root / "FDDB-folds", root) if (f / "FDDB-fold-01-ellipseList.txt").is_file()), None)
    if folder is None:
        raise BadInput("not found", str(root / "FDDB-folds" / "FDDB-fold-01-ellipseList.txt"),
                       "--data must hold FDDB-folds/ and originalPics/")  # fmt: skip
    pictures = root / "originalPics" if (root / "originalPics").is_dir() else root
    out = []
    for fold in range(1, FOLDS + 1):
        listing = folder / f"FDDB-fold-{fold:02}-ellipseList.txt"
        if not listing.is_file():
            raise BadInput("not found", str(listing), f"FDDB has {FOLDS} folds")
        lines = [line.strip() for line in listing.read_text().splitlines()]
        at = 0
        while at < len(lines):
            if not lines[at]:
                at += 1
                continue
            try:
                count = int(lines[at + 1])
                rows = [[float(v) for v in line.split()] for line in lines[at + 2 : at + 2 + count]]
                if len(rows) < count or any(len(row) < 5 for row in rows):
                    raise ValueError("an ellipse needs 5 numbers")
                if any(min(row[:2]) <= 0 for row in rows):
                    raise ValueError("an ellipse needs two radii above 0")
            except (ValueError, IndexError) as e:
                raise BadInput(f"bad annotation of {lines[at]!r}: {e}", f"{listing}:{at + 1}") from None
            ellipses = np.asarray([row[:5] for row in rows], np.float64).reshape(-1, 5)
            out.append(Photo(pictures / f"{lines[at]}.jpg", fold, ellipses))
            at += 2 + count
    return out


def overlaps(xyxy: F32, ellipses: Array) -> NDArray[np.float64]:
    """Intersection over union of boxes [N, 4] with ellipses [M, 5] -> [N, M], row by row of the ellipse."""
    out = np.zeros((len(xyxy), len(ellipses)))
    for j, (a, b, angle, cx, cy) in enumerate(ellipses):
        cos = math.cos(angle)
        sin = math.sin(angle)
        # p x^2 + q x y + r y^2 = 1 about the centre
        p = (cos / a) ** 2 + (sin / b) ** 2
        r = (sin / a) ** 2 + (cos / b) ** 2
        q = 2 * cos * sin * (1 / a**2 - 1 / b**2)
        high = math.sqrt(p / (p * r - q * q / 4))
        step = 2 * high / ROWS
        y = -high + (np.arange(ROWS) + 0.5) * step
        half = np.sqrt(np.maximum((q * y) ** 2 - 4 * p * (r * y * y - 1), 0)) / (2 * p)
        left = cx - q * y / (2 * p) - half
        right = cx - q * y / (2 * p) + half
        for i, (x0, y0, x1, y1) in enumerate(xyxy.astype(np.float64)):
            covered = np.clip(np.minimum(cy + y + step / 2, y1) - np.maximum(cy + y - step / 2, y0), 0, None)
            inter = float((np.clip(np.minimum(right, x1) - np.maximum(left, x0), 0, None) * covered).sum())
            union = max(0.0, x1 - x0) * max(0.0, y1 - y0) + math.pi * a * b - inter
            out[i, j] = inter / max(union, 1e-9)
    return out


@dataclass(frozen=True, slots=True)
class Roc:
    """At falling score thresholds: false alarms in number, the share of faces found at IoU > 0.5 (discrete), and the
    sum of their IoU over the number of faces (continuous). float64 [N] each."""

    false: NDArray[np.float64]
    discrete: NDArray[np.float64]
    continuous: NDArray[np.float64]

    def at(self, false: float) -> tuple[float, float]:
        """(discrete, continuous) where at most `false` false alarms are made."""
        last = int(np.searchsorted(self.false, false, side="right")) - 1
        return (float(self.discrete[last]), float(self.continuous[last])) if last >= 0 else (0.0, 0.0)


def roc(found: Sequence[Detections], photos: Sequence[Photo]) -> Roc:
    """FDDB's curves over a set of images.

    At each threshold, detections and faces of an image are matched one to one so that the sum of their IoUs is
    largest. A pair of IoU > 0.5 is a hit of the discrete score, every pair counts its IoU for the continuous one, and
    a detection that is not a discrete hit is a false alarm.
    """
    events: list[tuple[float, float, float, float]] = []  # score, and what it adds: false, discrete, continuous
    faces = 0
    for detections, photo in zip(found, photos, strict=True):
        faces += len(photo.ellipses)
        order = np.argsort(-detections.scores, kind="stable")
        iou = overlaps(detections.xyxy[order], photo.ellipses)
        hits = total = 0.0
        for n, score in enumerate(detections.scores[order]):
            before = hits, total
            if len(photo.ellipses) and iou[n].any():
                rows, columns = linear_sum_assignment(-iou[: n + 1])
                pairs = iou[rows, columns]
                hits = float((pairs > 0.5).sum())
                total = float(pairs.sum())
            events.append((float(score), 1 - (hits - before[0]), hits - before[0], total - before[1]))
    if not events:
        return Roc(np.zeros(1), np.zeros(1), np.zeros(1))
    table = np.asarray(events)
    table = table[np.argsort(-table[:, 0], kind="stable")]
    last = np.append(table[1:, 0] != table[:-1, 0], True)  # equal scores come together
    sums = np.cumsum(table[:, 1:], 0)[last]
    return Roc(sums[:, 0], sums[:, 1] / max(1, faces), sums[:, 2] / max(1, faces))


FALSE = (100, 500, 1000, 2000)  # false alarms at which the figures are printed; the paper's axis ends at 2000


def summary(found: Sequence[Detections], photos: Sequence[Photo]) -> tuple[dict[str, Any], Roc]:
    """The printed figures of all folds together and of each, and the curve of all."""
    whole = roc(found, photos)
    folds = {}
    for fold in sorted({p.fold for p in photos}):
        chosen = [i for i, p in enumerate(photos) if p.fold == fold]
        curve = roc([found[i] for i in chosen], [photos[i] for i in chosen])
        folds[str(fold)] = [round(float(v), 4) for v in curve.at(FALSE[-1] / FOLDS)]
    at = {str(n): [round(v, 4) for v in whole.at(n)] for n in FALSE}
    return {"faces": sum(len(p.ellipses) for p in photos), "discrete_continuous_at_false": at, "folds": folds}, whole


def write_results(found: Sequence[Detections], photos: Sequence[Photo], folder: Path) -> None:
    """fold-NN-out.txt as FDDB's own evaluation reads them: name, count, `x y w h score` a detection."""
    folder.mkdir(parents=True, exist_ok=True)
    for fold in sorted({p.fold for p in photos}):
        lines = []
        for detections, photo in zip(found, photos, strict=True):
            if photo.fold == fold:
                name = "/".join((*photo.path.parts[-5:-1], photo.path.stem))
                lines += [name, str(len(detections))]
                for (x0, y0, x1, y1), score in zip(detections.xyxy, detections.scores, strict=True):
                    lines.append(f"{x0:.2f} {y0:.2f} {x1 - x0:.2f} {y1 - y0:.2f} {score:.5f}")
        (folder / f"fold-{fold:02}-out.txt").write_text("".join(line + "\n" for line in lines))
