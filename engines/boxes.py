"""Box arithmetic in numpy. Boxes are `xyxy` = left, top, right, bottom, in pixels, edges exclusive."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Bool = NDArray[np.bool_]
Array = NDArray[Any]


def area_xyxy(xyxy: Array) -> Array:
    """[..., 4] -> [...]; an inverted box has area 0."""
    area: Array = np.clip(xyxy[..., 2] - xyxy[..., 0], 0, None) * np.clip(xyxy[..., 3] - xyxy[..., 1], 0, None)
    return area


def intersection_xyxy(a: Array, b: Array) -> Array:
    """Pairwise overlap areas of [N, 4] and [M, 4] -> [N, M]."""
    left_top = np.maximum(a[:, None, :2], b[None, :, :2])
    right_bottom = np.minimum(a[:, None, 2:], b[None, :, 2:])
    side = np.clip(right_bottom - left_top, 0, None)
    area: Array = side[..., 0] * side[..., 1]
    return area


def iou_xyxy(a: Array, b: Array) -> Array:
    """Pairwise intersection over union of [N, 4] and [M, 4] -> [N, M]; two empty boxes give 0."""
    inter = intersection_xyxy(a, b)
    union = area_xyxy(a)[:, None] + area_xyxy(b)[None, :] - inter
    iou: Array = inter / np.maximum(union, 1e-9)
    return iou


def union_xyxy(a: Array, b: Array) -> Array:
    """The smallest box [4] around two."""
    return np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])])


def grow_xyxy(xyxy: Array, scale: float | Array) -> Array:
    """Boxes grown about their centres: width and height times `scale` (a number or [N])."""
    if xyxy.ndim == 1:  # one box: numpy takes ten times as long as plain numbers
        left, top, right, bottom = xyxy.tolist()
        x = (left + right) / 2
        y = (top + bottom) / 2
        wide = (right - left) / 2 * scale
        high = (bottom - top) / 2 * scale
        return np.array([x - wide, y - high, x + wide, y + high])
    centre = (xyxy[..., :2] + xyxy[..., 2:]) / 2
    half = (xyxy[..., 2:] - xyxy[..., :2]) / 2 * np.asarray(scale)[..., None]
    return np.concatenate([centre - half, centre + half], axis=-1)
