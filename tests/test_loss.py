from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

from train.assign import BACKGROUND, FACE, IGNORE  # noqa: E402
from train.loss import MineRule, mine, multi_task  # noqa: E402


def test_mining_takes_the_hardest_of_each_kind() -> None:
    labels = torch.tensor([[FACE, FACE, FACE, BACKGROUND, BACKGROUND, BACKGROUND, IGNORE]])
    loss = torch.tensor([[0.1, 0.9, 0.5, 0.2, 0.8, 0.3, 9.0]])
    chosen = mine(loss, labels, MineRule(count=4, face_share=0.25))
    assert chosen.tolist() == [[False, True, False, True, True, True, False]]  # 1 face, 3 backgrounds


def test_backgrounds_fill_up_when_faces_are_few() -> None:
    labels = torch.tensor([[FACE] + [BACKGROUND] * 300])
    chosen = mine(torch.rand(1, 301), labels, MineRule())
    assert int(chosen.sum()) == 256
    assert bool(chosen[0, 0])


def test_at_most_a_quarter_are_faces() -> None:
    labels = torch.tensor([[FACE] * 300 + [BACKGROUND] * 300])
    chosen = mine(torch.rand(1, 600), labels, MineRule())
    assert int(chosen[0, :300].sum()) == 64
    assert int(chosen[0, 300:].sum()) == 192


def test_ratio_limits_backgrounds_and_keeps_some_on_face_free_images() -> None:
    labels = torch.tensor([[FACE] * 10 + [BACKGROUND] * 290, [BACKGROUND] * 300])
    chosen = mine(torch.rand(2, 300), labels, MineRule(ratio=3.0, least=16))
    assert int(chosen[0, 10:].sum()) == 30
    assert int(chosen[1].sum()) == 16


def test_images_are_mined_apart() -> None:
    labels = torch.full((2, 4), BACKGROUND)
    loss = torch.tensor([[9.0, 8.0, 7.0, 6.0], [0.1, 0.2, 0.3, 0.4]])
    chosen = mine(loss, labels, MineRule(count=2))
    assert chosen.tolist() == [[True, True, False, False], [False, False, True, True]]


def test_loss_by_hand() -> None:
    """One module, one image: a face with even odds and offsets off by (1, 0, 0, 0), a background with even odds."""
    scores = torch.zeros(1, 2, 2)
    offsets = torch.zeros(1, 2, 4)
    target = torch.zeros(1, 2, 4)
    target[0, 0, 0] = 1.0
    loss = multi_task([(scores, offsets)], [torch.tensor([[FACE, BACKGROUND]])], [target], MineRule())
    assert loss.classes == pytest.approx(math.log(2))  # mean of two cross-entropies
    assert loss.boxes == pytest.approx(1 - 0.5 / 9)  # smooth L1 with beta 1/9 of a difference of 1
    assert loss.total.item() == pytest.approx(loss.classes + loss.boxes)
    assert loss.faces == 1


def test_ignored_anchors_get_no_gradient() -> None:
    scores = torch.zeros(1, 3, 2, requires_grad=True)
    offsets = torch.zeros(1, 3, 4, requires_grad=True)
    labels = torch.tensor([[FACE, IGNORE, BACKGROUND]])
    multi_task([(scores, offsets)], [labels], [torch.ones(1, 3, 4)], MineRule()).total.backward()
    assert scores.grad is not None
    assert offsets.grad is not None
    assert scores.grad[0, 1].abs().sum() == 0
    assert offsets.grad[0, 1:].abs().sum() == 0  # neither ignored nor background anchors learn boxes
    assert scores.grad[0, 0].abs().sum() > 0


def test_a_batch_without_faces_is_finite() -> None:
    loss = multi_task(
        [(torch.zeros(2, 5, 2), torch.zeros(2, 5, 4))],
        [torch.full((2, 5), BACKGROUND)],
        [torch.zeros(2, 5, 4)],
        MineRule(),
    )
    assert math.isfinite(loss.total.item())
    assert loss.boxes == 0
