from __future__ import annotations

import cv2
import numpy as np
import pytest
from facestream.engines.boxes import area_xyxy, grow_xyxy, intersection_xyxy, iou_xyxy, union_xyxy
from hypothesis import given
from hypothesis import strategies as st

from tests.reference_nms import nms_xyxy


def test_iou_by_hand() -> None:
    a = np.array([[0, 0, 10, 10], [0, 0, 0, 0]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    assert iou_xyxy(a, b)[0].tolist() == pytest.approx([1, 50 / 150, 0])
    assert iou_xyxy(a, a[1:])[1, 0] == 0  # two empty boxes
    assert intersection_xyxy(a, b)[0].tolist() == [100, 50, 0]


def test_an_inverted_box_has_no_area() -> None:
    assert area_xyxy(np.array([[10.0, 0, 0, 10]])).tolist() == [0]


def test_growing_keeps_the_centre_and_scales_both_sides() -> None:
    assert grow_xyxy(np.array([[10.0, 20, 20, 40]]), 1.5).tolist() == [[7.5, 15, 22.5, 45]]
    assert grow_xyxy(np.array([[0.0, 0, 2, 2]] * 2), np.array([1, 2])).tolist() == [[0, 0, 2, 2], [-1, -1, 3, 3]]


def test_the_smallest_box_around_two() -> None:
    assert union_xyxy(np.array([0.0, 5, 10, 15]), np.array([4.0, 2, 8, 20])).tolist() == [0, 2, 10, 20]


def test_nms_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [0, 0, 10, 3]], np.float32)
    assert nms_xyxy(boxes, np.array([0.8, 0.9, 0.5, 0.4]), 0.3).tolist() == [1, 2]  # the last overlaps box 1 by 1/3
    assert nms_xyxy(boxes, np.array([0.8, 0.9, 0.5, 0.4]), 0.34).tolist() == [1, 2, 3]


def test_nms_ties_go_to_the_lower_index_and_nothing_gives_nothing() -> None:
    same = np.array([[0, 0, 10, 10]] * 3, np.float32)
    assert nms_xyxy(same, np.ones(3), 0.3).tolist() == [0]
    assert nms_xyxy(np.zeros((0, 4), np.float32), np.zeros(0), 0.3).tolist() == []


@given(st.integers(0, 80), st.integers(0, 1000))
def test_nms_keeps_what_opencv_keeps(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (count, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (count, 2)).astype(np.float32)], 1)
    scores = (1 + rng.permutation(count)).astype(np.float32)
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).astype(np.float64)
    theirs = np.asarray(cv2.dnn.NMSBoxes(xywh, scores, 0.0, 0.3)).reshape(-1) if count else np.zeros(0)
    assert nms_xyxy(boxes, scores, 0.3).tolist() == theirs.tolist()
