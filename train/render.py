"""Renders planned training crops on the CPU: RGB uint8."""

from __future__ import annotations

import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.train.augment import Cell, CropParams, PixelParams
from facestream.train.distractors import paste

LEVELS = 4


def pyramid(image: Array) -> tuple[Array, ...]:
    """An image pyramid by averaging: full size, half, quarter, eighth."""
    out = [image]
    while len(out) < LEVELS:
        h, w = out[-1].shape[:2]
        out.append(cv2.resize(out[-1], (max(1, w // 2), max(1, h // 2)), interpolation=cv2.INTER_AREA))
    return tuple(out)


def level(scale: float) -> int:
    """Which of the halves to enlarge from: a bilinear warp skips pixels when it shrinks much."""
    return sum(scale < 0.6 / 2**n for n in range(LEVELS - 1))


def matrix_of(cell: Cell, whole: tuple[int, int], stored: tuple[int, int]) -> Array:
    """The cell's map for a picture of `whole` = (width, height), from its half of `stored`, float64 [2, 3],
    counted from pixels' centres on both sides, as OpenCV and sampling count."""
    out = cell.matrix.copy()
    out[:, :2] *= (whole[0] / stored[0], whole[1] / stored[1])
    out[:, 2] += out[:, :2] @ (0.5, 0.5) - 0.5
    return out


def render(params: CropParams, levels: dict[int, tuple[Array, ...]]) -> Array:
    """The crop, uint8 [size, size, 3]; levels: the `pyramid` of each picture that `params` name."""
    crop = np.empty((params.size, params.size, 3), np.uint8)
    for cell in params.cells:
        x0, y0, x1, y1 = cell.area
        whole = levels[cell.image][0]
        source = levels[cell.image][level(cell.scale)]
        matrix = matrix_of(cell, (whole.shape[1], whole.shape[0]), (source.shape[1], source.shape[0]))
        matrix[:, 2] -= (x0, y0)
        crop[y0:y1, x0:x1] = cv2.warpAffine(
            source, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, borderValue=cell.fill
        )
    return _apply(crop, params.pixels, params.seed)


def _apply(image: Array, params: PixelParams, seed: int) -> Array:
    paste(image, params.distractors)
    for x0, y0, x1, y1, *colour in params.patches:
        image[y0:y1, x0:x1] = colour
    if params.mix is not None:
        gain = params.mix.sum(1).mean()
        offset = float(image.mean()) * (1 - gain) * params.mean_share + params.shift
        image = cv2.transform(image, np.concatenate([params.mix, np.full((3, 1), offset)], 1))
    if params.dark is not None:
        gain, gamma = params.dark
        image = cv2.LUT(image, (255 * gain * (np.arange(256) / 255) ** gamma).astype(np.uint8))
    if params.kernel is not None:
        image = cv2.filter2D(image, -1, params.kernel, borderType=cv2.BORDER_REPLICATE)
    if params.downscale is not None:
        side = image.shape[0]
        few = int(side / params.downscale)
        image = cv2.resize(cv2.resize(image, (few, few), interpolation=cv2.INTER_AREA), (side, side))
    if params.noise is not None:
        grain = np.empty(image.shape, np.int16)
        cv2.setRNGSeed(seed)
        cv2.randn(grain, np.zeros(3), np.full(3, params.noise))
        image = cv2.add(image, grain, dtype=cv2.CV_8U)
    if params.quality is not None:
        _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, params.quality])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None
        image = decoded[..., ::-1]
    return image
