"""Data augmentation: draws what a training crop is made of: which images, where, and how a camera distorts them.

`CropParams` is numbers only, drawn by numpy from one generator. `train.render` makes its pixels on the CPU,
`train.render_torch` those of a whole batch on a GPU; the boxes are final here. Boxes are xyxy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from facestream.engines.boxes import F32, Array, Bool, area_xyxy
from facestream.train.distractors import Distractor, draw_distractors


@dataclass(frozen=True, slots=True)
class AugmentRule:
    """Chances are in 0..1, sides in pixels of the crop.

    smallest, largest: sides between which the face that a crop is built around is scaled, evenly in
    the logarithm; small values shrink the picture, which is the zoom-out and small-face scaling.
    enlarge: a picture is never enlarged more than this. fill: nor shrunk so far that its longer side
    takes less than this share of the crop, which would train on padding. native: chance that a picture is shown
    at about its own size instead: what is small by nature is also blurred, dark or turned away, what was shrunk
    is sharp. drop: faces with a shorter side than this become ignore regions, as do faces of which less than
    `visible` of the area is in the crop.
    empty: chance that a cell shows a part of its picture without a face, small or much enlarged: coats, leaves and
    walls close up are what a net that only ever sees crops around faces takes for faces.
    mined: chance that a crop is built around a false alarm of an earlier net (`train.bootstrap`), where there are any.
    distractors: chance of lettering or ornament somewhere beside the faces.
    rotate: degrees either way. occlude: chance that something stands before a part of a face.
    """

    smallest: float = 8.0
    largest: float = 260.0
    enlarge: float = 2.5
    fill: float = 0.7
    native: float = 0.0
    drop: float = 6.0
    visible: float = 0.25
    mosaic: float = 0.5
    empty: float = 0.15
    mined: float = 0.0
    distractors: float = 0.2
    rotate: float = 15.0
    occlude: float = 0.05
    colour: float = 0.8
    grey: float = 0.1
    blur: float = 0.15
    jpeg: float = 0.3
    noise: float = 0.15
    dark: float = 0.1


@dataclass(frozen=True, slots=True)
class Subject:
    """A labelled picture: its number, width and height, boxes [N, 4] in its pixels, those to ignore.

    centre: a box [4] that the crop is built around instead of a face, None: a face.
    """

    image: int
    width: int
    height: int
    xyxy: F32
    ignore: Bool
    centre: F32 | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """A part x0, y0, x1, y1 of the crop, filled by one picture.

    matrix: float64 [2, 3], from the picture's pixels to the crop's, both counted from pixels' edges.
    scale: its enlargement. fill: RGB where the picture does not reach.
    """

    image: int
    area: tuple[int, int, int, int]
    matrix: Array
    scale: float
    fill: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class PixelParams:
    """What happens to the pixels, in this order; None leaves them as they are.

    distractors: in front of the pictures. patches: x0, y0, x1, y1, r, g, b.
    mix: float [3, 3] over RGB, then `shift`, and of the brightness that mix takes from the crop's mean, the share
    `mean_share` is given back. dark: gain and gamma.
    kernel: a filter [k, k], k odd. downscale: shrunk by this and enlarged again. noise: its sigma. quality: JPEG's.
    """

    distractors: tuple[Distractor, ...] = ()
    patches: tuple[tuple[int, int, int, int, int, int, int], ...] = ()
    mix: Array | None = None
    mean_share: float = 0.0
    shift: float = 0.0
    dark: tuple[float, float] | None = None
    kernel: Array | None = None
    downscale: float | None = None
    noise: float | None = None
    quality: int | None = None


@dataclass(frozen=True, slots=True)
class CropParams:
    """A crop of size x size. faces [G, 4] and ignores [I, 4] in its pixels; seed: of its noise."""

    size: int
    cells: tuple[Cell, ...]
    pixels: PixelParams
    faces: F32
    ignores: F32
    seed: int


def draw_crop_params(
    item: Subject, another: Callable[[], Subject], size: int, rule: AugmentRule, rng: np.random.Generator
) -> CropParams:
    """Draw a crop around `item`; `another` draws one more picture, for mosaics."""
    if rng.random() < rule.mosaic:
        cells, xyxy, ignore = _mosaic(item, another, size, rule, rng)
    else:
        cell, xyxy, ignore = _place(item, (0, 0, size, size), rule, rng)
        cells = [cell]
    faces = xyxy[~ignore]
    pixels = _pixel_params(size, rule, rng)
    pixels = replace(pixels, patches=tuple(_patch(f, rng) for f in faces if rng.random() < rule.occlude))
    if rng.random() < rule.distractors:
        pixels = replace(pixels, distractors=draw_distractors(size, xyxy, rng))
    return CropParams(size, tuple(cells), pixels, faces, xyxy[ignore], int(rng.integers(1 << 31)))


Placed = tuple[Cell, F32, Bool]


def _place(item: Subject, area: tuple[int, int, int, int], rule: AugmentRule, rng: np.random.Generator) -> Placed:
    """Scale, turn, flip and cut in one map, around a randomly chosen face when there is one."""
    size = max(area[2] - area[0], area[3] - area[1])
    if item.centre is not None:
        scale, centre = _around(item.centre, item, size, rule, rng)
    else:
        scale, centre = (rng.random() < rule.empty and _vacant(item, size, rng)) or _around_face(item, size, rule, rng)
    w = item.width
    h = item.height
    # Prefer picture to padding where the picture is large enough to fill the crop.
    reach = size / scale / 2
    for axis, length in enumerate((w, h)):
        if length > 2 * reach:
            centre[axis] = min(max(centre[axis], reach), length - reach)
        elif rng.random() < 0.5:
            centre[axis] = min(max(centre[axis], length - reach), reach)
    angle = math.radians(rng.uniform(-rule.rotate, rule.rotate)) if rng.random() < 0.5 else 0.0
    flip = -1.0 if rng.random() < 0.5 else 1.0
    cos = scale * math.cos(angle)
    sin = scale * math.sin(angle)
    turn = np.array([[flip * cos, -flip * sin], [sin, cos]])
    shift = np.array([area[0], area[1]]) + size / 2 - turn @ centre
    grey = rng.random() < 0.5
    fill = (127, 127, 127) if grey else (int(rng.integers(256)), int(rng.integers(256)), int(rng.integers(256)))
    cell = Cell(item.image, area, np.concatenate([turn, shift[:, None]], 1), scale, fill)
    return cell, *_clip(_move(item.xyxy, cell, abs(angle)), item.ignore, area, rule)


def _around_face(item: Subject, size: int, rule: AugmentRule, rng: np.random.Generator) -> tuple[float, Array]:
    """(scale, the picture's point that comes to the middle), around a random face, anywhere when there is none."""
    w = item.width
    h = item.height
    usable = np.flatnonzero(~item.ignore)
    if not len(usable):
        return math.exp(rng.uniform(math.log(0.4), math.log(1.5))), rng.uniform(0, 1, 2) * (w, h)
    return _around(item.xyxy[rng.choice(usable)], item, size, rule, rng)


def _around(box: F32, item: Subject, size: int, rule: AugmentRule, rng: np.random.Generator) -> tuple[float, Array]:
    """(scale, the picture's point that comes to the middle) of a crop that shows `box` somewhere."""
    w = item.width
    h = item.height
    side = math.sqrt(max(1.0, float(area_xyxy(box))))
    min_scale = rule.fill * size / max(w, h)
    if rule.native and rng.random() < rule.native:
        scale = max(math.exp(rng.uniform(math.log(0.75), math.log(1.35))), min_scale)
    else:
        wanted = math.exp(rng.uniform(math.log(rule.smallest), math.log(min(rule.largest, 0.9 * size))))
        scale = min(max(wanted / side, min_scale), max(min_scale, rule.enlarge))
    return scale, (box[:2] + box[2:]).astype(np.float64) / 2 + rng.uniform(-0.5, 0.5, 2) * max(0.0, size / scale - side)


def _vacant(item: Subject, size: int, rng: np.random.Generator) -> tuple[float, Array] | None:
    """A part of the picture that shows no face, not even turned; None when a few draws found none."""
    reach = np.array((item.width, item.height), np.float64)
    for _ in range(8):
        scale = math.exp(rng.uniform(math.log(0.5), math.log(5.0)))
        half = size / scale / 2
        if 2 * half > reach.max():
            continue
        centre = np.where(reach > 2 * half, half + rng.uniform(0, 1, 2) * (reach - 2 * half), reach / 2)
        seen = np.concatenate([centre - 1.3 * half, centre + 1.3 * half])
        faces = item.xyxy[~item.ignore]
        if not ((faces[:, :2] < seen[2:]) & (faces[:, 2:] > seen[:2])).all(1).any():
            return scale, centre
    return None


def _move(xyxy: F32, cell: Cell, angle: float) -> F32:
    """Boxes through the map: the turned centre with the box's own scaled size.

    A face is rounder than its box, so the box around the turned corners would be too large.
    """
    centre = (xyxy[:, :2] + xyxy[:, 2:]) / 2 @ cell.matrix[:, :2].T + cell.matrix[:, 2]
    w, h = ((xyxy[:, 2:] - xyxy[:, :2]) / 2 * cell.scale).T
    cos = math.cos(angle)
    sin = math.sin(angle)
    half = np.stack([np.hypot(w * cos, h * sin), np.hypot(w * sin, h * cos)], 1)
    return np.concatenate([centre - half, centre + half], 1).astype(np.float32)


def _clip(xyxy: F32, ignore: Bool, area: tuple[int, int, int, int], rule: AugmentRule) -> tuple[F32, Bool]:
    """Boxes cut to their cell; those outside go, those mostly outside or tiny are ignored."""
    cut = np.clip(xyxy, np.array(area[:2] * 2, np.float32), np.array(area[2:] * 2, np.float32))
    share = area_xyxy(cut) / np.maximum(area_xyxy(xyxy), 1e-6)
    short = np.minimum(cut[:, 2] - cut[:, 0], cut[:, 3] - cut[:, 1])
    keep = (share > 0.02) & (short > 1)
    ignore = ignore | (share < rule.visible) | (short < rule.drop)
    return cut[keep], ignore[keep]


def _mosaic(
    item: Subject, another: Callable[[], Subject], size: int, rule: AugmentRule, rng: np.random.Generator
) -> tuple[list[Cell], F32, Bool]:
    """2x2 or 3x3 cells side by side: small faces without padding, more backgrounds and borders a crop."""
    n = int(rng.integers(2, 4))
    xs, ys = ([0, *(int(size * (i + rng.uniform(-0.25, 0.25)) / n) for i in range(1, n)), size] for _ in range(2))
    placed = [
        _place(item if row == column == 0 else another(), (xs[column], ys[row], xs[column + 1], ys[row + 1]), rule, rng)
        for row in range(n)
        for column in range(n)
    ]
    cells, boxes, ignores = zip(*placed, strict=True)
    return list(cells), np.concatenate(boxes), np.concatenate(ignores)


def _patch(face: F32, rng: np.random.Generator) -> tuple[int, int, int, int, int, int, int]:
    """Something plain before a third of a face, from one of its sides, a little larger than the face there."""
    side = int(rng.integers(4))
    share = rng.uniform(0.15, 0.45)
    grow = (face[2:] - face[:2]) * 0.2
    x0, y0, x1, y1 = (float(v) for v in (*(face[:2] - grow), *(face[2:] + grow)))
    if side % 2:  # from the left or right
        cut = face[0] + (face[2] - face[0]) * (share if side == 1 else 1 - share)
        x0, x1 = (x0, float(cut)) if side == 1 else (float(cut), x1)
    else:
        cut = face[1] + (face[3] - face[1]) * (share if side == 0 else 1 - share)
        y0, y1 = (y0, float(cut)) if side == 0 else (float(cut), y1)
    r, g, b = (int(v) for v in rng.integers(0, 256, 3))
    return max(0, round(x0)), max(0, round(y0)), max(0, round(x1)), max(0, round(y1)), r, g, b


_GREY = np.full((3, 3), 1 / 3) * np.array([0.9, 1.5, 0.6])


def _pixel_params(size: int, rule: AugmentRule, rng: np.random.Generator) -> PixelParams:
    """Brightness, contrast, saturation, tint; now and then grey or dark; defocus, motion, few pixels, noise, JPEG."""
    pixels = PixelParams()
    if rng.random() < rule.colour:
        gain = rng.uniform(0.65, 1.4) * rng.uniform(0.9, 1.1, 3)
        saturation = 0.0 if rng.random() < rule.grey else rng.uniform(0.4, 1.5)
        mix = (saturation * np.eye(3) + (1 - saturation) * _GREY) * gain[:, None]
        pixels = replace(pixels, mix=mix, mean_share=rng.uniform(0, 1), shift=rng.uniform(-30, 30))
    if rng.random() < rule.dark:
        pixels = replace(pixels, dark=(rng.uniform(0.15, 0.6), rng.uniform(1.0, 1.8)))
    if rng.random() < rule.blur:
        kind = int(rng.integers(3))
        if kind == 0:
            line = cv2.getGaussianKernel(11, rng.uniform(0.5, 1.8))
            pixels = replace(pixels, kernel=line @ line.T)
        elif kind == 1:
            pixels = replace(pixels, kernel=_motion(int(rng.integers(3, 9)), rng.uniform(0, 180)))
        else:
            pixels = replace(pixels, downscale=rng.uniform(1.2, 2.2))
    if rng.random() < rule.noise:
        pixels = replace(pixels, noise=rng.uniform(2, 14))
    if rng.random() < rule.jpeg:
        pixels = replace(pixels, quality=int(rng.integers(20, 85)))
    return pixels


def _motion(length: int, angle: float) -> Array:
    """A line of `length` pixels, turned, as a filter [11, 11]."""
    kernel: Array = np.zeros((11, 11), np.float32)
    kernel[5, 5 - length // 2 : 5 - length // 2 + length] = 1
    kernel = cv2.warpAffine(kernel, cv2.getRotationMatrix2D((5, 5), angle, 1), (11, 11))
    return kernel / max(1e-6, float(kernel.sum()))
