"""Anchor assignment: which anchors are positive, negative or ignored, by IoU (paper sections 3.3 and 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FACE = 1
BACKGROUND = 0
IGNORE = -1


@dataclass(frozen=True, slots=True)
class AssignRule:
    """Thresholds on IoU.

    face, background: an anchor above `face` learns that face, one below `background` learns
    background, the rest learn nothing (paper: 0.5 and 0.3).
    ignored, inside: anchors with an IoU above `ignored` to an ignore region, or with more than the share `inside` of
    their own area in one, learn nothing (unless they match a face). inside = 1 leaves IoU alone (SNIP: 0.3).
    fewest, loose: a face that fewer anchors match gets its best ones, up to this many, as far as
    their IoU is above `loose`; the very best one always. The paper does without (section 3.3); the
    light nets use it so that faces near the smallest anchor, which fall between grid cells, are not
    taught as background (S3FD's scale compensation, ICCV 2017, section 3.2).
    """

    face: float = 0.5
    background: float = 0.3
    ignored: float = 0.3
    inside: float = 0.5
    fewest: int = 0
    loose: float = 0.3


def overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Common areas [N, A, G] of xyxy boxes [A, 4] and [N, G, 4], and the areas of each: [A], [N, G]."""
    b = b[:, None]
    width = torch.minimum(a[:, None, 2], b[..., 2]).sub_(torch.maximum(a[:, None, 0], b[..., 0])).clamp_(min=0)
    height = torch.minimum(a[:, None, 3], b[..., 3]).sub_(torch.maximum(a[:, None, 1], b[..., 1])).clamp_(min=0)
    area_a, area_b = ((x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1) for x in (a, b))
    return width.mul_(height), area_a, area_b.squeeze(1)


def assign(anchors: Tensor, faces: Tensor, ignores: Tensor, rule: AssignRule) -> tuple[Tensor, Tensor]:
    """Labels of the anchors of all modules, for a batch of images.

    anchors: [A, 4], faces: [N, G, 4], ignores: [N, I, 4], all xyxy in input pixels; rows without area pad.
    Returns labels int64 [N, A] (FACE, BACKGROUND, IGNORE) and the index of the matched face, int64
    [N, A] (meaningful where the label is FACE). An anchor takes the face with which its IoU is
    highest. Because an anchor only matches faces of about its own size, handing all modules'
    anchors in at once is the same as assigning module by module.
    """
    n = len(faces)
    a = len(anchors)
    labels = torch.full((n, a), BACKGROUND, dtype=torch.int64, device=anchors.device)
    match = torch.zeros_like(labels)
    if ignores.shape[1]:
        inter, area, other = overlap(anchors, ignores)
        # IoU > t as a comparison of areas, and "more than a share inside", in one pass
        share = rule.ignored / (1 + rule.ignored)
        needed = torch.minimum(share * (area[None, :, None] + other[:, None]), rule.inside * area[None, :, None])
        labels[(inter > needed).any(2)] = IGNORE
    if faces.shape[1]:
        inter, area, other = overlap(anchors, faces)
        iou = inter.div_((area[None, :, None] + other[:, None]).sub_(inter).clamp_(min=1e-6))
        best, match = iou.max(2)
        labels[(best >= rule.background) & (best <= rule.face)] = IGNORE
        labels[best > rule.face] = FACE
        if rule.fewest:
            _compensate(iou, labels, match, rule)
    return labels, match


def _compensate(iou: Tensor, labels: Tensor, match: Tensor, rule: AssignRule) -> None:
    """Give each face its best `fewest` anchors [N, A], but none that another face matched properly."""
    n, a, g = iou.shape
    top, where = iou.topk(min(rule.fewest, a), dim=1)  # [N, fewest, G]
    wanted = top > rule.loose
    wanted[:, 0] = top[:, 0] > 0
    value = torch.where(wanted & (labels.gather(1, where.flatten(1)).view_as(where) != FACE), top, 0.0).flatten(1)
    where = where.flatten(1)
    claim = iou.new_zeros(n, a).scatter_reduce(1, where, value, "amax")  # of two faces the nearer wins
    rows, slots = torch.nonzero((value > 0) & (value == claim.gather(1, where)), as_tuple=True)
    labels[rows, where[rows, slots]] = FACE
    match[rows, where[rows, slots]] = slots % g
