"""Multi-task losses: SSH's, with online hard example mining (OHEM) per module (paper sections 3.4 and 3.5), and quality
focal plus distance-IoU loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from facestream.train.anchors import decode, encode
from facestream.train.assign import BACKGROUND, FACE
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class HardAnchorRule:
    """Anchors that learn, for each module and image.

    count, face_share: 256 anchors of which at most 25 % faces (paper section 4.1).
    ratio: at most this many backgrounds a face, at least `min_background` (None: fill up to `count`, the
    paper's rule). Without it a crop with one small face is 1 face against 255 hard backgrounds.
    hard: the hardest of each; False: any, as in training without OHEM (section 4.8).
    """

    count: int = 256
    face_share: float = 0.25
    ratio: float | None = None
    min_background: int = 16
    hard: bool = True


def select_hard_anchors(loss: Tensor, labels: Tensor, rule: HardAnchorRule) -> Tensor:
    """The anchors of one module that learn: bool [N, A], from their class loss and labels [N, A].

    The face anchors with the lowest face score and the background anchors with the highest, that
    is both with the highest loss, are taken image by image.
    """
    face = labels == FACE
    background = labels == BACKGROUND
    n_face = face.sum(1).clamp(max=int(rule.count * rule.face_share))
    n_back = rule.count - n_face
    if rule.ratio is not None:
        n_back = torch.minimum(n_back, (n_face * rule.ratio).long().clamp(min=rule.min_background))
    rank = loss if rule.hard else torch.where(loss.isnan(), loss, torch.rand_like(loss))
    return _hardest(rank, face, n_face) | _hardest(rank, background, n_back)


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
class AnchorTargets:
    """Targets of the anchors of one module: anchors [A, 4], labels int64 [N, A], the matched
    faces xyxy [N, A, 4] (meaningful where the label is FACE)."""

    anchors: Tensor
    labels: Tensor
    xyxy: Tensor


@dataclass(frozen=True, slots=True)
class Loss:
    """total = classes + weight * boxes; all scalars on the batch's device."""

    total: Tensor
    classes: Tensor
    boxes: Tensor


Outputs = list[tuple[Tensor, Tensor]]  # (scores [N, A, 2], offsets [N, A, 4]) a module


Share = Callable[[Tensor], Tensor]  # counts of one process -> what its sums are divided by, at least something


def single_process(count: Tensor) -> Tensor:
    """The `Share` of a process that sees all of the batch."""
    return count.clamp(min=1)


def mined_loss(
    outputs: Outputs,
    truth: list[AnchorTargets],
    rule: HardAnchorRule,
    box_weight: float,
    beta: float = 1 / 9,
    share: Share = single_process,
) -> Loss:
    """Equation 1: softmax cross-entropy over mined anchors plus smooth L1 over the mined faces among them.

    Each is averaged over what learns, module by module. beta = 1/9 is Faster R-CNN's sigma = 3.
    """
    classes = boxes = outputs[0][0].new_zeros(())
    for (scores, offsets), t in zip(outputs, truth, strict=True):
        labels = t.labels.clamp(min=0)
        entropy = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
        learns = select_hard_anchors(entropy.detach(), t.labels, rule)
        face = learns & (t.labels == FACE)
        among, faces = share(torch.stack([learns.sum(), face.sum()])).unbind()
        classes = classes + entropy[learns].sum() / among
        wanted = encode(t.anchors.expand_as(t.xyxy)[face], t.xyxy[face])
        boxes = boxes + F.smooth_l1_loss(offsets[face], wanted, beta=beta, reduction="sum") / faces
    return Loss(classes + box_weight * boxes, classes.detach(), boxes.detach())


def quality_loss(
    outputs: Outputs, truth: list[AnchorTargets], box_weight: float, share: Share = single_process
) -> Loss:
    """Quality focal loss (Li et al., NeurIPS 2020, equation 3, beta = 2) plus distance-IoU loss (AAAI 2020, eq. 6).

    The face score learns the IoU of its own box, so that of several boxes on a face the best one
    ranks first; every background takes part, the more the surer it is of a face. Both are summed
    over all modules and divided by the number of faces' anchors.
    """
    margin = torch.cat([scores[..., 1] - scores[..., 0] for scores, _ in outputs], 1)
    labels = torch.cat([t.labels for t in truth], 1)
    face = labels == FACE
    anchors = torch.cat([t.anchors for t in truth]).expand(len(labels), -1, -1)[face]
    found = decode(anchors, torch.cat([offsets for _, offsets in outputs], 1)[face])
    iou, distance = distance_iou(found, torch.cat([t.xyxy for t in truth], 1)[face])
    quality = torch.zeros_like(margin)
    quality[face] = iou.detach().clamp(0, 1)
    entropy = F.binary_cross_entropy_with_logits(margin, quality, reduction="none")
    focus = (margin.detach().sigmoid() - quality).square()
    count = share(face.sum())
    classes = (focus * entropy)[labels != -1].sum() / count
    # a hit's weight is its score's target in GFL; the plain mean lets faces that fit badly learn as fast
    boxes = (1 - distance).sum() / count
    return Loss(classes + box_weight * boxes, classes.detach(), boxes.detach())


def distilled_loss(
    outputs: Outputs, taught: Outputs, truth: list[AnchorTargets], box_weight: float, share: Share = single_process
) -> Loss:
    """What a student misses of its teacher's dense outputs on the same anchors (soft targets).

    Anchors on faces, near them and in ignore regions learn the teacher's face probability, weighted by the squared
    difference of the two (as in `quality_loss`, with the teacher in place of the truth); on background the labels know
    better than the teacher, whose false alarms are not learned. Those with a teacher's score of at least
    MIN_TEACHER_SCORE learn its box, weighted by its probability. Both are divided by the sum of those probabilities.
    """
    margin, wanted = (torch.cat([s[..., 1] - s[..., 0] for s, _ in out], 1) for out in (outputs, taught))
    target = wanted.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(margin, target, reduction="none")
    known = torch.cat([t.labels for t in truth], 1) != BACKGROUND
    learned = (target >= MIN_TEACHER_SCORE) & known
    weight = target[learned]
    count = share(weight.sum())
    classes = ((margin.detach().sigmoid() - target).square() * entropy)[known].sum() / count
    anchors = torch.cat([t.anchors for t in truth]).expand(len(margin), -1, -1)[learned]
    student, teacher = (decode(anchors, torch.cat([o for _, o in out], 1)[learned]) for out in (outputs, taught))
    boxes = ((1 - distance_iou(student, teacher)[1]) * weight).sum() / count
    return Loss(classes + box_weight * boxes, classes.detach(), boxes.detach())


MIN_TEACHER_SCORE = 0.2  # score from which a teacher's box is learned


def distance_iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and distance-IoU of xyxy boxes row by row: [N, 4], [N, 4] -> [N], [N]."""
    low = torch.maximum(a[:, :2], b[:, :2])
    high = torch.minimum(a[:, 2:], b[:, 2:])
    inter = (high - low).clamp(min=0).prod(1)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).clamp(min=0).prod(1) for x in (a, b))
    iou = inter / (area_a + area_b - inter).clamp(min=1e-6)
    centre_distance = ((a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2).square().sum(1)
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).square().sum(1)
    return iou, iou - centre_distance / hull.clamp(min=1e-6)
