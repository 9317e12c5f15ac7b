from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from train.augment import AugmentRule, augment

PLAIN_DICT = {"mosaic": 0, "colour": 0, "blur": 0, "jpeg": 0, "noise": 0, "dark": 0}


def picture(faces: list[tuple[int, int, int, int]], ignored: list[bool] | None = None) -> tuple:
    """Black, with each face a white square, so that boxes can be checked on the pixels."""
    image = np.zeros((300, 400, 3), np.uint8)
    for x0, y0, x1, y1 in faces:
        image[y0:y1, x0:x1] = 255
    return image, np.array(faces, np.float32).reshape(-1, 4), np.array(ignored or [False] * len(faces), bool)


@pytest.mark.parametrize("seed", range(12))
def test_boxes_follow_the_pixels_through_scale_shift_and_flip(seed: int) -> None:
    rng = np.random.default_rng(seed)
    item = picture([(180, 120, 220, 170)])
    rule = AugmentRule(**PLAIN_DICT, rotate=0.0, smallest=20, largest=120)
    crop, faces, _ = augment(item, lambda: item, 256, rule, rng)
    assert len(faces) == 1
    x0, y0, x1, y1 = faces[0]
    inside = crop[int(y0) + 2 : int(y1) - 2, int(x0) + 2 : int(x1) - 2]
    assert inside.mean() > 240
    middle = crop[int((y0 + y1) / 2), max(0, int(x0) - 8) : int(x1) + 8].mean(1)
    edges = max(0, int(x0) - 8) + np.flatnonzero(middle > 128)[[0, -1]] + (0, 1)
    assert np.abs(edges - (x0, x1)).max() <= 1  # the padding is never as near as this to a face


def test_the_face_a_crop_is_built_around_has_the_size_asked_for() -> None:
    item = picture([(150, 100, 190, 140)])
    sides = []
    for seed in range(60):
        rule = AugmentRule(**PLAIN_DICT, smallest=12, largest=80, fill=0.0)
        _, faces, _ = augment(item, lambda: item, 256, rule, np.random.default_rng(seed))
        sides += [float(np.sqrt((f[2] - f[0]) * (f[3] - f[1]))) for f in faces]
    assert min(sides) < 20
    assert max(sides) > 60
    assert min(sides) > 11


def test_faces_mostly_outside_or_tiny_become_ignore_regions() -> None:
    item = picture([(0, 0, 40, 40), (200, 150, 203, 153)])
    for seed in range(30):
        rule = AugmentRule(**PLAIN_DICT, smallest=40, largest=40, enlarge=1.0, drop=6.0)
        _, faces, ignores = augment(item, lambda: item, 256, rule, np.random.default_rng(seed))
        assert all(min(f[2] - f[0], f[3] - f[1]) >= 6 for f in faces)
        assert len(faces) + len(ignores) <= 2


def test_ignore_regions_stay_ignored() -> None:
    item = picture([(100, 100, 160, 160), (170, 100, 230, 160)], [False, True])
    rule = AugmentRule(**PLAIN_DICT, smallest=40, largest=60)
    seen = 0
    for seed in range(20):
        _, faces, ignores = augment(item, lambda: item, 384, rule, np.random.default_rng(seed))
        assert len(faces) == 1
        seen += len(ignores)
    assert seen >= 15


def test_mosaics_hold_faces_of_several_pictures() -> None:
    item = picture([(180, 120, 220, 170)])
    rule = AugmentRule(**{**PLAIN_DICT, "mosaic": 1.0})
    counts = []
    for seed in range(20):
        crop, faces, _ = augment(item, lambda: item, 256, rule, np.random.default_rng(seed))
        assert crop.shape == (256, 256, 3)
        assert (faces >= 0).all()
        assert (faces <= 256).all()
        counts.append(len(faces))
    assert max(counts) >= 4


def test_a_picture_without_faces_gives_none() -> None:
    item = picture([])
    crop, faces, ignores = augment(item, lambda: item, 128, AugmentRule(mosaic=0), np.random.default_rng(0))
    assert crop.dtype == np.uint8
    assert faces.shape == ignores.shape == (0, 4)
