from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

from facestream.train.assign import BACKGROUND, FACE, IGNORE, AssignRule, assign  # noqa: E402

NONE = torch.zeros(0, 4)


def one(anchors: torch.Tensor, faces: torch.Tensor, ignores: torch.Tensor, rule: AssignRule) -> tuple:
    """A batch of one image, and the same image padded in a batch of two, which must not matter."""
    labels, match = assign(anchors, faces[None], ignores[None], rule)
    other = torch.tensor([[900.0, 900, 950, 950]])
    pad = torch.nn.functional.pad
    twice = assign(
        anchors,
        torch.stack([pad(faces, (0, 0, 0, 1)), pad(other, (0, 0, 0, len(faces)))]),
        torch.stack([pad(ignores, (0, 0, 0, 1)), pad(other, (0, 0, 0, len(ignores)))]),
        rule,
    )
    assert torch.equal(twice[0][0], labels[0])
    assert torch.equal(twice[1][0][labels[0] == FACE], match[0][labels[0] == FACE])
    return labels[0], match[0]


def boxes(*rows: tuple[float, float, float, float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def test_above_half_is_face_below_three_tenths_is_background_between_learns_nothing() -> None:
    face = boxes((0, 0, 10, 10))
    anchors = boxes(
        (0, 0, 10, 10),  # IoU 1
        (0, 0, 10, 5),  # 0.5 exactly: not above
        (0, 0, 10, 6),  # 0.6
        (0, 0, 10, 2.9),  # 0.29
        (0, 0, 10, 3),  # 0.3 exactly: not below
        (50, 50, 60, 60),  # 0
    )
    labels, _ = one(anchors, face, NONE, AssignRule())
    assert labels.tolist() == [FACE, IGNORE, FACE, BACKGROUND, IGNORE, BACKGROUND]


def test_an_anchor_takes_the_face_it_overlaps_most() -> None:
    faces = boxes((0, 0, 10, 8), (0, 0, 10, 10))
    _, match = one(boxes((0, 0, 10, 10), (0, 0, 10, 7.5)), faces, NONE, AssignRule())
    assert match.tolist() == [1, 0]


def test_no_forced_match_by_default_and_one_best_anchor_when_asked_for() -> None:
    face = boxes((0, 0, 6, 6))
    anchors = boxes((0, 0, 16, 16), (2, 2, 18, 18))  # IoU 0.14 and less
    assert one(anchors, face, NONE, AssignRule())[0].tolist() == [BACKGROUND, BACKGROUND]
    labels, match = one(anchors, face, NONE, AssignRule(fewest=1))
    assert labels.tolist() == [FACE, BACKGROUND]
    assert match[0] == 0


def test_forced_match_never_takes_an_anchor_from_a_proper_match() -> None:
    faces = boxes((0, 0, 16, 16), (0, 0, 7, 7))
    labels, match = one(boxes((0, 0, 16, 16)), faces, NONE, AssignRule(fewest=1))
    assert labels.tolist() == [FACE]
    assert match.tolist() == [0]


def test_ignore_regions_silence_anchors_over_them_and_inside_them() -> None:
    anchors = boxes((0, 0, 10, 10), (40, 40, 44, 44), (90, 90, 99, 99))
    ignores = boxes((0, 0, 10, 8), (30, 30, 60, 60))
    assert one(anchors, NONE, ignores, AssignRule())[0].tolist() == [IGNORE, IGNORE, BACKGROUND]


def test_a_face_beside_an_ignore_region_still_learns() -> None:
    both = boxes((0, 0, 10, 10))
    assert one(both, both, both, AssignRule())[0].tolist() == [FACE]


def test_without_faces_everything_is_background() -> None:
    assert one(boxes((0, 0, 8, 8), (8, 0, 16, 8)), NONE, NONE, AssignRule())[0].tolist() == [BACKGROUND] * 2


def test_a_face_with_few_matches_gets_its_best_anchors_above_the_loose_bound() -> None:
    face = boxes((0, 0, 10, 10))
    anchors = boxes((0, 0, 10, 4.5), (0, 0, 10, 3.5), (0, 0, 10, 2.6), (0, 0, 10, 2.4), (0, 0, 10, 2))
    rule = AssignRule(face=0.5, background=0.3, fewest=3, loose=0.25)
    assert one(anchors, face, NONE, rule)[0].tolist() == [FACE, FACE, FACE, BACKGROUND, BACKGROUND]
    assert one(anchors[3:], face, NONE, rule)[0].tolist() == [FACE, BACKGROUND]  # the very best one always


def test_of_two_faces_that_want_one_anchor_the_nearer_gets_it() -> None:
    faces = boxes((0, 0, 8, 8), (1, 1, 9, 9))
    labels, match = one(boxes((3, 3, 15, 15)), faces, NONE, AssignRule(fewest=2))
    assert labels.tolist() == [FACE]
    assert match.tolist() == [1]


def test_enough_proper_matches_need_no_more() -> None:
    face = boxes((0, 0, 10, 10))
    anchors = boxes((0, 0, 10, 9), (0, 0, 10, 8), (0, 0, 10, 4))
    assert one(anchors, face, NONE, AssignRule(fewest=2, loose=0.2))[0].tolist() == [FACE, FACE, IGNORE]
