from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

from facestream.train.assign import BACKGROUND, FACE, IGNORE  # noqa: E402
from facestream.train.loss import (  # noqa: E402
    AnchorTargets,
    HardAnchorRule,
    distance_iou,
    distilled_loss,
    mined_loss,
    quality_loss,
    select_hard_anchors,
)


def test_mining_takes_the_hardest_of_each_kind() -> None:
    labels = torch.tensor([[FACE, FACE, FACE, BACKGROUND, BACKGROUND, BACKGROUND, IGNORE]])
    loss = torch.tensor([[0.1, 0.9, 0.5, 0.2, 0.8, 0.3, 9.0]])
    chosen = select_hard_anchors(loss, labels, HardAnchorRule(count=4, face_share=0.25))
    assert chosen.tolist() == [[False, True, False, True, True, True, False]]  # 1 face, 3 backgrounds


def test_backgrounds_fill_up_when_faces_are_few() -> None:
    labels = torch.tensor([[FACE] + [BACKGROUND] * 300])
    chosen = select_hard_anchors(torch.rand(1, 301), labels, HardAnchorRule())
    assert int(chosen.sum()) == 256
    assert bool(chosen[0, 0])


def test_at_most_a_quarter_are_faces() -> None:
    labels = torch.tensor([[FACE] * 300 + [BACKGROUND] * 300])
    chosen = select_hard_anchors(torch.rand(1, 600), labels, HardAnchorRule())
    assert int(chosen[0, :300].sum()) == 64
    assert int(chosen[0, 300:].sum()) == 192


def test_ratio_limits_backgrounds_and_keeps_some_on_face_free_images() -> None:
    labels = torch.tensor([[FACE] * 10 + [BACKGROUND] * 290, [BACKGROUND] * 300])
    chosen = select_hard_anchors(torch.rand(2, 300), labels, HardAnchorRule(ratio=3.0, min_background=16))
    assert int(chosen[0, 10:].sum()) == 30
    assert int(chosen[1].sum()) == 16


def test_images_are_mined_apart() -> None:
    labels = torch.full((2, 4), BACKGROUND)
    loss = torch.tensor([[9.0, 8.0, 7.0, 6.0], [0.1, 0.2, 0.3, 0.4]])
    chosen = select_hard_anchors(loss, labels, HardAnchorRule(count=2))
    assert chosen.tolist() == [[True, True, False, False], [False, False, True, True]]


def truth(labels: list[list[int]], xyxy: torch.Tensor | None = None) -> list[AnchorTargets]:
    """One module whose anchors are 10 x 10 at the origin; faces are where the anchors are unless given."""
    n, a = len(labels), len(labels[0])
    anchors = torch.tensor([[0.0, 0, 10, 10]]).expand(a, -1)
    return [AnchorTargets(anchors, torch.tensor(labels), anchors.expand(n, -1, -1) if xyxy is None else xyxy)]


def test_loss_by_hand() -> None:
    """One module, one image: a face with even odds and offsets off by (1, 0, 0, 0), a background with even odds."""
    scores = torch.zeros(1, 2, 2)
    offsets = torch.zeros(1, 2, 4)
    xyxy = torch.tensor([[[10.0, 0, 20, 10], [0, 0, 0, 0]]])  # an anchor's width to the right
    loss = mined_loss([(scores, offsets)], truth([[FACE, BACKGROUND]], xyxy), HardAnchorRule(), 2.0)
    assert loss.classes.item() == pytest.approx(math.log(2))  # mean of two cross-entropies
    assert loss.boxes.item() == pytest.approx(1 - 0.5 / 9)  # smooth L1 with beta 1/9 of a difference of 1
    assert loss.total.item() == pytest.approx(loss.classes.item() + 2 * loss.boxes.item())


def test_quality_loss_by_hand() -> None:
    """A face whose box is its anchor's lower half (IoU 0.5), a sure background, an ignored anchor."""
    scores = torch.tensor([[[0.0, 0.0], [2.0, -2.0], [0.0, 50.0]]])
    xyxy = torch.tensor([[[0.0, 5, 10, 10], [0, 0, 0, 0], [0, 0, 0, 0]]])
    loss = quality_loss([(scores, torch.zeros(1, 3, 4))], truth([[FACE, BACKGROUND, IGNORE]], xyxy), 2.0)
    confident = 1 / (1 + math.exp(4))
    at_half = 0.0  # the score of 0.5 is the box's IoU: nothing to learn
    assert loss.classes.item() == pytest.approx(at_half + confident**2 * -math.log(1 - confident), rel=1e-4)
    assert loss.boxes.item() == pytest.approx(1 - (0.5 - 2.5**2 / 200))  # centres 2.5 apart, hull 10 x 10
    assert loss.total.item() == pytest.approx(loss.classes.item() + 2 * loss.boxes.item())


def test_quality_loss_wants_the_score_that_the_box_deserves() -> None:
    margin = torch.tensor([3.0, -3.0], requires_grad=True)
    scores = torch.stack([-margin / 2, margin / 2], -1)[None]
    xyxy = torch.tensor([[[0.0, 0, 10, 10], [0, 5, 10, 15.0]]])
    quality_loss([(scores, torch.zeros(1, 2, 4))], truth([[FACE, FACE]], xyxy), 1.0).total.backward()
    assert margin.grad is not None
    assert margin.grad[0] < 0  # a perfect box: higher
    assert margin.grad[1] < 0  # IoU 1/3 at a score of 0.05: higher
    margin.grad = None
    scores = torch.stack([-margin / 2, margin / 2], -1)[None].flip(1)
    quality_loss([(scores, torch.zeros(1, 2, 4))], truth([[FACE, FACE]], xyxy), 1.0).total.backward()
    assert margin.grad[0] > 0  # IoU 1/3 at a score of 0.95: lower


def test_distance_iou_still_pulls_boxes_that_do_not_touch() -> None:
    near, far, target = ([[x, 0.0, x + 10, 10]] for x in (20.0, 90.0, 0.0))
    values = [float(distance_iou(torch.tensor(a), torch.tensor(target))[1]) for a in (near, far)]
    assert 0 > values[0] > values[1]


def test_ignored_anchors_get_no_gradient() -> None:
    for loss in (lambda o, t: mined_loss(o, t, HardAnchorRule(), 1.0), lambda o, t: quality_loss(o, t, 1.0)):
        scores = torch.zeros(1, 3, 2, requires_grad=True)
        offsets = torch.zeros(1, 3, 4, requires_grad=True)
        xyxy = torch.tensor([[0.0, 1, 10, 9]]).expand(1, 3, 4)
        loss([(scores, offsets)], truth([[FACE, IGNORE, BACKGROUND]], xyxy)).total.backward()
        assert scores.grad is not None
        assert offsets.grad is not None
        assert scores.grad[0, 1].abs().sum() == 0
        assert offsets.grad[0, 1:].abs().sum() == 0  # neither ignored nor background anchors learn boxes
        assert offsets.grad[0, 0].abs().sum() > 0
        assert scores.grad[0, 0].abs().sum() > 0


def test_a_batch_without_faces_is_finite() -> None:
    outputs = [(torch.zeros(2, 5, 2), torch.zeros(2, 5, 4))]
    for loss in (
        mined_loss(outputs, truth([[BACKGROUND] * 5] * 2), HardAnchorRule(), 1.0),
        quality_loss(outputs, truth([[BACKGROUND] * 5] * 2), 1.0),
    ):
        assert math.isfinite(loss.total.item())
        assert loss.boxes == 0


def test_without_ohem_any_anchors_learn_in_the_same_numbers() -> None:
    labels = torch.full((2, 500), BACKGROUND)
    labels[:, :100] = FACE
    loss = torch.arange(500.0).repeat(2, 1)
    hard = select_hard_anchors(loss, labels, HardAnchorRule())
    torch.manual_seed(0)
    first, second = (
        select_hard_anchors(loss, labels, HardAnchorRule(hard=False)),
        select_hard_anchors(loss, labels, HardAnchorRule(hard=False)),
    )
    for chosen in (hard, first):
        assert [(int((c & (r == FACE)).sum()), int(c.sum())) for c, r in zip(chosen, labels, strict=True)] == [
            (64, 256)
        ] * 2
    assert not torch.equal(first, second)
    assert float(loss[hard].mean()) > float(loss[first].mean()) + 50


def logits(*margins: float) -> torch.Tensor:
    """Scores [1, A, 2] whose face logit is `margins` above the background's."""
    return torch.tensor([[[0.0, m] for m in margins]])


def test_a_student_like_its_teacher_has_nothing_to_learn() -> None:
    same = [(logits(2.0, -3.0), torch.full((1, 2, 4), 0.1))]
    loss = distilled_loss(same, same, truth([[FACE, IGNORE]]), 2.0)
    assert loss.total.item() == pytest.approx(0.0, abs=1e-6)


def test_the_teacher_is_asked_on_faces_and_ignore_regions_and_not_on_background() -> None:
    student = [(logits(-2.0, -2.0), torch.zeros(1, 2, 4))]
    teacher = [(logits(2.0, 2.0), torch.zeros(1, 2, 4))]
    on_background = distilled_loss(student, teacher, truth([[BACKGROUND, BACKGROUND]]), 2.0)
    on_ignored = distilled_loss(student, teacher, truth([[IGNORE, BACKGROUND]]), 2.0)
    assert on_background.total.item() == 0
    p = 1 / (1 + math.exp(-2))
    entropy = -(p * math.log(1 - p) + (1 - p) * math.log(p))
    assert on_ignored.classes.item() == pytest.approx((2 * p - 1) ** 2 * entropy / max(1, p), rel=1e-5)


def test_the_teachers_box_is_learned_where_it_is_sure() -> None:
    """The student's box lies an anchor's width beside the teacher's: no overlap, so a distance-IoU below zero."""
    shifted = torch.tensor([[[1.0, 0, 0, 0]]])
    confident = distilled_loss([(logits(3.0), shifted)], [(logits(3.0), 0 * shifted)], truth([[FACE]]), 2.0)
    unsure = distilled_loss([(logits(-3.0), shifted)], [(logits(-3.0), 0 * shifted)], truth([[FACE]]), 2.0)
    assert confident.boxes.item() > 1
    assert unsure.boxes.item() == 0
