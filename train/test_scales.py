"""Test scales: images are evaluated at their own size, scaled, on the paper's pyramid, or on SNIP's levels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from facestream.engines.base import Detector
from facestream.engines.boxes import Array
from facestream.engines.errors import BadConfig
from facestream.engines.letterbox import ImageView, view
from facestream.engines.types import Detections
from facestream.train.snip import LEVELS, Level, merge, selected

PYRAMID = (500, 800, 1200, 1600)  # shorter sides (paper section 4.3)
PYRAMID_BASE = (800, 1200)  # which the picture is fitted to first


def scale_to(width: int, height: int, shortest: int, longest: int) -> float:
    """What brings the shorter side to `shortest`, or the longer one to `longest` if it would pass that."""
    return min(shortest / min(width, height), longest / max(width, height))


def resized(rgb: Array, scale: float) -> Array:
    """The picture, larger or smaller."""
    height, width = rgb.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return rgb
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def scaled(rgb: Array, scale: float) -> ImageView:
    height, width = rgb.shape[:2]
    return ImageView(resized(rgb, scale), width, height)


@dataclass(frozen=True, slots=True)
class InputSize:
    """`400x800`: shorter side 400 unless the longer would pass 800, larger or smaller (paper, table 2). `640x384`,
    the larger number first: width and height that the picture is shrunk into, never enlarged."""

    first: int
    second: int

    def view(self, rgb: Array) -> ImageView:
        height, width = rgb.shape[:2]
        if self.first < self.second:
            return scaled(rgb, scale_to(width, height, self.first, self.second))
        return view(rgb, (self.first, self.second))


def parse_size(text: str) -> InputSize | None:
    """`native` -> None, else a `InputSize`."""
    if text == "native":
        return None
    try:
        first, second = (int(v) for v in text.lower().split("x"))
    except ValueError:
        raise BadConfig(f"{text!r} is neither native nor like 1200x1600 or 640x384", "--size") from None
    if min(first, second) < 1 or max(first, second) > 10_000:
        raise BadConfig(f"{text!r} is not between 1 and 10000 pixels", "--size")
    return InputSize(first, second)


def pyramid_scales(width: int, height: int) -> list[float]:
    """The scales of the paper's four levels, smallest first: the picture fitted to 800x1200, then by 500, 800, 1200
    and 1600 over 800 of that, so a level's longer side may reach 2400 (section 4.3)."""
    base = scale_to(width, height, *PYRAMID_BASE)
    return [base * side / PYRAMID_BASE[0] for side in PYRAMID]


@dataclass(frozen=True, slots=True)
class Scales:
    """size: see `InputSize`; None: the image's own. zoom: scales the image first; the result counts as the image.
    pyramid: the paper's four sizes. levels: SNIP's. soft: merge by soft-NMS instead of NMS."""

    size: InputSize | None = None
    zoom: float = 1.0
    pyramid: bool = False
    levels: tuple[Level, ...] = ()
    soft: bool = False

    def detect(self, detector: Detector, rgb: Array) -> Detections:
        """Faces in pixels of `rgb`, uint8 [H, W, 3]."""
        height, width = rgb.shape[:2]
        zoomed = resized(rgb, self.zoom) if self.zoom != 1 else rgb
        found = self._detect(detector, zoomed)
        if zoomed is rgb:
            return found
        scale = np.array([width / zoomed.shape[1], height / zoomed.shape[0]] * 2, np.float32)
        return Detections(found.xyxy * scale, found.scores)

    def _detect(self, detector: Detector, rgb: Array) -> Detections:
        height, width = rgb.shape[:2]
        min_score = detector.options.threshold
        if self.pyramid:
            *smaller, largest = [scaled(rgb, scale) for scale in pyramid_scales(width, height)]
            found = [detector.detect([v])[0] for v in smaller]
            found.append(detector.detect([largest], coarsest=False)[0])  # "except M3" (section 4.3)
            return merge(found, detector.options.nms_iou, self.soft, min_score)
        if self.levels:
            found = []
            for level in self.levels:
                v = scaled(rgb, scale_to(width, height, level.shortest, level.longest))
                found.append(selected(detector.detect([v])[0], level))
            return merge(found, detector.options.nms_iou, self.soft, min_score)
        return detector.detect([self.size.view(rgb) if self.size else view(rgb)])[0]


def scales_from_options(
    size: str | None,
    protocol: str,
    zoom: float,
    pyramid: bool,
    snip: bool,
    soft: bool,
    levels: tuple[Level, ...] = LEVELS,
) -> Scales:
    """The test scales from the command's options. FDDB, Pascal-Faces and AFW: 400x800, as in the paper (4.4)."""
    if (size is not None) + pyramid + snip > 1:
        raise BadConfig("give one of --size, --pyramid and --snip")
    if not 0 < zoom <= 8:
        raise BadConfig(f"{zoom} is not in 0..8", "--zoom")
    if size is None and not pyramid and not snip:
        size = "native" if protocol == "wider" else "400x800"
    return Scales(parse_size(size or "native"), zoom, pyramid, levels if snip else (), soft)


def trained_levels(weights: Path | None) -> tuple[Level, ...]:
    """The levels that the weights were trained with, if by SNIP; else the paper's."""
    if weights is None:
        return LEVELS
    from facestream.train.checkpoint import load_weights

    config = load_weights(weights)[1].get("config", {})
    return tuple(Level(**level) for level in config["levels"]) if config.get("snip") else LEVELS
