"""Pascal-Faces and AFW: their truth as published, and VOC's average precision (paper section 4.4, figure 6c)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from facestream.engines.boxes import F32, Bool, iou_xyxy
from facestream.engines.errors import BadInput
from facestream.engines.types import Detections
from facestream.train.data import SUFFIXES, Labelled
from facestream.train.wider import PLUS_ONE, Curve, average_precision
from scipy.io import loadmat

# What Mathias et al. (ECCV 2014) published of both sets, and AFW's own file (Zhu and Ramanan, CVPR 2012).
FILES = {
    "pascal": ("Annotations_Face_PASCALLayout_large_fixed.mat", "Annotations_Face_PASCALLayout_large.mat"),
    "afw": ("new_annotations_AFW.mat", "anno.mat", "anno2.mat"),
}


def read_faces(root: Path, name: str) -> list[Labelled]:
    """The images of `root` (anywhere below it) with the boxes of the first of FILES[name] that is there.

    A struct `Annotations` holds `imgname` and `objects`, rows of x1 y1 x2 y2 and, from the sixth column on, whether to
    ignore the face; AFW's own cell array `anno` holds a name and cells of [[x1, y1], [x2, y2]].
    """
    paths = [p for file in FILES[name] for p in sorted(root.rglob(file))]
    if not paths:
        raise BadInput("no annotations", str(root), f"{name} needs {' or '.join(FILES[name])} below --data")
    try:
        table: dict[str, Any] = loadmat(paths[0])
    except (OSError, ValueError, NotImplementedError) as e:
        raise BadInput(f"cannot read the truth ({e})", str(paths[0])) from None
    pictures: dict[str, Path] = {}
    for p in sorted(root.rglob("*")):
        if p.suffix.lower() in SUFFIXES:
            pictures.setdefault(p.stem, p)
    out = []
    try:
        rows = _structs(table["Annotations"]) if "Annotations" in table else _cells(table["anno"])
    except (KeyError, IndexError, ValueError, TypeError) as e:
        raise BadInput(f"neither `Annotations` nor `anno` of the known form ({e})", str(paths[0])) from None
    for i, (image, boxes) in enumerate(rows):
        stem = Path(image.replace("\\", "/")).stem
        xyxy = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:4]), np.maximum(boxes[:, :2], boxes[:, 2:4])], 1)
        ignore = boxes[:, 5] != 0 if boxes.shape[1] > 5 else np.zeros(len(boxes), bool)
        path = pictures.get(stem, root / image)
        out.append(
            Labelled(path, xyxy.astype(np.float32), ignore | (xyxy[:, 2:] <= xyxy[:, :2]).any(1), f"{paths[0]}", i + 1)
        )
    return out


def _structs(table: Any) -> list[tuple[str, Any]]:
    rows = []
    for entry in table.reshape(-1):
        boxes = np.asarray(entry["objects"], np.float64)
        rows.append(
            (
                str(np.asarray(entry["imgname"]).reshape(-1)[0]),
                boxes.reshape(len(boxes), -1) if boxes.size else np.zeros((0, 4)),
            )
        )
    return rows


def _cells(table: Any) -> list[tuple[str, Any]]:
    rows = []
    for entry in table:
        boxes = [np.asarray(box, np.float64).reshape(-1)[:4] for box in entry[1].reshape(-1)]
        rows.append((str(entry[0].reshape(-1)[0]), np.asarray(boxes).reshape(-1, 4)))
    return rows


def voc_curve(found: Sequence[Detections], truth: Sequence[F32], ignore: Sequence[Bool], iou: float = 0.5) -> Curve:
    """VOC's precision and recall over all detections of a set, best first, and its AP (area under the curve).

    A detection belongs to the face it overlaps most; the first on a face is right, later ones are wrong, those on
    an ignored face count for nothing.
    """
    scores = []
    right = []
    wrong = []
    for detections, boxes, skip in zip(found, truth, ignore, strict=True):
        order = np.argsort(-detections.scores, kind="stable")
        overlap = iou_xyxy(detections.xyxy[order] + PLUS_ONE, boxes + PLUS_ONE)
        taken = np.zeros(len(boxes), bool)
        for score, row in zip(detections.scores[order], overlap, strict=True):
            best = int(row.argmax()) if len(row) else -1
            hit = best >= 0 and row[best] > iou
            scores.append(float(score))
            right.append(bool(hit and not skip[best] and not taken[best]))
            wrong.append(bool(not hit or (not skip[best] and taken[best])))
            if hit:
                taken[best] = True
    ranks = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    tp = np.cumsum(np.asarray(right, float)[ranks]) if scores else np.zeros(0)
    fp = np.cumsum(np.asarray(wrong, float)[ranks]) if scores else np.zeros(0)
    recall = tp / max(1, sum(int((~skip).sum()) for skip in ignore))
    precision = tp / np.maximum(tp + fp, 1)
    return Curve(precision, recall, average_precision(precision, recall))
