"""Very large and very wide pictures in tiles, so that their small faces are not shrunk below what a detector finds.

scale < 1/4 (anything beyond 4K, panoramas)  ->  the full view and tiles at 1/2: a face of 24 px keeps 12
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.letterbox import fit
from facestream.engines.types import Detections
from facestream.pipeline.types import Frame

FOUND_PX = 8.0  # side of a face in the detector's input from which on it is found, mostly
_TILED_BELOW = 0.25  # pixels of the view for one of the picture's
_TILE_SCALE = 1 / 2  # at 1/3 and 5/12 one face of the street clip in seven was missed
_LARGE_PX = 16.0  # side in the full view of faces that need no tile: tiles overlap by those that do
_EDGE_PX = 1.0  # by which a box may stay away from the edge that cuts it

Region = tuple[int, int, int, int]  # left, top, right, bottom in displayed pixels


@dataclass(frozen=True, slots=True)
class Tiling:
    """regions: of the displayed picture, all of one size. size: width and height of each in the detector's input.
    scale: pixels of that for one square pixel of the picture."""

    regions: tuple[Region, ...]
    size: tuple[int, int]
    scale: float

    def merge(self, whole: Detections, found: list[Detections], frame_size: tuple[int, int], iou: float) -> Detections:
        """What was found in the full view and in each tile, in pixels of the displayed picture. A face that a tile's
        edge cuts is whole in its neighbour, or large enough for the full view."""
        boxes = [whole.xyxy]
        scores = [whole.scores]
        for region, part in zip(self.regions, found, strict=True):
            shifted: Array = part.xyxy + np.array([*region[:2], *region[:2]], np.float32)
            low = (shifted[:, :2] > np.array(region[:2]) + _EDGE_PX) | (np.array(region[:2]) <= 0)
            high = (shifted[:, 2:] < np.array(region[2:]) - _EDGE_PX) | (np.array(region[2:]) >= np.array(frame_size))
            inside = low.all(1) & high.all(1)
            boxes.append(shifted[inside])
            scores.append(part.scores[inside])
        merged = Detections(np.concatenate(boxes).astype(np.float32), np.concatenate(scores))
        return merged.select(np.argsort(-merged.scores, kind="stable")).nms(iou)


def tiling_of(frame: Frame, limit: tuple[int, int], tiles: int | str) -> Tiling | None:
    """The tiles of a frame; None where the full view does. limit: width and height of the detector's input. tiles:
    auto, or how many along the longer side (1: none)."""
    return _tiling(frame.size, frame.stretch, limit, tiles)


@lru_cache(maxsize=8)
def _tiling(
    size: tuple[int, int], stretch: tuple[float, float], limit: tuple[int, int], tiles: int | str
) -> Tiling | None:
    width = size[0] * stretch[0]
    height = size[1] * stretch[1]
    full = fit(round(width), round(height), *limit)[0] / width
    if (tiles == "auto" and full >= _TILED_BELOW - 1e-3) or tiles == 1:
        return None
    if tiles == "auto":
        tile_width = min(width, limit[0] / _TILE_SCALE)
        tile_height = min(height, limit[1] / _TILE_SCALE)
    else:
        share = max(width / limit[0], height / limit[1]) / (0.9 * int(tiles))
        tile_width = min(width, limit[0] * share)
        tile_height = min(height, limit[1] * share)
    overlap = min(_LARGE_PX / full, tile_width / 2, tile_height / 2)
    scale = min(1.0, limit[0] / tile_width, limit[1] / tile_height)
    lefts = _starts(width, tile_width, overlap)
    tops = _starts(height, tile_height, overlap)
    wide = min(size[0], math.ceil(tile_width / stretch[0] / 2) * 2)
    high = min(size[1], math.ceil(tile_height / stretch[1] / 2) * 2)
    regions = []
    for top in tops:
        for left in lefts:
            x = min(math.ceil(left / stretch[0] / 2) * 2, (size[0] - wide + 1) // 2 * 2)
            y = min(math.ceil(top / stretch[1] / 2) * 2, (size[1] - high + 1) // 2 * 2)
            regions.append((x, y, min(x + wide, size[0]), min(y + high, size[1])))
    fitted = max(2, round(wide * stretch[0] * scale / 2) * 2), max(2, round(high * stretch[1] * scale / 2) * 2)
    return Tiling(tuple(dict.fromkeys(regions)), fitted, scale)


def _starts(length: float, tile: float, overlap: float) -> list[float]:
    count = max(1, math.ceil((length - overlap) / (tile - overlap) - 1e-9))
    return [i * (length - tile) / max(1, count - 1) for i in range(count)]


def detection_scale(frame: Frame, limit: tuple[int, int], tiles: int | str) -> float:
    """Pixels of the detector's input for one square pixel of the picture, where it sees it best."""
    tiling = tiling_of(frame, limit, tiles)
    return fit(*frame.square_size, *limit)[0] / frame.square_size[0] if tiling is None else tiling.scale
