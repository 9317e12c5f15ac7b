from __future__ import annotations

import numpy as np
import pytest
from facestream.engines.face_crops import SIDE, face_crop, face_crops, part_of
from facestream.engines.letterbox import GREY

WHOLE = (0, 0, 400, 300)


def picture() -> np.ndarray:
    """Red grows to the right, green downwards, by one a pixel."""
    rgb = np.zeros((300, 400, 3), np.uint8)
    rgb[..., 0] = np.arange(400) // 2
    rgb[..., 1] = np.arange(300)[:, None] * 0.75
    return rgb


def test_a_crop_shows_the_box_and_as_much_around_it_undistorted() -> None:
    box = np.float32([180, 130, 220, 170])
    crop = face_crop(picture(), box, WHOLE)
    assert crop.shape == (SIDE, SIDE, 3)
    assert (crop == picture()[110:190, 160:240]).all()


@pytest.mark.parametrize("side", [10, 120])
def test_boxes_of_every_size_fill_the_same_share(side: int) -> None:
    rgb = np.full((300, 400, 3), 200, np.uint8)
    rgb[150 - side // 2 : 150 + side // 2, 200 - side // 2 : 200 + side // 2] = 0
    box = np.float32([200 - side / 2, 150 - side / 2, 200 + side / 2, 150 + side / 2])
    dark = face_crop(rgb, box, WHOLE)[..., 0] < 100
    assert dark.mean() == pytest.approx(0.25, abs=0.03)
    assert dark[SIDE // 4 + 4 : -SIDE // 4 - 4, SIDE // 4 + 4 : -SIDE // 4 - 4].all()


def test_a_tall_box_is_not_stretched() -> None:
    rgb = np.full((300, 400, 3), 200, np.uint8)
    rgb[100:200, 175:225] = 0
    dark = face_crop(rgb, np.float32([175, 100, 225, 200]), WHOLE)[..., 0] < 100
    assert dark.any(1).sum() / dark.any(0).sum() == pytest.approx(2, rel=0.1)


def test_beyond_the_picture_its_edge_is_repeated() -> None:
    rgb = np.full((300, 400, 3), 9, np.uint8)
    rgb[:, 0] = 50
    crop = face_crop(rgb, np.float32([-20, -20, 20, 20]), WHOLE)
    assert (crop[:, : SIDE // 2] == 50).all()
    assert (crop[:, SIDE // 2 + 2 :] == 9).all()


def test_where_nothing_of_the_picture_is_left_it_is_grey() -> None:
    assert (face_crop(picture(), np.float32([500, 500, 540, 540]), WHOLE) == GREY).all()


@pytest.mark.parametrize("box", [[500, 500, 540, 540], [10, 10, 10, 10], [390, 290, 380, 280], [-900, 0, -800, 90]])
def test_boxes_outside_or_without_area_give_crops_too(box: list[float]) -> None:
    assert face_crop(picture(), np.float32(box), WHOLE).shape == (SIDE, SIDE, 3)


def test_a_crop_shows_nothing_of_another_part() -> None:
    rgb = np.full((300, 400, 3), 9, np.uint8)
    rgb[:, 200:] = 250
    parts = ((0, 0, 200, 300), (200, 0, 400, 300))
    (crop,) = face_crops(rgb, np.float32([[150, 100, 198, 148]]), parts)
    assert crop.max() == 9
    assert face_crops(rgb, np.float32([[150, 100, 198, 148]])).max() > 240


def test_the_part_is_the_one_with_the_boxs_centre() -> None:
    parts = ((0, 0, 100, 100), (108, 0, 200, 100))
    assert part_of(np.float32([90, 10, 130, 50]), parts, WHOLE) == parts[1]
    assert part_of(np.float32([95, 10, 113, 50]), parts, WHOLE) == WHOLE


def test_no_boxes_no_crops() -> None:
    assert face_crops(picture(), np.zeros((0, 4), np.float32)).shape == (0, SIDE, SIDE, 3)
