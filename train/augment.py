"""From a labelled image to a square training crop. numpy and OpenCV only; RGB uint8; boxes xyxy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from engines.boxes import F32, Array, Bool, area_xyxy

Source = tuple[Array, F32, Bool]


@dataclass(frozen=True, slots=True)
class AugmentRule:
    """Chances are in 0..1, sides in pixels of the crop.

    smallest, largest: sides between which the face that a crop is built around is scaled, evenly in
    the logarithm; small values shrink the picture, which is the zoom-out and small-face scaling.
    enlarge: a picture is never enlarged more than this. fill: nor shrunk so far that its longer side
    takes less than this share of the crop, which would train on padding. drop: faces with a shorter side than this
    become ignore regions, as do faces of which less than `visible` of the area is in the crop.
    """

    smallest: float = 8.0
    largest: float = 260.0
    enlarge: float = 2.5
    fill: float = 0.4
    drop: float = 6.0
    visible: float = 0.5
    mosaic: float = 0.5
    rotate: float = 12.0
    colour: float = 0.8
    grey: float = 0.1
    blur: float = 0.15
    jpeg: float = 0.3
    noise: float = 0.15
    dark: float = 0.1


def augment(
    item: Source, another: Callable[[], Source], size: int, rule: AugmentRule, rng: np.random.Generator
) -> tuple[Array, F32, F32]:
    """A crop of size x size: (uint8 [size, size, 3], faces [G, 4], ignores [I, 4]).

    `another` draws one more labelled image, for mosaics.
    """
    if rng.random() < rule.mosaic:
        crop, xyxy, ignore = _mosaic(item, another, size, rule, rng)
    else:
        crop, xyxy, ignore = _crop(item, size, rule, rng)
    crop = _degrade(_recolour(crop, rule, rng), rule, rng)
    return np.ascontiguousarray(crop), xyxy[~ignore], xyxy[ignore]


def _crop(item: Source, size: int, rule: AugmentRule, rng: np.random.Generator) -> Source:
    """Scale, turn, flip and cut in one warp, around a randomly chosen face when there is one."""
    image, xyxy, ignore = item
    h, w = image.shape[:2]
    usable = np.flatnonzero(~ignore)
    if len(usable):
        box = xyxy[rng.choice(usable)]
        side = float(np.sqrt(np.maximum(1.0, area_xyxy(box))))
        low, high = np.log(rule.smallest), np.log(min(rule.largest, 0.9 * size))
        wanted = float(np.exp(rng.uniform(low, high)))
        least = rule.fill * size / max(w, h)
        scale = float(np.clip(wanted / side, least, max(least, rule.enlarge)))
        centre = (box[:2] + box[2:]) / 2 + rng.uniform(-0.5, 0.5, 2) * max(0.0, size / scale - side)
    else:
        scale = float(np.exp(rng.uniform(np.log(0.4), np.log(1.5))))
        centre = rng.uniform(0, 1, 2) * (w, h)
    # Prefer picture to padding where the picture is large enough to fill the crop.
    reach = size / scale / 2
    for axis, length in enumerate((w, h)):
        if length > 2 * reach:
            centre[axis] = np.clip(centre[axis], reach, length - reach)
        elif rng.random() < 0.5:
            centre[axis] = np.clip(centre[axis], length - reach, reach)
    return _warp(image, xyxy, ignore, size, scale, centre, rule, rng)


def _warp(
    image: Array,
    xyxy: F32,
    ignore: Bool,
    size: int,
    scale: float,
    centre: Array,
    rule: AugmentRule,
    rng: np.random.Generator,
) -> Source:
    angle = np.deg2rad(rng.uniform(-rule.rotate, rule.rotate)) if rng.random() < 0.5 else 0.0
    flip = -1.0 if rng.random() < 0.5 else 1.0
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[flip * cos, -flip * sin], [sin, cos]])
    matrix = np.concatenate([turn, (size / 2 - turn @ centre)[:, None]], 1)
    fill = tuple(int(v) for v in (rng.integers(0, 256, 3) if rng.random() < 0.5 else (127, 127, 127)))
    if scale < 0.6:  # a bilinear warp skips pixels when it shrinks much: halve by area first
        small = 1 / int(np.ceil(0.6 / scale))
        image = cv2.resize(image, None, fx=small, fy=small, interpolation=cv2.INTER_AREA)
        shrunk = matrix @ np.array([[1 / small, 0, 0], [0, 1 / small, 0], [0, 0, 1]])
    else:
        shrunk = matrix.copy()
    shrunk[:, 2] += shrunk[:, :2] @ (0.5, 0.5) - 0.5  # boxes count from pixels' edges, OpenCV from their centres
    crop = cv2.warpAffine(image, shrunk, (size, size), flags=cv2.INTER_LINEAR, borderValue=fill)
    boxes = _move(xyxy, matrix, abs(float(angle)))
    return crop, *_clip(boxes, ignore, size, size, rule)


def _move(xyxy: F32, matrix: Array, angle: float) -> F32:
    """Boxes through the affine map: the turned centre with the box's own scaled size.

    A face is rounder than its box, so the box around the turned corners would be too large.
    """
    if not len(xyxy):
        return xyxy
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    centre = (xyxy[:, :2] + xyxy[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    w, h = ((xyxy[:, 2:] - xyxy[:, :2]) / 2 * scale).T
    half = np.stack([np.hypot(w * np.cos(angle), h * np.sin(angle)), np.hypot(w * np.sin(angle), h * np.cos(angle))], 1)
    return np.concatenate([centre - half, centre + half], 1).astype(np.float32)


def _clip(xyxy: F32, ignore: Bool, width: int, height: int, rule: AugmentRule) -> tuple[F32, Bool]:
    """Boxes cut to the crop; those outside go, those mostly outside or tiny are ignored."""
    cut = np.clip(xyxy, 0, np.array([width, height, width, height], np.float32))
    share = area_xyxy(cut) / np.maximum(area_xyxy(xyxy), 1e-6)
    short = np.minimum(cut[:, 2] - cut[:, 0], cut[:, 3] - cut[:, 1])
    keep = (share > 0.02) & (short > 1)
    ignore = ignore | (share < rule.visible) | (short < rule.drop)
    return cut[keep].astype(np.float32), ignore[keep]


def _mosaic(
    item: Source, another: Callable[[], Source], size: int, rule: AugmentRule, rng: np.random.Generator
) -> Source:
    """2x2 or 3x3 crops side by side: small faces without padding, more backgrounds and borders an image."""
    n = int(rng.integers(2, 4))
    cuts = [[0, *(int(size * (i + rng.uniform(-0.25, 0.25)) / n) for i in range(1, n)), size] for _ in range(2)]
    canvas = np.empty((size, size, 3), np.uint8)
    boxes, ignores = [], []
    for row in range(n):
        for column in range(n):
            x0, x1, y0, y1 = *cuts[0][column : column + 2], *cuts[1][row : row + 2]
            source = item if row == column == 0 else another()
            crop, xyxy, ignore = _crop(source, max(x1 - x0, y1 - y0), rule, rng)
            canvas[y0:y1, x0:x1] = crop[: y1 - y0, : x1 - x0]
            xyxy, ignore = _clip(xyxy, ignore, x1 - x0, y1 - y0, rule)
            boxes.append(xyxy + np.array([x0, y0, x0, y0], np.float32))
            ignores.append(ignore)
    return canvas, np.concatenate(boxes), np.concatenate(ignores)


def _recolour(image: Array, rule: AugmentRule, rng: np.random.Generator) -> Array:
    """Brightness, contrast, saturation and tint in one 3x4 colour matrix; now and then grey or dark."""
    if rng.random() < rule.colour:
        gain = rng.uniform(0.65, 1.4) * rng.uniform(0.9, 1.1, 3)
        shift = rng.uniform(-30, 30)
        grey = np.full((3, 3), 1 / 3) * np.array([0.9, 1.5, 0.6])
        saturation = 0.0 if rng.random() < rule.grey else rng.uniform(0.4, 1.5)
        mix = (saturation * np.eye(3) + (1 - saturation) * grey) * gain[:, None]
        mean = float(image.mean())
        offset = mean * (1 - float(gain.mean())) * rng.uniform(0, 1) + shift
        image = cv2.transform(image, np.concatenate([mix, np.full((3, 1), offset)], 1))
    if rng.random() < rule.dark:
        table = (255 * rng.uniform(0.15, 0.6) * (np.arange(256) / 255) ** rng.uniform(1.0, 1.8)).astype(np.uint8)
        image = cv2.LUT(image, table)
    return image


def _degrade(image: Array, rule: AugmentRule, rng: np.random.Generator) -> Array:
    """What cameras and codecs do: defocus, motion, few pixels, sensor noise, compression."""
    if rng.random() < rule.blur:
        kind = rng.integers(3)
        if kind == 0:
            image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 1.8)))
        elif kind == 1:
            length = int(rng.integers(3, 9))
            kernel: Array = np.zeros((length, length), np.float32)
            kernel[length // 2] = 1 / length
            turn = cv2.getRotationMatrix2D(((length - 1) / 2, (length - 1) / 2), float(rng.uniform(0, 180)), 1)
            kernel = cv2.warpAffine(kernel, turn, (length, length)).astype(np.float32)
            kernel /= max(1e-6, float(kernel.sum()))
            image = cv2.filter2D(image, -1, kernel)
        else:
            side = image.shape[0]
            less = int(side / rng.uniform(1.2, 2.2))
            image = cv2.resize(cv2.resize(image, (less, less), interpolation=cv2.INTER_AREA), (side, side))
    if rng.random() < rule.noise:
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(2, 14))
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < rule.jpeg:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 85))])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None
        image = decoded
    return image
