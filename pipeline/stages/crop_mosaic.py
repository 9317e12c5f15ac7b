"""A sheet of cut-outs: the places where faces are known to be, side by side in one small picture for the detector.

Where a face was a moment ago it most likely still is. So between two looks at the whole picture the detector is shown
these places alone, at a fraction of the cost: as fine as in full size, but for large faces, which need fewer pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from facestream.engines.boxes import Array, Bool
from facestream.engines.letterbox import STRIDE, ImageView, canvas
from facestream.engines.types import Detections
from facestream.pipeline.types import Frame
from facestream.pipeline.video.planes import part_rgb, planes

LARGEST = 64.0  # pixels of the sheet above which a face is shrunk further
# Above which there is no sheet: a coarse look shows such a face well, and half of the picture, shrunk to LARGEST, looks
# like one too often.
HUGE = 256.0
AROUND, LEAST = 0.75, 16.0  # what is shown around a face to each side: in its own sides; pixels of the sheet at least
WITHIN, AS_FINE = 0.25, 0.7  # a face that another cut-out shows with so much around it, and nearly as fine, needs none
GAP = 8  # pixels of grey between two cut-outs
OVER = 0.5  # pixels by which a box may reach over an edge of its cut-out that is not the picture's

Region = tuple[int, int, int, int]  # left, top, right, bottom in displayed pixels


@dataclass(frozen=True, slots=True)
class Crop:
    """A region of the displayed picture, and its size on the sheet in pixels. scale: pixels of the sheet for one square
    pixel of the picture."""

    region: Region
    width: int
    height: int
    scale: float = 1.0

    def shows(self, box: list[float], more: float, size: tuple[int, int]) -> bool:
        """Is a box, with so much around it as far as the picture goes, inside."""
        left, top, right, bottom = self.region
        return (
            left <= max(0, box[0] - more)
            and top <= max(0, box[1] - more)
            and right >= min(size[0], box[2] + more)
            and bottom >= min(size[1], box[3] + more)
        )


@dataclass(frozen=True, slots=True)
class CropMosaic:
    """cuts: with the left and upper edge of their places. width, height: multiples of the net's stride; 0: no cuts."""

    cuts: tuple[tuple[Crop, int, int], ...]
    width: int
    height: int

    def view(self, frame: Frame) -> ImageView:
        """What the detector is shown of a frame."""
        rgb, layers = canvas(self.width, self.height), planes(frame.picture)
        for cut, x, y in self.cuts:
            rgb[y : y + cut.height, x : x + cut.width] = part_rgb(frame, layers, cut.region, (cut.width, cut.height))
        return ImageView(rgb, self.width, self.height, rgb)

    def back(self, found: Detections, size: tuple[int, int], nms_iou: float) -> Detections:
        """What was found on the sheet, in pixels of the displayed picture, whose width and height are `size`.

        A box that reaches over the edge of its cut-out is a piece of a face, which is shown whole elsewhere or in the
        next look at the whole picture. Cut-outs may show a face twice: of two boxes the better one stays.
        """
        if not len(found):
            return found
        places = np.array([(x, y, x + cut.width, y + cut.height) for cut, x, y in self.cuts], np.float32)
        regions = np.array([cut.region for cut, _, _ in self.cuts], np.float32)
        middle = (found.xyxy[:, None, :2] + found.xyxy[:, None, 2:]) / 2
        lies: Bool = (middle >= places[:, :2]) & (middle < places[:, 2:])
        inside = np.logical_and.reduce(lies, 2)
        mine = inside.argmax(1)
        place, region = places[mine], regions[mine]
        over = np.concatenate([place[:, :2] - found.xyxy[:, :2], found.xyxy[:, 2:] - place[:, 2:]], 1)
        at_edge = np.concatenate([region[:, :2] <= 0, region[:, 2:] >= size], 1)
        kept = inside.any(1) & ((over <= OVER) | at_edge).all(1)
        scale = (region[:, 2:] - region[:, :2]) / (place[:, 2:] - place[:, :2])
        xyxy = (found.xyxy - np.tile(place[:, :2], 2)) * np.tile(scale, 2) + np.tile(region[:, :2], 2)
        return Detections(xyxy, found.scores).select(kept).nms(nms_iou)


def mosaic_of(
    boxes: Array, size: tuple[int, int], scale: float, most: float, stretch: tuple[float, float] = (1.0, 1.0)
) -> CropMosaic | None:
    """The sheet for boxes xyxy [N, 4] in a displayed picture of this width and height.

    scale: of a look in full size: pixels that the detector sees for one square pixel of the picture, at most 1. most:
    pixels that the sheet may have; None where these do not suffice, or a face is huge. stretch: see `Frame.stretch`.
    """
    cuts: list[Crop] = []
    pixels = 0
    for box in sorted(boxes.tolist(), key=lambda box: (box[0] - box[2]) * (box[3] - box[1])):  # the largest first
        side = max((box[2] - box[0]) * stretch[0], (box[3] - box[1]) * stretch[1], 1.0)
        if side * scale > HUGE:
            return None
        shown = min(scale, LARGEST / side)
        if any(c.scale >= AS_FINE * shown and c.shows(box, WITHIN * side, size) for c in cuts):
            continue
        if (cut := _cut_out(box, max(AROUND * side, LEAST / shown), size, shown, stretch)) is None:
            continue
        cuts.append(cut)
        pixels += (cut.width + GAP) * (cut.height + GAP)
        if pixels > most:
            return None
    sheet = _shelved(cuts, pixels)
    return sheet if sheet.width * sheet.height <= most else None


def _cut_out(
    box: list[float], more: float, size: tuple[int, int], shown: float, stretch: tuple[float, float]
) -> Crop | None:
    """A box with so many pixels around it, on even pixels because of the chroma. None outside the picture."""
    left, top = (max(0, math.floor((v - more / s) / 2) * 2) for v, s in zip(box[:2], stretch, strict=True))
    right, bottom = (
        min(limit, math.ceil((v + more / s) / 2) * 2) for v, limit, s in zip(box[2:], size, stretch, strict=True)
    )
    if right - left < 2 or bottom - top < 2:
        return None
    width, height = (
        max(2, round(length * s * shown / 2) * 2)
        for length, s in zip((right - left, bottom - top), stretch, strict=True)
    )
    return Crop((left, top, right, bottom), width, height, width / (right - left) / stretch[0])


def _shelved(cuts: list[Crop], pixels: int) -> CropMosaic:
    """Cut-outs on shelves, the highest first, which take about as many pixels as they have with their gaps."""
    if not cuts:
        return CropMosaic((), 0, 0)
    wide = _whole(max(math.sqrt(pixels), *(cut.width for cut in cuts)))
    placed = []
    x = y = shelf = across = 0
    for cut in sorted(cuts, key=lambda cut: (cut.height, cut.width), reverse=True):
        if x and x + cut.width > wide:
            x, y, shelf = 0, y + shelf + GAP, 0
        placed.append((cut, x, y))
        shelf, across = max(shelf, cut.height), max(across, x + cut.width)
        x += cut.width + GAP
    return CropMosaic(tuple(placed), _whole(across), _whole(y + shelf))


def _whole(length: float) -> int:
    """Rounded up to the net's stride."""
    return math.ceil(length / STRIDE) * STRIDE
