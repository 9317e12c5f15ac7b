"""Template matching: finds a face in another frame by its pixels, without a detection."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.pipeline.stages.settings import DEFAULTS, TemplateMatchSettings


@dataclass(frozen=True, slots=True)
class Match:
    """xyxy: where the face is, float64 [4], in the pixels of the luma view. score: correlation, -1..1."""

    xyxy: Array
    score: float


def match_template(
    before: Array,
    xyxy: Array,
    after: Array,
    near: Array | None = None,
    settings: TemplateMatchSettings = DEFAULTS.template_match,
) -> Match | None:
    """Find the content of the box `xyxy` of `before` in `after`: luma uint8 [h, w] of the same size.

    Uses normalised correlation, so brightness and contrast may change; the box's size stays constant. near: predicted
    box around which to search; without it, the old one. Only the part that would be in both frames is compared. Returns
    None if that is too small, or outside. Accurate to half a pixel of the (reduced) luma.
    """
    height, width = before.shape
    x0, y0, x1, y1 = xyxy.tolist()  # plain numbers: for four of them numpy takes ten times as long
    to_x0, to_y0, to_x1, to_y1 = (xyxy if near is None else near).tolist()
    dx = round((to_x0 + to_x1 - x0 - x1) / 2)
    dy = round((to_y0 + to_y1 - y0 - y1) / 2)
    x0 = max(math.floor(x0), 0, -dx)
    y0 = max(math.floor(y0), 0, -dy)
    x1 = min(math.ceil(x1), width + min(0, -dx))
    y1 = min(math.ceil(y1), height + min(0, -dy))
    w = x1 - x0
    h = y1 - y0
    if min(w, h) < settings.min_side:
        return None
    reach = math.ceil(settings.search_range * max(w, h))
    left = max(0, x0 + dx - reach)
    top = max(0, y0 + dy - reach)
    window = after[top : min(height, y1 + dy + reach), left : min(width, x1 + dx + reach)]
    patch = before[y0:y1, x0:x1]
    scale = min(1.0, settings.side / max(w, h))
    if scale < 1:
        patch, window = (cv2.resize(p, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for p in (patch, window))
    flat = cv2.meanStdDev(patch)[1][0, 0] < settings.min_deviation
    if flat or window.shape[0] < patch.shape[0] or window.shape[1] < patch.shape[1]:
        return None
    table = cv2.matchTemplate(window, patch, cv2.TM_CCOEFF_NORMED)
    _, score, _, (column, row) = cv2.minMaxLoc(table)
    across = left + column / scale - x0
    down = top + row / scale - y0
    return Match(xyxy + np.array([across, down, across, down]), float(score))
