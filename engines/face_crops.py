"""Crops of what a detector has found, for the verifier: each box with its surroundings, at one size."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from facestream.engines.boxes import F32, Array
from facestream.engines.letterbox import GREY

SIDE = 80  # pixels of a crop
CONTEXT = 2.0  # a crop's side over the box's, which is the root of its area

Part = tuple[int, int, int, int]  # left, top, right, bottom in pixels of an image


def part_of(box: F32, parts: Sequence[Part], whole: Part) -> Part:
    """The part that the box's centre lies in; `whole` where it lies in none."""
    x = float(box[0] + box[2]) / 2
    y = float(box[1] + box[3]) / 2
    return next((p for p in parts if p[0] <= x < p[2] and p[1] <= y < p[3]), whole)


def bordered(rgb: Array, top: int, bottom: int, left: int, right: int) -> Array:
    """An RGB image [h, w, 3] with its outermost pixels repeated so many times on each side: the verifier measures each
    crop's light and contrast, which a border of one colour would change."""
    out: Array = cv2.copyMakeBorder(rgb, top, bottom, left, right, cv2.BORDER_REPLICATE)
    return out


def face_crop(rgb: Array, box: F32, bounds: Part, side: int = SIDE, context: float = CONTEXT) -> Array:
    """uint8 [side, side, 3] of an RGB image [h, w, 3] around a box [4] in its pixels; what `bounds` cuts off is shown
    as `bordered` does, and grey where nothing is left."""
    left, top, right, bottom = (float(v) for v in box)
    half = max(1.0, context / 2 * (max(1.0, right - left) * max(1.0, bottom - top)) ** 0.5)
    x0 = round((left + right) / 2 - half)
    y0 = round((top + bottom) / 2 - half)
    length = max(2, round(2 * half))
    a = min(max(x0, bounds[0]), bounds[2])
    b = min(max(y0, bounds[1]), bounds[3])
    c = max(a, min(x0 + length, bounds[2]))
    d = max(b, min(y0 + length, bounds[3]))
    seen = rgb[b:d, a:c]
    edges = b - y0, y0 + length - d, a - x0, x0 + length - c
    if c == a or d == b:
        return np.full((side, side, 3), GREY, np.uint8)
    if any(edges):
        seen = bordered(seen, *edges)
    crop: Array = cv2.resize(seen, (side, side), interpolation=cv2.INTER_AREA if length > side else cv2.INTER_LINEAR)
    return crop


def face_crops(rgb: Array, xyxy: F32, parts: Sequence[Part] = (), side: int = SIDE, context: float = CONTEXT) -> Array:
    """uint8 [N, side, side, 3], a crop of an RGB image [h, w, 3] for each box [N, 4] in its pixels.

    parts: of the image that show different pictures; a crop shows nothing beyond the part that its box lies in.
    """
    whole = (0, 0, rgb.shape[1], rgb.shape[0])
    out = np.empty((len(xyxy), side, side, 3), np.uint8)
    for i, box in enumerate(xyxy):
        out[i] = face_crop(rgb, box, part_of(box, parts, whole), side, context)
    return out
