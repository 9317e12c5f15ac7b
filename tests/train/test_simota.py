"""SimOTA: which predictions learn a face, by hand-made predictions."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from facestream.engines.boxes import F32  # noqa: E402
from facestream.train.anchors import encode, grid_anchors  # noqa: E402
from facestream.train.assign import BACKGROUND, FACE, IGNORE  # noqa: E402
from facestream.train.loss import AnchorTargets  # noqa: E402
from facestream.train.simota import SimOtaRule, simota  # noqa: E402
from torch import Tensor  # noqa: E402

ANCHORS = [grid_anchors(8, 8, 8, (16.0,)), grid_anchors(4, 4, 16, (64.0,))]
NONE = np.zeros((0, 4), np.float32)


def boxes(*rows: tuple[float, float, float, float]) -> F32:
    return np.array(rows, np.float32).reshape(-1, 4)


def targets(
    predicted: dict[int, F32], faces: F32, ignores: F32 = NONE, scores: dict[int, float] | None = None
) -> list[AnchorTargets]:
    """Anchors of both modules by their number; those not named predict a box of a pixel, with a score of one half."""
    every = torch.cat(ANCHORS)
    middle = (every[:, :2] + every[:, 2:]) / 2
    xyxy = torch.cat([middle - 0.5, middle + 0.5], 1)
    margin = torch.zeros(len(every))
    for index, box in predicted.items():
        xyxy[index] = torch.from_numpy(box)
    for index, score in (scores or {}).items():
        margin[index] = score
    offsets = encode(every, xyxy)
    outputs: list[tuple[Tensor, Tensor]] = [
        (torch.stack([-margin[part] / 2, margin[part] / 2], 1)[None], offsets[part][None])
        for part in (slice(0, 64), slice(64, 80))
    ]
    return simota(ANCHORS, (8, 16), outputs, [faces], [ignores], SimOtaRule())


def labels(found: list[AnchorTargets]) -> Tensor:
    return torch.cat([t.labels[0] for t in found])


FACE_BOX = boxes((16, 16, 40, 40))  # its middle is at 28, 28: cell (3, 3) of stride 8, cell (1, 1) of stride 16


def test_a_face_goes_to_as_many_predictions_as_its_overlaps_sum_to() -> None:
    near = [3 * 8 + 3, 3 * 8 + 2, 2 * 8 + 3]
    found = labels(targets({i: FACE_BOX[0] for i in near}, FACE_BOX))
    assert found.nonzero()[:, 0].tolist() == sorted(near)  # three overlaps of 1
    assert (found[near] == FACE).all()


def test_a_face_that_no_prediction_overlaps_is_still_given_to_one_near_its_middle() -> None:
    found = labels(targets({}, FACE_BOX))
    assert (found == FACE).sum() == 1
    y, x = divmod(int(found.argmax()), 8)
    assert abs(x - 3) <= 1
    assert abs(y - 3) <= 1


def test_the_higher_score_wins_between_equal_boxes_and_a_far_cell_never() -> None:
    half = boxes((16, 16, 40, 28))[0]  # IoU one half, so that the face takes one prediction of the two
    at, beside, far = 3 * 8 + 3, 3 * 8 + 2, 7 * 8 + 7
    found = labels(targets({at: half, beside: half, far: FACE_BOX[0]}, FACE_BOX, scores={beside: 2.0, far: 5.0}))
    assert found.nonzero()[:, 0].tolist() == [beside]


def test_a_prediction_between_two_faces_learns_the_one_it_costs_less_for() -> None:
    faces = boxes((16, 16, 40, 40), (24, 16, 48, 40))
    at = 3 * 8 + 4
    found = targets({at: faces[1]}, faces)
    assert labels(found)[at] == FACE
    assert torch.cat([t.xyxy[0] for t in found])[at].tolist() == faces[1].tolist()


def test_predictions_on_an_ignore_region_learn_nothing_unless_they_are_a_faces() -> None:
    region = boxes((0, 0, 24, 24))
    on, off = 1 * 8 + 1, 6 * 8 + 6
    found = labels(targets({on: region[0], off: boxes((4, 4, 20, 20))[0]}, NONE, region))
    assert found[on] == IGNORE
    assert found[off] == IGNORE  # its cell lies elsewhere, what it predicts does not
    assert found[5 * 8 + 5] == BACKGROUND
    with_face = labels(targets({3 * 8 + 3: FACE_BOX[0]}, FACE_BOX, FACE_BOX))
    assert with_face[3 * 8 + 3] == FACE
