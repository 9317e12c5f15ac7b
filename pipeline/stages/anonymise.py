"""Faces covered on the picture's own planes. The only maker of CoveredFrame for output without faces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from facestream.engines.boxes import Array, Bool, grow_xyxy
from facestream.pipeline.config import CoverConfig
from facestream.pipeline.errors import BadInput
from facestream.pipeline.stages.regions import in_pixels, to_cover
from facestream.pipeline.stages.settings import DEFAULTS, AnonymiseSettings
from facestream.pipeline.types import XYXY, CoveredFrame, Frame, Polygon, TrackedFrame
from facestream.pipeline.video.picture import convert
from facestream.pipeline.video.planes import Plane, planes, to_stored


@dataclass(frozen=True, slots=True)
class Patch:
    """A rectangle of the stored picture to cover, and which of its pixels: all but `mask` stay.

    x, y: left and top in picture pixels, even, so that chroma pixels are whole. mask: uint8 [h, w], 0 or 1.
    face: the longer side of the face itself (before growing), in pixels.
    """

    x: int
    y: int
    mask: Array
    face: float


@dataclass(frozen=True, slots=True)
class Grid:
    """The squares of a patch in one plane: their borders, how high, wide and large each is."""

    rows: Array
    columns: Array
    high: Array
    wide: Array
    count: Array


class Anonymizer:
    """Covers every box of a tracked frame that lies in no allowed region, and the masks."""

    def __init__(self, config: CoverConfig, settings: AnonymiseSettings = DEFAULTS.anonymise) -> None:
        self.config = config
        self.settings = settings
        is_image = config.hide.startswith("image:")
        self.cover_image = _read_cover_image(config.hide.removeprefix("image:")) if is_image else None

    def cover(self, tracked: TrackedFrame) -> CoveredFrame:
        """The frame with its boxes covered; the raw picture is overwritten, not copied, where that is safe."""
        frame = tracked.frame
        picture = frame.picture
        patches = self._patches(tracked)
        if patches:
            picture.make_writable()  # the decoder may still predict from these planes
            layers = planes(picture)
            for patch in patches:
                self._apply(picture, layers, patch)
        picture.pts = frame.pts
        picture.time_base = frame.time_base
        return CoveredFrame(picture, tracked)

    def _patches(self, tracked: TrackedFrame) -> list[Patch]:
        size = tracked.frame.size
        faces = [box.xyxy for box in to_cover(tracked.boxes, self.config.allow, size)]
        masks = [in_pixels(mask, size) for mask in self.config.masks]
        covers = self._patches_of(faces, tracked, self.config.scale, self.config.shape)
        covers += self._patches_of(masks, tracked, 1.0, "box")
        return covers + [patch for mask in tracked.masks if (patch := _polygon(mask, tracked.frame)) is not None]

    def _patches_of(self, boxes: list[XYXY], tracked: TrackedFrame, scale: float, shape: str) -> list[Patch]:
        if not boxes:
            return []
        picture = tracked.frame.picture
        w = picture.width
        h = picture.height
        stored = to_stored(np.array(boxes, np.float32), tracked.frame)
        sides = (stored[:, 2:] - stored[:, :2]).max(1)
        grown = grow_xyxy(stored, scale) if scale != 1 else stored
        starts = np.floor(np.clip(grown[:, :2], 0, None)).astype(int) // 2 * 2
        ends = np.minimum(np.ceil(grown[:, 2:] / 2).astype(int) * 2, (w, h))
        centres = (grown[:, :2] + grown[:, 2:]) / 2
        halves = np.maximum((grown[:, 2:] - grown[:, :2]) / 2, 0.5)
        across = np.arange(w) + 0.5
        down = np.arange(h) + 0.5
        made = []
        columns = (starts.tolist(), ends.tolist(), centres.tolist(), halves.tolist(), sides.tolist())
        for (left, top), (right, bottom), (x, y), (wide, high), side in zip(*columns, strict=True):
            if right <= left or bottom <= top:
                continue
            if shape == "box":
                inside: Bool = np.ones((bottom - top, right - left), bool)
            else:
                out_x = (across[left:right] - x) / wide
                out_y = (down[top:bottom] - y) / high
                inside = (out_x**2)[None] + (out_y**2)[:, None] <= 1
            made.append(Patch(left, top, inside.view(np.uint8), side))
        return made

    def _apply(self, picture: av.VideoFrame, layers: list[Plane], patch: Patch) -> None:
        image = self._cover_image_planes(picture, patch) if self.cover_image is not None else None
        chroma: dict[tuple[int, int], tuple[Array, Grid]] = {}  # the two chroma planes share both
        for index, plane in enumerate(layers):
            if (plane.down, plane.across) not in chroma:
                mask = _mask_of(plane, patch.mask)
                chroma[plane.down, plane.across] = mask, self._grid(plane, patch, *mask.shape)
            mask, grid = chroma[plane.down, plane.across]
            h, w = mask.shape
            y = patch.y // plane.down
            x = patch.x // plane.across
            area = plane.pixels[y : y + h, x : x + w]
            if image is not None:
                new = image[index].pixels[:h, :w]
            elif self.config.hide == "solid":
                new = _solid(picture, index, area)
            elif self.config.hide == "blur":
                new = _blur(area, self.settings)
            else:
                new = _pixelate(area, grid)
            cv2.copyTo(new, mask, area)

    def _grid(self, plane: Plane, patch: Patch, height: int, width: int) -> Grid:
        """The squares of a patch in a plane, of which it is height x width pixels large.

        The grid is fixed to the picture: were it to move with the face, the frames of a video would sample it at many
        offsets, from which a sharper face can be computed.
        """
        cell = max(self.settings.min_cell, math.ceil(patch.face / self.config.cells))
        cell += cell % 2
        rows = _borders(patch.y, cell, plane.down, height)
        columns = _borders(patch.x, cell, plane.across, width)
        high = rows[1:] - rows[:-1]
        wide = columns[1:] - columns[:-1]
        return Grid(rows, columns, high, wide, high[:, None] * wide)

    def _cover_image_planes(self, picture: av.VideoFrame, patch: Patch) -> list[Plane]:
        """The image over the patch, in the picture's own format."""
        assert self.cover_image is not None
        h, w = patch.mask.shape
        rgb: Any = cv2.resize(self.cover_image, (w, h), interpolation=cv2.INTER_AREA)
        return planes(convert(av.VideoFrame.from_ndarray(rgb, format="rgb24"), picture.format.name))


def _polygon(corners: Polygon, frame: Frame) -> Patch | None:
    """The patch of a region, its corners in displayed pixels; None outside the picture. Pixels that it only touches
    are part of it."""
    w = frame.picture.width
    h = frame.picture.height
    points = to_stored(np.array([[*corner, *corner] for corner in corners], np.float32), frame)[:, :2]
    left, top = (np.floor(np.clip(points.min(0), 0, (w, h))).astype(int) // 2 * 2).tolist()
    right, bottom = np.minimum(np.ceil(points.max(0) / 2).astype(int) * 2, (w, h)).tolist()
    if right <= left or bottom <= top:
        return None
    inside = np.zeros((bottom - top, right - left), np.uint8)
    shifted: Any = np.rint((points - (left, top) - 0.5) * 256).astype(np.int32)
    cv2.fillPoly(inside, [shifted], 1, shift=8)
    return Patch(left, top, inside, float((points.max(0) - points.min(0)).max()))


def fitted(covered: CoveredFrame, width: int, height: int) -> CoveredFrame:
    """A covered frame scaled to width x height stored pixels, where it has another size."""
    picture = covered.picture
    if (picture.width, picture.height) == (width, height):
        return covered
    scaled = picture.reformat(width=width, height=height)
    scaled.pts = picture.pts
    scaled.time_base = picture.time_base
    return CoveredFrame(scaled, covered.tracked)


def _mask_of(plane: Plane, mask: Array) -> Array:
    """A patch's mask at the plane's resolution; a chroma pixel is covered when any of its pixels is."""
    for axis, step in ((0, plane.down), (1, plane.across)):
        if step == 2:
            if mask.shape[axis] % 2:
                mask = np.pad(mask, [(0, 1) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
            mask = mask[::2] | mask[1::2] if axis == 0 else mask[:, ::2] | mask[:, 1::2]
    return mask


def _borders(start: int, cell: int, step: int, size: int) -> Array:
    """Cell borders inside a plane's area, from 0 to `size`, where the picture-wide grid of `cell` pixels has them.

    start: where the area begins, in picture pixels; this and `cell` are even, so that chroma has the same borders.
    """
    return np.array([0, *range((-start % cell or cell) // step, size, cell // step), size])


def _pixelate(area: Array, grid: Grid) -> Array:
    """Pixelation: each cell becomes the mean colour of its pixels."""
    # Sums over all that lies above and left: exact, as int32 for bytes (it may wrap, a square's own sum does not) and
    # as float64 for more bits.
    above = cv2.integral(area).take(grid.rows, 0).take(grid.columns, 1)
    strips = above[1:] - above[:-1]
    sums = strips[:, 1:] - strips[:, :-1]
    mean = sums // (grid.count if area.ndim == 2 else grid.count[..., None])
    # First across, where that is a few short rows; down, whole rows are copied.
    out: Array = mean.astype(area.dtype).repeat(grid.wide, axis=1).repeat(grid.high, axis=0)
    return out


def _solid(picture: av.VideoFrame, index: int, area: Array) -> Array:
    """Mid grey in the plane's own values: a face gone, without the flicker that black brings to an encoder."""
    bits = picture.format.components[0].bits
    return np.full(area.shape, 1 << (bits - 1), area.dtype)


def _blur(area: Array, settings: AnonymiseSettings) -> Array:
    """Blur as strong as the area is large: shrunk to a few pixels, smoothed, enlarged."""
    h, w = area.shape[:2]
    scale = min(1.0, settings.blur_side / max(h, w))
    small = cv2.resize(area, (max(1, round(w * scale)), max(1, round(h * scale))), interpolation=cv2.INTER_AREA)
    out = cv2.resize(cv2.GaussianBlur(small, (5, 5), settings.blur_sigma), (w, h), interpolation=cv2.INTER_LINEAR)
    return out


def _read_cover_image(path: str) -> Array:
    from facestream.pipeline.images import open_image
    from PIL import UnidentifiedImageError

    try:
        with open_image(Path(path)) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise BadInput("the image to cover with does not exist", path) from None
    except (OSError, UnidentifiedImageError):
        raise BadInput("the image to cover with cannot be read", path) from None
