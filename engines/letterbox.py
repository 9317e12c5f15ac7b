"""Letterbox: fits images into a detector's input without changing their aspect ratio.

The detector gets a reduced copy, padded with grey on the right and at the bottom to multiples of 32, so mapping boxes
back needs only the two scale factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from facestream.engines.boxes import Array

STRIDE = 32
GREY = 127


@dataclass(frozen=True, slots=True)
class ImageView:
    """What a detector gets to see of a picture.

    rgb: uint8 [h, w, 3]. width, height: of the picture it shows, in whose pixels boxes are returned.
    padded: what pad() makes of rgb, where it is there already. parts: left, top, right, bottom in pixels of rgb of what
    comes from different places of a picture; empty: all of it is one.
    """

    rgb: Array
    width: int
    height: int
    padded: Array | None = None
    parts: tuple[tuple[int, int, int, int], ...] = ()


def fit(width: int, height: int, limit_width: int, limit_height: int) -> tuple[int, int]:
    """The largest (width, height) of the same shape inside the limit; never larger than the picture.

    The limit is turned with the picture: 640x384 means 384x640 for an upright one.
    """
    if (width < height) != (limit_width < limit_height):
        limit_width, limit_height = limit_height, limit_width
    scale = min(1.0, limit_width / width, limit_height / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def view(rgb: Array, limit: tuple[int, int] | None = None) -> ImageView:
    """A view of an RGB uint8 [H, W, 3] picture inside `limit` (width, height); None: at its own size."""
    height, width = rgb.shape[:2]
    if limit is not None:
        size = fit(width, height, *limit)
        if size != (width, height):
            rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return ImageView(rgb, width, height)


def canvas(width: int, height: int) -> Array:
    """Grey [H, W, 3], sides multiples of 32, for a picture of this size: once that is in its upper left corner, it is
    what pad() makes of it."""
    return np.full((height + -height % STRIDE, width + -width % STRIDE, 3), GREY, np.uint8)


def pad(rgb: Array) -> Array:
    """[h, w, 3] -> the same with grey to the right and below, both sides multiples of 32."""
    h, w = rgb.shape[:2]
    down = -h % STRIDE
    right = -w % STRIDE
    if not down and not right:
        return np.ascontiguousarray(rgb)
    return cv2.copyMakeBorder(rgb, 0, down, 0, right, cv2.BORDER_CONSTANT, value=(GREY, GREY, GREY))
