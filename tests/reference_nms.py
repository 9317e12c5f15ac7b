"""Greedy non-maximum suppression in numpy alone: what nms.cu and Detections.nms must give."""

from __future__ import annotations

import numpy as np
from facestream.engines.boxes import Array, area_xyxy, intersection_xyxy
from numpy.typing import NDArray


def nms_xyxy(xyxy: Array, scores: Array, iou_threshold: float) -> NDArray[np.intp]:
    """Indices kept, best score first, ties by lower index.

    A box goes when its IoU with a better kept box is *above* the threshold (Faster R-CNN's rule, which SSH uses with
    0.3 over the boxes of all its modules together, paper section 4.1).
    """
    order = np.argsort(-scores, kind="stable")
    boxes = np.ascontiguousarray(xyxy[order], dtype=np.float32)
    areas = area_xyxy(boxes)
    alive = np.ones(len(order), bool)
    keep = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        keep.append(order[i])
        rest = np.flatnonzero(alive[i + 1 :]) + i + 1
        if len(rest):
            inter = intersection_xyxy(boxes[i : i + 1], boxes[rest])[0]
            union = areas[i] + areas[rest] - inter
            alive[rest[inter > iou_threshold * np.maximum(union, 1e-9)]] = False
    return np.asarray(keep, np.intp)
