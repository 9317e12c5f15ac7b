"""Boxes as plain numbers: xyxy in displayed pixels."""

from __future__ import annotations

from facestream.pipeline.types import XYXY


def grown(box: XYXY, scale: float) -> XYXY:
    """A box whose sides are longer by this factor."""
    left, top, right, bottom = box
    x = (right - left) * (scale - 1) / 2
    y = (bottom - top) * (scale - 1) / 2
    return left - x, top - y, right + x, bottom + y


def touches(a: XYXY, b: XYXY) -> bool:
    """Do two boxes share a point?"""
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def iou(a: XYXY, b: XYXY) -> float:
    """Intersection over union of two boxes."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    both = wide * high
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def rounded(box: XYXY) -> XYXY:
    """A box to a hundredth of a pixel, as records hold them."""
    left, top, right, bottom = (round(v, 2) for v in box)
    return left, top, right, bottom
