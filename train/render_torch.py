"""The pixels of planned crops, a whole batch at once, on the device that holds all pictures decoded.

The same parameters as in `train.render`, with the same meaning; both are compared in the tests.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from facestream.engines.boxes import Array
from facestream.train.augment import CropParams, PixelParams
from facestream.train.render import LEVELS, level, matrix_of
from torch import Tensor
from torch.nn import functional as F

CELLS = 3  # a mosaic has at most this many rows and columns


class GpuImageCache:
    """Decoded training images and their pyramids in one uint8 buffer on a device; renders crops there."""

    def __init__(self, pictures: list[tuple[Array, ...]], device: torch.device) -> None:
        flat = [p.reshape(-1) for picture in pictures for p in picture]
        self.pixels = torch.from_numpy(np.concatenate(flat)).to(device)
        ends = np.cumsum([len(f) for f in flat])
        self.starts = np.concatenate([[0], ends[:-1]]).reshape(-1, LEVELS)
        self.shapes = [[(p.shape[1], p.shape[0]) for p in picture] for picture in pictures]
        self.device = device

    def render(self, batch: list[CropParams], seed: int) -> Tensor:
        """A batch of crops of one size, uint8 [N, 3, S, S]; seed: of the noise."""
        crops = self._sample(batch)
        for crop, params in zip(crops, batch, strict=True):
            for distractor in params.pixels.distractors:
                h, w = distractor.alpha.shape
                cover = torch.from_numpy(distractor.alpha).to(self.device).float() / 255
                part = crop[:, distractor.y : distractor.y + h, distractor.x : distractor.x + w]
                part.lerp_(torch.tensor(distractor.colour, device=self.device).float().reshape(3, 1, 1), cover)
            for x0, y0, x1, y1, *colour in params.pixels.patches:
                crop[:, y0:y1, x0:x1] = torch.tensor(colour, device=self.device).reshape(3, 1, 1)
        return _apply(crops, [params.pixels for params in batch], seed).round_().clamp_(0, 255).byte()

    def _sample(self, batch: list[CropParams]) -> Tensor:
        """Every pixel looked up in its cell's picture: float32 [N, 3, S, S]."""
        size = batch[0].size
        table = torch.from_numpy(np.stack([self._cells(params) for params in batch])).to(self.device)
        cuts = np.full((len(batch), 2, CELLS - 1), size, np.int64)
        for n, params in enumerate(batch):
            for axis in (0, 1):
                inner = sorted({cell.area[axis] for cell in params.cells} - {0})
                cuts[n, axis, : len(inner)] = inner
        border = torch.from_numpy(cuts).to(self.device)
        line = torch.arange(size, device=self.device)
        column = (line[None, :, None] >= border[:, None, 0]).sum(2)  # [N, S]
        row = (line[None, :, None] >= border[:, None, 1]).sum(2)
        which = row[:, :, None] * CELLS + column[:, None, :]  # [N, S, S]
        chosen = torch.gather(table, 1, which.flatten(1)[..., None].expand(-1, -1, table.shape[2]))
        chosen = chosen.view(len(batch), size, size, -1)
        x = chosen[..., 0] * line[None, None, :] + chosen[..., 1] * line[None, :, None] + chosen[..., 2]
        y = chosen[..., 3] * line[None, None, :] + chosen[..., 4] * line[None, :, None] + chosen[..., 5]
        return self._bilinear(x, y, chosen[..., 6:9].long(), chosen[..., 9:12])

    def _bilinear(self, x: Tensor, y: Tensor, where: Tensor, fill: Tensor) -> Tensor:
        start, width, height = where.unbind(-1)
        x0 = x.floor()
        y0 = y.floor()
        fx = (x - x0).unsqueeze(-1).float()
        fy = (y - y0).unsqueeze(-1).float()
        out = torch.zeros((*x.shape, 3), device=self.device)
        channel = torch.arange(3, device=self.device)
        for dx, dy, weight in (
            (0, 0, (1 - fx) * (1 - fy)), (1, 0, fx * (1 - fy)), (0, 1, (1 - fx) * fy), (1, 1, fx * fy),
        ):  # fmt: skip
            px = x0.long() + dx
            py = y0.long() + dy
            inside = (px >= 0) & (px < width) & (py >= 0) & (py < height)
            at = start + 3 * (py * width + px)
            value = self.pixels[torch.where(inside, at, 0)[..., None] + channel].float()
            out += weight * torch.where(inside[..., None], value, fill.float())
        return out.round_().permute(0, 3, 1, 2).contiguous()

    def _cells(self, params: CropParams) -> Array:
        """A row for each cell of a CELLS x CELLS grid: the map from crop to picture, where it lies, its fill.

        float64: a position in the buffer does not fit a float32.
        """
        rows = np.zeros((CELLS * CELLS, 12))
        n = round(len(params.cells) ** 0.5)
        for i, cell in enumerate(params.cells):
            at = level(cell.scale)
            shapes = self.shapes[cell.image]
            back = cv2.invertAffineTransform(matrix_of(cell, shapes[0], shapes[at]))
            where = self.starts[cell.image, at], *shapes[at]
            rows[i // n * CELLS + i % n] = (*back.reshape(-1), *where, *cell.fill)
        return rows


def _apply(crops: Tensor, params: list[PixelParams], seed: int) -> Tensor:
    """Apply each crop's parameters: float32 [N, 3, S, S], 0..255."""

    def put(values: list[Any]) -> Tensor:
        return torch.from_numpy(np.array(values, np.float32)).to(crops.device)

    def having(name: str) -> tuple[Tensor, Tensor]:
        """The crops with one thing, and what it is: [M], [M, ...]."""
        values = [getattr(p, name) for p in params]
        some = [i for i, value in enumerate(values) if value is not None]
        return torch.tensor(some, dtype=torch.long, device=crops.device), put([values[i] for i in some])

    at, mix = having("mix")
    if len(at):
        keep = put([p.mean_share for p in params])[at]
        shift = put([p.shift for p in params])[at]
        offset = crops[at].mean((1, 2, 3)) * (1 - mix.sum(2).mean(1)) * keep + shift
        mixed = torch.einsum("nij,njhw->nihw", mix, crops[at]) + offset[:, None, None, None]
        crops[at] = mixed.round_().clamp_(0, 255)
    at, dark = having("dark")
    if len(at):
        gain, gamma = dark.T[..., None, None, None]
        crops[at] = (255 * gain * (crops[at] / 255) ** gamma).floor_()
    at, kernels = having("kernel")
    if len(at):
        crops[at] = _filtered(crops[at], kernels)
    for i, p in enumerate(params):
        if p.downscale is not None:
            few = int(crops.shape[2] / p.downscale)
            small = F.interpolate(crops[i : i + 1], size=(few, few), mode="bilinear", antialias=True)
            crops[i] = F.interpolate(small, size=crops.shape[2:], mode="bilinear")[0].clamp_(0, 255)
    at, noise = having("noise")
    if len(at):
        random = torch.Generator(crops.device).manual_seed(seed)
        grain = torch.randn((len(at), *crops.shape[1:]), generator=random, device=crops.device)
        crops[at] = (crops[at] + grain * noise[:, None, None, None]).clamp_(0, 255)
    at, quality = having("quality")
    if len(at):
        crops[at] = jpeg(crops[at].round(), quality)
    return crops


def _filtered(crops: Tensor, kernels: Tensor) -> Tensor:
    """Each crop [M, 3, S, S] with its own filter [M, k, k]."""
    m, c, size = crops.shape[:3]
    half = kernels.shape[1] // 2
    wide = F.pad(crops, (half, half, half, half), mode="replicate").reshape(1, m * c, size + 2 * half, -1)
    weight = kernels.repeat_interleave(c, 0).unsqueeze(1)
    return F.conv2d(wide, weight, groups=m * c).reshape(crops.shape)


# Annex K of ITU-T T.81: the quantisers that encoders scale by quality (libjpeg's rule, below).
_LUMA = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMA = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""
_YCC = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]


def jpeg(rgb: Tensor, quality: Tensor) -> Tensor:
    """What JPEG of a quality in 1..100 leaves of pictures [M, 3, S, S], S a multiple of 16: 4:2:0, block DCT,
    rounding to the standard quantisers."""
    ycc = torch.tensor(_YCC, device=rgb.device)
    y, cb, cr = torch.einsum("ij,njhw->nihw", ycc, rgb).split(1, 1)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).reshape(-1, 1, 1)
    y = _quantised(y - 128, _LUMA, scale) + 128
    cb, cr = (
        F.interpolate(_quantised(F.avg_pool2d(c, 2), _CHROMA, scale), scale_factor=2, mode="bilinear") for c in (cb, cr)
    )
    out = torch.einsum("ij,njhw->nihw", torch.linalg.inv(ycc.cpu()).to(rgb.device), torch.cat([y, cb, cr], 1))
    return out.round_().clamp_(0, 255)


def _quantised(plane: Tensor, table: str, scale: Tensor) -> Tensor:
    """A plane [M, 1, H, W] through DCT, quantiser and back."""
    m, _, h, w = plane.shape
    n = torch.arange(8, device=plane.device, dtype=torch.float32)
    dct = torch.cos((2 * n[None] + 1) * n[:, None] * torch.pi / 16) / 2
    dct[0] /= 2**0.5
    base = torch.tensor([float(v) for v in table.split()], device=plane.device).reshape(8, 8)
    step = ((base * scale + 50) / 100).floor().clamp(1, 255)[:, None, None]  # [M, 1, 1, 8, 8]
    blocks = plane.reshape(m, h // 8, 8, w // 8, 8).transpose(2, 3)
    coded = (dct @ blocks @ dct.T / step).round_() * step
    return (dct.T @ coded @ dct).transpose(2, 3).reshape(plane.shape)
