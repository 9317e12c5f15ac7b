"""The WIDER FACE protocol: precision and recall over a set of images, and the average precision.

As in the authors' evaluation code: scores are normalised over the whole set, a detection belongs to
the face it overlaps most (IoU >= 0.5, sides counted with + 1 pixel), one on an ignored face counts for
nothing, a second one on the same face counts as false, 1000 thresholds make the curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from facestream.engines.boxes import F32, Array, Bool, iou_xyxy
from facestream.engines.errors import BadInput
from facestream.engines.types import Detections
from facestream.train.data import Labelled, read_split
from numpy.typing import NDArray
from scipy.io import loadmat

THRESHOLDS = 1000
PLUS_ONE = np.array([0, 0, 1, 1], np.float32)


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and recall at falling score thresholds, float64 [THRESHOLDS] each, and their AP."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    ap: float


def match(found: Detections, truth: F32, ignore: Bool, iou: float = 0.5) -> tuple[NDArray[np.intp], Bool]:
    """One image: faces recalled once the detections 0..i are in, int [N], and whether detection i counts, bool [N].

    Detections must be sorted, best first. truth: xyxy [G, 4]; ignore: bool [G].
    """
    recalled = np.zeros(len(found), np.intp)
    counts = np.ones(len(found), bool)
    if not len(truth):
        return recalled, counts
    overlap = iou_xyxy(found.xyxy + PLUS_ONE, truth + PLUS_ONE)
    taken = np.zeros(len(truth), bool)
    for i, row in enumerate(overlap):
        best = int(row.argmax())
        if row[best] >= iou:
            if ignore[best]:
                counts[i] = False
            else:
                taken[best] = True
        recalled[i] = taken.sum()
    return recalled, counts


def missed(found: Detections, item: Labelled, threshold: float) -> tuple[F32, Bool]:
    """The faces of an image, xyxy [G, 4], and which of them no detection of at least `threshold` meets (IoU 0.5)."""
    truth = item.xyxy[~item.ignore]
    accepted = found.filter_by_score(threshold).xyxy
    best = iou_xyxy(truth, accepted).max(1) if len(accepted) and len(truth) else np.zeros(len(truth))
    return truth, best < 0.5


def average_precision(precision: Array, recall: Array) -> float:
    """Area under the curve with precision made falling (VOC 2010)."""
    r = np.concatenate([[0.0], recall, [1.0]])
    p = np.concatenate([[0.0], precision, [0.0]])
    p = np.maximum.accumulate(p[::-1])[::-1]
    steps = np.flatnonzero(r[1:] != r[:-1])
    return float(((r[steps + 1] - r[steps]) * p[steps + 1]).sum())


def evaluate(found: Sequence[Detections], truth: Sequence[F32], ignore: Sequence[Bool]) -> Curve:
    """The curve of a set: detections, faces xyxy and their ignore flags, image by image."""
    scores = np.concatenate([d.scores for d in found]) if found else np.zeros(0, np.float32)
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    levels = 1 - (np.arange(THRESHOLDS) + 1) / THRESHOLDS
    proposals = np.zeros(THRESHOLDS)
    recalls = np.zeros(THRESHOLDS)
    faces = 0
    for detections, boxes, skip in zip(found, truth, ignore, strict=True):
        faces += int((~skip).sum())
        if not len(detections):
            continue  # unlike the original, images without a face are not skipped: false alarms there count
        order = np.argsort(-detections.scores, kind="stable")
        ranked = Detections(detections.xyxy[order], detections.scores[order])
        recalled, counts = match(ranked, boxes, skip)
        normal = (ranked.scores - low) / max(high - low, 1e-12)
        last = np.searchsorted(-normal, -levels, side="right")  # number of detections at or above each level
        proposals += np.concatenate([[0], np.cumsum(counts)])[last]
        recalls += np.concatenate([[0], recalled])[last]
    precision = recalls / np.maximum(proposals, 1)
    recall = recalls / max(1, faces)
    return Curve(precision, recall, average_precision(precision, recall))


DIFFICULTIES = ("easy", "medium", "hard")


def read_mat(root: Path) -> dict[str, list[Labelled]]:
    """WIDER's official truth, `wider_face_split/wider_{face,easy,medium,hard}_val.mat`, for each difficulty.

    All faces of an image are there each time; those that do not belong to the difficulty are ignored.
    """
    folder = root / "wider_face_split"
    truth = _load(folder / "wider_face_val.mat")
    sets: dict[str, list[Labelled]] = {}
    for difficulty in DIFFICULTIES:
        chosen = _load(folder / f"wider_{difficulty}_val.mat")["gt_list"]
        images = []
        for e, event in enumerate(truth["event_list"][:, 0]):
            for i, name in enumerate(truth["file_list"][e, 0][:, 0]):
                xywh = np.asarray(truth["face_bbx_list"][e, 0][i, 0], np.float32).reshape(-1, 4)
                ignore = np.ones(len(xywh), bool)
                ignore[np.asarray(chosen[e, 0][i, 0], np.intp).reshape(-1) - 1] = False  # Matlab counts from 1
                path = root / "WIDER_val" / "images" / str(event[0]) / f"{name[0]}.jpg"
                images.append(Labelled(path, np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1), ignore))
        sets[difficulty] = images
    return sets


def _load(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = loadmat(path)
    except (OSError, ValueError, NotImplementedError) as e:
        raise BadInput(f"cannot read the truth ({e})", str(path)) from None
    return table


def read_validation(root: Path) -> dict[str, list[Labelled]]:
    """The validation truth of a WIDER-layout folder: easy, medium and hard from the .mat files, else all."""
    if all((root / "wider_face_split" / f"wider_{name}_val.mat").is_file() for name in ("face", *DIFFICULTIES)):
        return read_mat(root)
    return {"all": read_split(root, "val")}


def published_curve(path: Path) -> Curve:
    """A curve as authors publish it, `wider_pr_info_*.mat` with precision and recall in `pr_cruve` (sic)."""
    import h5py

    with h5py.File(path) as file:
        precision, recall = np.asarray(file["pr_cruve"], np.float64)
    return Curve(precision, recall, average_precision(precision, recall))


def published_curves(folder: Path) -> dict[str, Curve]:
    """All of `wider_pr_info_NAME_DIFFICULTY_val.mat` in a folder, as `NAME difficulty`. BadInput when there is none."""
    found = {}
    for path in sorted(folder.glob("wider_pr_info_*_val.mat")):
        name, difficulty = path.stem.removeprefix("wider_pr_info_").removesuffix("_val").rsplit("_", 1)
        found[f"{name} {difficulty}"] = published_curve(path)
    if not found:
        raise BadInput("no wider_pr_info_*_val.mat", str(folder), "the authors' curves, as their repository has them")
    return found


def read_test(root: Path) -> list[Labelled]:
    """The images of the test set, whose truth is not public: `wider_face_split/wider_face_test_filelist.txt`."""
    listing = root / "wider_face_split" / "wider_face_test_filelist.txt"
    if not listing.is_file():
        raise BadInput("not found", str(listing), "--data must hold WIDER_test/ and wider_face_split/")
    names = [line.strip() for line in listing.read_text().splitlines() if line.strip()]
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, bool)
    return [
        Labelled(root / "WIDER_test" / "images" / name, *nothing, str(listing), i) for i, name in enumerate(names, 1)
    ]


def write_results(found: Sequence[Detections], items: Sequence[Labelled], folder: Path) -> None:
    """EVENT/NAME.txt as WIDER's own evaluation and its server read them: name, count, `left top width height score`."""
    for detections, item in zip(found, items, strict=True):
        path = folder / item.path.parent.name / f"{item.path.stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            f"{x0:.1f} {y0:.1f} {x1 - x0:.1f} {y1 - y0:.1f} {score:.5f}"
            for (x0, y0, x1, y1), score in zip(detections.xyxy, detections.scores, strict=True)
        ]
        path.write_text("".join(f"{line}\n" for line in [item.path.stem, len(rows), *rows]))
