"""Anchors: square boxes on the grid of each detection module (paper section 3.2).

An anchor's centre is the centre of its cell, ((x + 0.5) * stride, (y + 0.5) * stride), in input
pixels. Anchors of a module are ordered row by row, then by size within a cell: index
(y * width + x) * K + k, which is the order in which the heads' channels are laid out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)  # keeps exp() finite before training settles (Faster R-CNN's bound)


def grid_anchors(height: int, width: int, stride: int, sizes: tuple[float, ...]) -> Tensor:
    """Anchors of one module for a feature map of height x width cells: float32 [height*width*K, 4], xyxy."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = (torch.stack([x, y], -1).reshape(-1, 1, 2).float() + 0.5) * stride
    half = torch.tensor(sizes, dtype=torch.float32).reshape(1, -1, 1) / 2
    return torch.cat([centre - half, centre + half], -1).reshape(-1, 4)


def encode(anchors: Tensor, xyxy: Tensor) -> Tensor:
    """Boxes relative to their anchors, [N, 4] -> [N, 4]: (dx, dy) in anchor sizes, log(w), log(h) ratios.

    Faster R-CNN's parametrisation, which SSH takes over (paper section 3.2).
    """
    size = anchors[:, 2:] - anchors[:, :2]
    shift = (xyxy[:, :2] + xyxy[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2 / size
    return torch.cat([shift, torch.log((xyxy[:, 2:] - xyxy[:, :2]).clamp(min=1e-3) / size)], -1)


def decode(anchors: Tensor, deltas: Tensor) -> Tensor:
    """Inverse of `encode`, over any leading dimensions: [..., 4], [..., 4] -> xyxy [..., 4]."""
    size = anchors[..., 2:] - anchors[..., :2]
    centre = (anchors[..., :2] + anchors[..., 2:]) / 2 + deltas[..., :2] * size
    half = size * torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE)) / 2
    return torch.cat([centre - half, centre + half], -1)
