"""The multi-task loss with per-module online hard mining (paper sections 3.4 and 3.5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from train.assign import BACKGROUND, FACE


@dataclass(frozen=True, slots=True)
class MineRule:
    """Anchors that learn, for each module and image.

    count, face_share: 256 anchors of which at most 25 % faces (paper section 4.1).
    ratio: at most this many backgrounds a face, at least `least` (None: fill up to `count`, the
    paper's rule). Without it a crop with one small face is 1 face against 255 hard backgrounds.
    """

    count: int = 256
    face_share: float = 0.25
    ratio: float | None = None
    least: int = 16


def mine(loss: Tensor, labels: Tensor, rule: MineRule) -> Tensor:
    """The anchors of one module that learn: bool [N, A], from their class loss and labels [N, A].

    The face anchors with the lowest face score and the background anchors with the highest, that
    is both with the highest loss, are taken image by image.
    """
    face, background = labels == FACE, labels == BACKGROUND
    n_face = face.sum(1).clamp(max=int(rule.count * rule.face_share))
    n_back = rule.count - n_face
    if rule.ratio is not None:
        n_back = torch.minimum(n_back, (n_face * rule.ratio).long().clamp(min=rule.least))
    return _hardest(loss, face, n_face) | _hardest(loss, background, n_back)


def _hardest(loss: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """The `count` [N] highest of loss [N, A] where `among`, row by row; all when there are fewer."""
    k = min(int(count.max()), loss.shape[1])
    if k == 0:
        return torch.zeros_like(among)
    masked = torch.where(among, loss, torch.full_like(loss, -1.0))  # cross-entropy is never negative
    value, index = masked.topk(k, dim=1)
    # Not `value >= 0`: a loss that is not a number must be chosen, so that the run stops instead of going on without.
    chosen = (torch.arange(k, device=loss.device)[None] < count[:, None]) & ~(value < 0)
    return torch.zeros_like(among).scatter(1, index, chosen)


@dataclass(frozen=True, slots=True)
class Loss:
    """total = sum over modules of (classes + weight * boxes), each averaged over what learns (equation 1)."""

    total: Tensor
    classes: float
    boxes: float
    faces: int


def multi_task(
    outputs: list[tuple[Tensor, Tensor]],
    labels: list[Tensor],
    targets: list[Tensor],
    rule: MineRule,
    box_weight: float = 1.0,
    beta: float = 1 / 9,
) -> Loss:
    """The loss of a batch.

    outputs: (scores [N, A, 2], offsets [N, A, 4]) a module; labels: int64 [N, A] a module;
    targets: encoded boxes [N, A, 4] a module, used where the label is FACE.
    Class loss is the softmax cross-entropy over mined anchors; box loss is smooth L1 (beta = 1/9,
    Faster R-CNN's sigma = 3) over the mined face anchors.
    """
    total = outputs[0][0].new_zeros(())
    classes = boxes = 0.0
    faces = 0
    for (scores, offsets), label, target in zip(outputs, labels, targets, strict=True):
        entropy = F.cross_entropy(scores.flatten(0, 1), label.clamp(min=0).flatten(), reduction="none").view_as(label)
        learns = mine(entropy.detach(), label, rule)
        face = learns & (label == FACE)
        class_loss = entropy[learns].sum() / max(1, int(learns.sum()))
        box_loss = F.smooth_l1_loss(offsets[face], target[face], beta=beta, reduction="sum") / max(1, int(face.sum()))
        total = total + class_loss + box_weight * box_loss
        classes, boxes, faces = classes + class_loss.item(), boxes + box_loss.item(), faces + int(face.sum())
    return Loss(total, classes, boxes, faces)
