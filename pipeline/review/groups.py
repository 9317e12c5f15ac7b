"""Groups tracks that look like the same person: by hair and clothes, unless a face matcher is asked for."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.pipeline.types import XYXY, Frame
from facestream.pipeline.video.planes import rgb_view

BINS = (8, 4, 4)  # of hue, saturation and value
ALIKE = 0.62  # share of two histograms in common from which they may be one person
VIEW = 640  # pixels of the longer side of the picture that is looked at


GroupBy = Literal["appearance", "embedding"]


class Likeness(Protocol):
    """How alike two tracks look. same_from: the likeness from which they may be one person."""

    same_from: float

    def view(self, frame: Frame) -> Any:
        """What is needed of a frame, once for all its faces."""
        ...

    def features(self, view: Any, box: XYXY) -> Array | None:
        """Of one face, None where they cannot be had."""
        ...

    def likeness(self, a: Array, b: Array) -> float:
        """Of two faces' features."""
        ...


class Appearance:
    """Hair and clothes."""

    same_from = ALIKE

    def view(self, frame: Frame) -> tuple[Array, float]:
        return appearance_view(frame)

    def features(self, view: tuple[Array, float], box: XYXY) -> Array | None:
        hsv, scale = view
        return appearance(hsv, scale, box)

    def likeness(self, a: Array, b: Array) -> float:
        return _common(a, b)


def likeness_of(group_by: GroupBy) -> Likeness:
    """Raises BadConfig where a face matcher is asked for and not installed."""
    if group_by == "appearance":
        return Appearance()
    from facestream.pipeline.review.embedding import FaceEmbedding  # an extra, and only by explicit option

    return FaceEmbedding()


def appearance_view(frame: Frame) -> tuple[Array, float]:
    """A frame's picture in hue, saturation and value, uint8 [h, w, 3], and its pixels for one of the frame's."""
    view = rgb_view(frame, (VIEW, VIEW))
    return cv2.cvtColor(view.rgb, cv2.COLOR_RGB2HSV), view.rgb.shape[1] / view.width


def appearance(hsv: Array, scale: float, box: XYXY) -> Array | None:
    """Histogram of what is above and below a face, float32 [2 * 128], None where that is outside the picture."""
    left, top, right, bottom = (v * scale for v in box)
    wide = right - left
    high = bottom - top
    parts = (
        (left, top - 0.25 * high, right, top + 0.25 * high),
        (left - 0.6 * wide, bottom + 0.3 * high, right + 0.6 * wide, bottom + 1.6 * high),
    )
    found = []
    for x0, y0, x1, y1 in parts:
        area = hsv[max(0, round(y0)) : max(0, round(y1)), max(0, round(x0)) : max(0, round(x1))]
        if area.size < 30:
            found.append(np.zeros(BINS, np.float32).ravel())
            continue
        counts = cv2.calcHist([np.ascontiguousarray(area)], [0, 1, 2], None, BINS, [0, 180, 0, 256, 0, 256]).ravel()
        found.append((counts / counts.sum()).astype(np.float32))
    out: Array = np.concatenate(found)
    return out if out.any() else None


def group(features: dict[int, Array], spans: dict[int, tuple[int, int]], by: Likeness) -> dict[int, int]:
    """track -> number of its group. Two tracks that are in the picture at the same time are never one person.

    features: of each track, by this measure of likeness. spans: its first and last frame.
    """
    tracks = sorted(features, key=lambda t: spans[t])
    members: list[list[int]] = []
    for track in tracks:
        best = None
        score = by.same_from
        for number, others in enumerate(members):
            if any(spans[o][0] <= spans[track][1] and spans[track][0] <= spans[o][1] for o in others):
                continue
            common = max(by.likeness(features[track], features[o]) for o in others[-8:])
            if common > score:
                best = number
                score = common
        if best is None:
            members.append([track])
        else:
            members[best].append(track)
    return {track: number for number, some in enumerate(members, 1) for track in some}


def _common(a: Array, b: Array) -> float:
    half = len(a) // 2
    hair, clothes = (
        float(np.minimum(x, y).sum()) if x.any() and y.any() else None
        for x, y in ((a[:half], b[:half]), (a[half:], b[half:]))
    )
    if hair is not None and clothes is not None:
        return 0.4 * hair + 0.6 * clothes
    return 0.9 * (hair or clothes or 0.0)
