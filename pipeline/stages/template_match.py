"""Following a face from one picture to the next by its looks, where no detector fired."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from facestream.engines.boxes import Array

SIDE = 32  # pixels to which a face is shrunk before it is compared
SMALLEST = 6  # sides in luma pixels under which a face has no looks of its own
REACH = 0.6  # how far it may have moved between two pictures, in its own sides


@dataclass(frozen=True, slots=True)
class Match:
    """xyxy: where the face is, float64 [4], in the pixels of the luma view. score: correlation, -1..1."""

    xyxy: Array
    score: float


def match_template(before: Array, xyxy: Array, after: Array, near: Array | None = None) -> Match | None:
    """Where what lies in the box `xyxy` of the picture `before` lies in `after`: luma uint8 [h, w] of one size.

    Normalised correlation, so brightness and contrast may change; the size stays. near: where the box is thought to
    be, and sought around; without it, where it was. Only the part that would be in both pictures is compared. None
    when that is too small, or outside. The box is found as near as half a pixel of the (shrunk) view.
    """
    height, width = before.shape
    x0, y0, x1, y1 = xyxy.tolist()  # plain numbers: for four of them numpy takes ten times as long
    to_x0, to_y0, to_x1, to_y1 = (xyxy if near is None else near).tolist()
    dx, dy = round((to_x0 + to_x1 - x0 - x1) / 2), round((to_y0 + to_y1 - y0 - y1) / 2)
    x0, y0 = max(math.floor(x0), 0, -dx), max(math.floor(y0), 0, -dy)
    x1, y1 = min(math.ceil(x1), width + min(0, -dx)), min(math.ceil(y1), height + min(0, -dy))
    w, h = x1 - x0, y1 - y0
    if min(w, h) < SMALLEST:
        return None
    far = math.ceil(REACH * max(w, h))
    left, top = max(0, x0 + dx - far), max(0, y0 + dy - far)
    window = after[top : min(height, y1 + dy + far), left : min(width, x1 + dx + far)]
    patch = before[y0:y1, x0:x1]
    scale = min(1.0, SIDE / max(w, h))
    if scale < 1:
        patch, window = (cv2.resize(p, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for p in (patch, window))
    if cv2.meanStdDev(patch)[1][0, 0] < 2 or window.shape[0] < patch.shape[0] or window.shape[1] < patch.shape[1]:
        return None  # nothing to go by
    table = cv2.matchTemplate(window, patch, cv2.TM_CCOEFF_NORMED)
    _, score, _, (column, row) = cv2.minMaxLoc(table)
    across, down = left + column / scale - x0, top + row / scale - y0
    return Match(xyxy + np.array([across, down, across, down]), float(score))
