"""Which anchor learns which face (paper sections 3.3 and 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FACE, BACKGROUND, IGNORE = 1, 0, -1


@dataclass(frozen=True, slots=True)
class AssignRule:
    """Thresholds on IoU.

    face, background: an anchor above `face` learns that face, one below `background` learns
    background, the rest learn nothing (paper: 0.5 and 0.3).
    ignored: anchors with an IoU above this to an ignore region, or with more than half of their
    own area inside one, learn nothing (unless they match a face).
    force_best: a face that no anchor of any module matches gets its single best anchor. The paper
    does without (section 3.3); the light nets use it so that faces near the smallest anchor, which
    fall between grid cells, are not taught as background.
    """

    face: float = 0.5
    background: float = 0.3
    ignored: float = 0.3
    force_best: bool = False


def pairwise(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Overlap areas [N, M] of xyxy boxes [N, 4] and [M, 4], and the areas of each: [N], [M]."""
    side = (torch.minimum(a[:, None, 2:], b[None, :, 2:]) - torch.maximum(a[:, None, :2], b[None, :, :2])).clamp(min=0)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).clamp(min=0).prod(1) for x in (a, b))
    return side.prod(2), area_a, area_b


def assign(anchors: Tensor, faces: Tensor, ignores: Tensor, rule: AssignRule) -> tuple[Tensor, Tensor]:
    """Labels of the anchors of all modules of one image.

    anchors: [A, 4], faces: [G, 4], ignores: [I, 4], all xyxy in input pixels.
    Returns labels int64 [A] (FACE, BACKGROUND, IGNORE) and the index of the matched face, int64 [A]
    (meaningful where the label is FACE). An anchor takes the face with which its IoU is highest.
    Because an anchor only matches faces of about its own size, handing all modules' anchors in at
    once is the same as assigning module by module.
    """
    labels = torch.full((len(anchors),), BACKGROUND, dtype=torch.int64)
    match = torch.zeros(len(anchors), dtype=torch.int64)
    if len(ignores):
        inter, area, other = pairwise(anchors, ignores)
        near = inter / (area[:, None] + other[None] - inter).clamp(min=1e-6)
        labels[((near > rule.ignored) | (inter / area[:, None] > 0.5)).any(1)] = IGNORE
    if len(faces):
        inter, area, other = pairwise(anchors, faces)
        iou = inter / (area[:, None] + other[None] - inter).clamp(min=1e-6)
        best, match = iou.max(1)
        labels[(best >= rule.background) & (best <= rule.face)] = IGNORE
        labels[best > rule.face] = FACE
        if rule.force_best:
            top, where = iou.max(0)
            taken = labels[where] == FACE  # do not steal an anchor from a face that matched it properly
            for g in torch.nonzero((top > 0) & (top <= rule.face) & ~taken).flatten().tolist():
                labels[where[g]], match[where[g]] = FACE, g
    return labels, match
