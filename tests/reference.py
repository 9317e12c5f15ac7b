"""Reference results of the image kernels in numpy alone, also for a GPU machine with little else installed."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.cuda.frame import Normalisation

NORM = Normalisation((128.0, 117.0, 104.0), (64.0, 58.4, 57.1), 0.25)


def spans(size: int, out: int) -> list[list[tuple[int, np.float32]]]:
    """For each output pixel, the source pixels under it and how much of each, in source pixels."""
    made = []
    for at in range(out):
        begin, end = Fraction(at * size, out), Fraction((at + 1) * size, out)
        parts = [(i, min(end, i + 1) - max(begin, i)) for i in range(int(begin), -int(-end // 1))]
        made.append([(i, np.float32(share.numerator) / np.float32(share.denominator)) for i, share in parts])
    return made


def reference(
    channels: list[Array], fitted: tuple[int, int], out: tuple[int, int], turn: int, colour: Array | None
) -> Array:
    """The kernel's sums in numpy's float32: three full-size planes [H, W] -> half [3, out height, out width]."""
    height, width = channels[0].shape
    small = fitted if turn % 2 == 0 else fitted[::-1]
    means = []
    for plane in channels:
        rows = np.zeros((height, small[0]), np.float32)
        for x, parts in enumerate(spans(width, small[0])):
            for i, share in parts:
                rows[:, x] += share * plane[:, i].astype(np.float32)
        mean = np.zeros((small[1], small[0]), np.float32)
        for y, parts in enumerate(spans(height, small[1])):
            for i, share in parts:
                mean[y] += share * rows[i]
        pixels = np.float32(width) / np.float32(small[0]) * (np.float32(height) / np.float32(small[1]))
        means.append(mean / pixels)
    a, b, c = means
    if colour is not None:
        light, u, v = (a - colour[0]) * colour[1], b - np.float32(128), c - np.float32(128)
        means = [light + colour[2] * v, light + colour[3] * u + colour[4] * v, light + colour[5] * u]
        means = [np.clip(m, np.float32(0), np.float32(255)) for m in means]
    row = NORM.row()
    picture = np.full((3, out[1], out[0]), row[6], np.float32)
    picture[:, : fitted[1], : fitted[0]] = [np.rot90(m, turn) for m in means]
    return ((picture - row[:3, None, None]) * row[3:6, None, None]).astype(np.float16)


def full_planes(layout: str, data: Array, width: int, height: int) -> list[Array]:
    """Three planes at the picture's own size, chroma repeated."""
    if layout in ("rgb24", "bgr24"):
        order = (0, 1, 2) if layout == "rgb24" else (2, 1, 0)
        return [data.reshape(height, width, 3)[..., k] for k in order]
    luma, rest = data[: width * height].reshape(height, width), data[width * height :]
    w, h = (width + 1) // 2, (height + 1) // 2
    pair = rest.reshape(h, w, 2).transpose(2, 0, 1) if layout == "nv12" else rest.reshape(2, h, w)
    return [luma, *(p.repeat(2, 0).repeat(2, 1)[:height, :width] for p in pair)]
