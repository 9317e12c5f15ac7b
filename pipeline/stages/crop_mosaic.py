"""Crop mosaic: crops around known faces, packed into one small image for the detector.

A face is most likely near its last position. So between two full frames the detector only gets these regions, at a
fraction of the cost: at full resolution, except for large faces, which need fewer pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from facestream.engines.boxes import Array, Bool
from facestream.engines.letterbox import STRIDE, ImageView, canvas
from facestream.engines.types import Detections
from facestream.pipeline.stages.exposure import Exposure
from facestream.pipeline.stages.settings import DEFAULTS, CropMosaicSettings
from facestream.pipeline.types import Frame
from facestream.pipeline.video.planes import part_rgb, planes

Region = tuple[int, int, int, int]  # left, top, right, bottom in displayed pixels


@dataclass(frozen=True, slots=True)
class Crop:
    """A region of the displayed frame, and its size in the mosaic in pixels. scale: from the frame's square pixels to
    the mosaic's."""

    region: Region
    width: int
    height: int
    scale: float = 1.0

    def shows(self, box: list[float], margin: float, size: tuple[int, int]) -> bool:
        """Whether a box with this margin, clipped to the frame, is inside the crop."""
        left, top, right, bottom = self.region
        return (
            left <= max(0, box[0] - margin)
            and top <= max(0, box[1] - margin)
            and right >= min(size[0], box[2] + margin)
            and bottom >= min(size[1], box[3] + margin)
        )


@dataclass(frozen=True, slots=True)
class CropMosaic:
    """placed: crops with their left and top position. width, height: multiples of the net's stride; 0 without crops."""

    placed: tuple[tuple[Crop, int, int], ...]
    width: int
    height: int

    def view(self, frame: Frame, exposure: Exposure | None = None) -> ImageView:
        """The detector's input for a frame. exposure: of the frame; None: crops are shown as they are."""
        rgb = canvas(self.width, self.height)
        layers = planes(frame.picture)
        for crop, x, y in self.placed:
            pixels = part_rgb(frame, layers, crop.region, (crop.width, crop.height))
            if exposure is not None:
                pixels = np.ascontiguousarray(pixels)
                exposure.apply(pixels, crop.region)
            rgb[y : y + crop.height, x : x + crop.width] = pixels
        parts = tuple((x, y, x + crop.width, y + crop.height) for crop, x, y in self.placed)
        return ImageView(rgb, self.width, self.height, rgb, parts)

    def to_frame(
        self,
        found: Detections,
        size: tuple[int, int],
        nms_iou: float,
        settings: CropMosaicSettings = DEFAULTS.crop_mosaic,
    ) -> Detections:
        """Map detections in the mosaic to pixels of the displayed frame, whose width and height are `size`.

        A box that extends over the edge of its crop is part of a face, which is complete in another crop or in the next
        full frame; it is dropped. A face may be in two crops: NMS keeps the better box.
        """
        if not len(found):
            return found
        places = np.array([(x, y, x + crop.width, y + crop.height) for crop, x, y in self.placed], np.float32)
        regions = np.array([crop.region for crop, _, _ in self.placed], np.float32)
        middle = (found.xyxy[:, None, :2] + found.xyxy[:, None, 2:]) / 2
        lies: Bool = (middle >= places[:, :2]) & (middle < places[:, 2:])
        inside = np.logical_and.reduce(lies, 2)
        own = inside.argmax(1)
        place = places[own]
        region = regions[own]
        over = np.concatenate([place[:, :2] - found.xyxy[:, :2], found.xyxy[:, 2:] - place[:, 2:]], 1)
        at_edge = np.concatenate([region[:, :2] <= 0, region[:, 2:] >= size], 1)
        kept = inside.any(1) & ((over <= settings.edge_tolerance) | at_edge).all(1)
        scale = (region[:, 2:] - region[:, :2]) / (place[:, 2:] - place[:, :2])
        xyxy = (found.xyxy - np.tile(place[:, :2], 2)) * np.tile(scale, 2) + np.tile(region[:, :2], 2)
        return Detections(xyxy, found.scores).select(kept).nms(nms_iou)


def mosaic_of(
    boxes: Array,
    size: tuple[int, int],
    scale: float,
    max_pixels: float,
    stretch: tuple[float, float] = (1.0, 1.0),
    settings: CropMosaicSettings = DEFAULTS.crop_mosaic,
) -> CropMosaic | None:
    """The mosaic for boxes xyxy [N, 4] in a displayed frame of this width and height.

    scale: of a full frame at full resolution, from the frame's square pixels to the detector's input, at most 1.
    stretch: see `Frame.stretch`.

    None if it would exceed max_pixels, or if a face is too large for a crop: a reduced full frame is enough for it, and
    half of a frame, reduced that much, looks like a face too often.
    """
    crops: list[Crop] = []
    pixels = 0
    for box in sorted(boxes.tolist(), key=lambda box: (box[0] - box[2]) * (box[3] - box[1])):  # the largest first
        side = max((box[2] - box[0]) * stretch[0], (box[3] - box[1]) * stretch[1], 1.0)
        if side * scale > settings.max_face_side:
            return None
        crop_scale = min(scale, settings.max_shown_side / side)
        margin = settings.shared_margin * side
        if any(c.scale >= settings.shared_scale * crop_scale and c.shows(box, margin, size) for c in crops):
            continue
        crop = _crop(box, max(settings.margin * side, settings.min_margin / crop_scale), size, crop_scale, stretch)
        if crop is None:
            continue
        crops.append(crop)
        pixels += (crop.width + settings.gap) * (crop.height + settings.gap)
        if pixels > max_pixels:
            return None
    mosaic = shelf_pack(crops, pixels, settings.gap)
    return mosaic if mosaic.width * mosaic.height <= max_pixels else None


def _crop(
    box: list[float], margin: float, size: tuple[int, int], scale: float, stretch: tuple[float, float]
) -> Crop | None:
    """A box with a margin in square pixels, on even pixels because of the chroma. None outside the picture."""
    left, top = (max(0, math.floor((v - margin / s) / 2) * 2) for v, s in zip(box[:2], stretch, strict=True))
    right, bottom = (
        min(limit, math.ceil((v + margin / s) / 2) * 2) for v, limit, s in zip(box[2:], size, stretch, strict=True)
    )
    if right - left < 2 or bottom - top < 2:
        return None
    width, height = (
        max(2, round(length * s * scale / 2) * 2)
        for length, s in zip((right - left, bottom - top), stretch, strict=True)
    )
    return Crop((left, top, right, bottom), width, height, width / (right - left) / stretch[0])


def shelf_pack(crops: list[Crop], pixels: int, gap: int) -> CropMosaic:
    """Crops on shelves, the highest first, so that they take about `pixels`: as many as they have with their gaps."""
    if not crops:
        return CropMosaic((), 0, 0)
    limit = _to_stride(max(math.sqrt(pixels), *(crop.width for crop in crops)))
    placed = []
    x = 0
    y = 0
    shelf_height = 0
    width = 0
    for crop in sorted(crops, key=lambda crop: (crop.height, crop.width), reverse=True):
        if x and x + crop.width > limit:
            x = 0
            y += shelf_height + gap
            shelf_height = 0
        placed.append((crop, x, y))
        shelf_height = max(shelf_height, crop.height)
        width = max(width, x + crop.width)
        x += crop.width + gap
    return CropMosaic(tuple(placed), _to_stride(width), _to_stride(y + shelf_height))


def _to_stride(length: float) -> int:
    """Round up to the net's stride."""
    return math.ceil(length / STRIDE) * STRIDE
