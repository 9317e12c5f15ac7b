"""Simplified optimal transport assignment (SimOTA; Ge et al., YOLOX, 2021, section 2.1): faces pick their predictions.

For nets with one anchor a cell, whose size says nothing about the faces it may find. A face is given to the cells near
its middle whose predictions cost least now, as many as the sum of its best overlaps says.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from facestream.engines.boxes import F32
from facestream.train.anchors import decode
from facestream.train.assign import BACKGROUND, FACE, IGNORE, overlap
from facestream.train.loss import AnchorTargets, Outputs
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class SimOtaRule:
    """Numbers of the assignment; the first three as YuNet was trained with.

    radius: how far a cell's centre may be from the face's, in strides, each way. candidates: overlaps that are summed
    to the number of a face's cells. iou_weight: of the overlap's cost beside the score's. ignored, inside: predictions
    with an IoU above `ignored` to an ignore region, or with more than the share `inside` of their area in one, learn
    nothing, nor do cells whose centre lies in one.
    """

    radius: float = 2.5
    candidates: int = 10
    iou_weight: float = 3.0
    ignored: float = 0.3
    inside: float = 0.5


OUTSIDE = 1e5  # cost of a cell that is not both in the face and near its middle


def simota(
    anchors: list[Tensor], strides: tuple[int, ...], outputs: Outputs, faces: list[F32], ignores: list[F32],
    rule: SimOtaRule,
) -> list[AnchorTargets]:  # fmt: skip
    """Targets of each module: anchors a module [A, 4], its outputs, and each image's faces [G, 4] and ignore regions
    [I, 4], xyxy in input pixels."""
    grid = torch.cat(anchors)
    stride = torch.cat([grid.new_full((len(a),), float(s)) for a, s in zip(anchors, strides, strict=True)])
    with torch.no_grad():
        margin = torch.cat([scores[..., 1] - scores[..., 0] for scores, _ in outputs], 1)
        boxes = decode(grid, torch.cat([offsets for _, offsets in outputs], 1))
    rows = [
        _one(grid, stride, margin[i], boxes[i], torch.from_numpy(faces[i]), torch.from_numpy(ignores[i]), rule)
        for i in range(len(faces))
    ]
    labels, matched = (torch.stack(part) for part in zip(*rows, strict=True))
    counts = [len(a) for a in anchors]
    split = zip(anchors, labels.split(counts, 1), matched.split(counts, 1), strict=True)
    return [AnchorTargets(*parts) for parts in split]


def _one(
    anchors: Tensor, stride: Tensor, margin: Tensor, boxes: Tensor, faces: Tensor, ignores: Tensor, rule: SimOtaRule
) -> tuple[Tensor, Tensor]:
    """labels int64 [A] and the matched faces [A, 4] of one image."""
    labels = torch.full((len(anchors),), BACKGROUND, dtype=torch.int64)
    matched = torch.zeros(len(anchors), 4)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    if len(ignores):
        (common,), area, other = overlap(boxes, ignores[None])
        union = area[:, None] + other - common
        lost = (common > rule.ignored * union) | (common > rule.inside * area[:, None])
        lost |= _holds(ignores, centres)
        labels[lost.any(1)] = IGNORE
    if not len(faces):
        return labels, matched
    middle = (faces[:, :2] + faces[:, 2:]) / 2
    inside = _holds(faces, centres)
    near = ((centres[:, None] - middle[None]).abs() < rule.radius * stride[:, None, None]).all(2)
    valid = (inside | near).any(1).nonzero()[:, 0]
    if not len(valid):
        return labels, matched
    (common,), area, other = overlap(boxes[valid], faces[None])
    iou = common / (area[:, None] + other - common).clamp(min=1e-6)
    cost = F.softplus(-margin[valid])[:, None] - rule.iou_weight * torch.log(iou + 1e-8)
    cost = cost + OUTSIDE * ~(inside & near)[valid]
    counts = iou.topk(min(rule.candidates, len(valid)), 0).values.sum(0).int().clamp(min=1)
    order = cost.argsort(0).argsort(0)
    taken = order < counts[None]
    best = torch.where(taken, cost, torch.full_like(cost, torch.inf))
    value, which = best.min(1)
    won = value.isfinite()
    labels[valid[won]] = FACE
    matched[valid[won]] = faces[which[won]]
    return labels, matched


def _holds(boxes: Tensor, points: Tensor) -> Tensor:
    """Whether box [B, 4] holds point [P, 2]: bool [P, B]."""
    return ((points[:, None] > boxes[None, :, :2]) & (points[:, None] < boxes[None, :, 2:])).all(2)
