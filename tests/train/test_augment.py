from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.boxes import Array  # noqa: E402
from facestream.train.augment import AugmentRule, CropParams, PixelParams, Subject, draw_crop_params  # noqa: E402
from facestream.train.render import pyramid, render  # noqa: E402
from facestream.train.render_torch import GpuImageCache  # noqa: E402

PLAIN_DICT = dict.fromkeys(("mosaic", "colour", "blur", "jpeg", "noise", "dark", "occlude", "empty", "distractors"), 0)

Item = tuple[Array, Subject]


def picture(faces: list[tuple[int, int, int, int]], ignored: list[bool] | None = None) -> Item:
    """Black, with each face a white square, so that boxes can be checked on the pixels."""
    image = np.zeros((300, 400, 3), np.uint8)
    for x0, y0, x1, y1 in faces:
        image[y0:y1, x0:x1] = 255
    ignore = np.array(ignored or [False] * len(faces), bool)
    return image, Subject(0, 400, 300, np.array(faces, np.float32).reshape(-1, 4), ignore)


def augment(item: Item, size: int, rule: AugmentRule, seed: int) -> tuple[Array, Array, Array]:
    params = draw_crop_params(item[1], lambda: item[1], size, rule, np.random.default_rng(seed))
    return render(params, {0: pyramid(item[0])}), params.faces, params.ignores


@pytest.mark.parametrize("seed", range(12))
def test_boxes_follow_the_pixels_through_scale_shift_and_flip(seed: int) -> None:
    rule = AugmentRule(**PLAIN_DICT, rotate=0.0, smallest=20, largest=120)
    crop, faces, _ = augment(picture([(180, 120, 220, 170)]), 256, rule, seed)
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
        _, faces, _ = augment(item, 256, rule, seed)
        sides += [float(np.sqrt((f[2] - f[0]) * (f[3] - f[1]))) for f in faces]
    assert min(sides) < 20
    assert max(sides) > 60
    assert min(sides) > 11


def test_pictures_are_shown_at_about_their_own_size_when_asked_to() -> None:
    item = picture([(150, 100, 190, 140)])
    rule = AugmentRule(**PLAIN_DICT, native=0.5, smallest=8, largest=12, fill=0.0)  # else a face becomes 8 to 12 px
    scales = [
        draw_crop_params(item[1], lambda: item[1], 256, rule, np.random.default_rng(s)).cells[0].scale
        for s in range(60)
    ]
    native = [scale for scale in scales if scale > 0.5]
    assert 15 < len(native) < 45
    assert min(native) > 0.74
    assert max(native) < 1.36


def test_faces_mostly_outside_or_tiny_become_ignore_regions() -> None:
    item = picture([(0, 0, 40, 40), (200, 150, 203, 153)])
    for seed in range(30):
        rule = AugmentRule(**PLAIN_DICT, smallest=40, largest=40, enlarge=1.0, drop=6.0)
        _, faces, ignores = augment(item, 256, rule, seed)
        assert all(min(f[2] - f[0], f[3] - f[1]) >= 6 for f in faces)
        assert len(faces) + len(ignores) <= 2


def test_ignore_regions_stay_ignored() -> None:
    item = picture([(100, 100, 160, 160), (170, 100, 230, 160)], [False, True])
    rule = AugmentRule(**PLAIN_DICT, smallest=40, largest=60)
    seen = 0
    for seed in range(20):
        _, faces, ignores = augment(item, 384, rule, seed)
        assert len(faces) == 1
        seen += len(ignores)
    assert seen >= 15


def test_mosaics_hold_faces_of_several_pictures() -> None:
    rule = AugmentRule(**{**PLAIN_DICT, "mosaic": 1.0})
    counts = []
    for seed in range(20):
        crop, faces, _ = augment(picture([(180, 120, 220, 170)]), 256, rule, seed)
        assert crop.shape == (256, 256, 3)
        assert (faces >= 0).all()
        assert (faces <= 256).all()
        whole = [f for f in faces if min(f[0], f[1]) > 2 and min(f[2] - f[0], f[3] - f[1]) > 12]
        assert all(crop[int(f[1]) + 4 : int(f[3]) - 4, int(f[0]) + 4 : int(f[2]) - 4].mean() > 200 for f in whole)
        counts.append(len(faces))
    assert max(counts) >= 4


def test_a_picture_without_faces_gives_none() -> None:
    crop, faces, ignores = augment(picture([]), 128, AugmentRule(mosaic=0), 0)
    assert crop.dtype == np.uint8
    assert faces.shape == ignores.shape == (0, 4)


def test_a_part_without_faces_is_shown_where_there_is_one() -> None:
    rule = AugmentRule(**{**PLAIN_DICT, "empty": 1.0})
    for seed in range(20):
        crop, faces, ignores = augment(picture([(180, 120, 220, 170)]), 128, rule, seed)
        assert crop.max() < 255, "the face's pixels are seen"
        assert len(faces) == len(ignores) == 0
    full = picture([(10, 10, 390, 290)])
    assert any(len(augment(full, 128, rule, seed)[1]) for seed in range(20)), "a picture that is all face shows it"


def test_something_stands_before_a_part_of_a_face() -> None:
    rule = AugmentRule(**{**PLAIN_DICT, "occlude": 1.0}, smallest=40, largest=80, rotate=0.0)
    for seed in range(10):
        crop, faces, _ = augment(picture([(180, 120, 220, 170)]), 256, rule, seed)
        x0, y0, x1, y1 = (int(v) for v in faces[0])
        hidden = float((crop[y0:y1, x0:x1].mean(2) < 250).mean())
        assert 0.05 < hidden < 0.6


def test_signs_stand_beside_faces() -> None:
    rule = AugmentRule(**{**PLAIN_DICT, "distractors": 1.0}, smallest=20, largest=40, rotate=0.0)
    bare = AugmentRule(**PLAIN_DICT, smallest=20, largest=40, rotate=0.0)
    seen = 0
    for seed in range(20):
        crop, faces, _ = augment(picture([(180, 120, 220, 170)]), 128, rule, seed)
        same, as_well, _ = augment(picture([(180, 120, 220, 170)]), 128, bare, seed)
        assert np.array_equal(faces, as_well)
        seen += not np.array_equal(crop, same)
        x0, y0, x1, y1 = (int(v) for v in faces[0])
        assert np.array_equal(crop[y0:y1, x0:x1], same[y0:y1, x0:x1]), "a distractor covers the face"
    assert seen > 12


def pictures() -> list[Array]:
    """Two of different sizes, smooth in places and sharp in others, as photographs are."""
    out = []
    for height, width in ((211, 307), (340, 160)):
        y, x = np.mgrid[:height, :width]
        wave = np.stack([np.sin(x / 17) + np.cos(y / 23), np.sin((x + y) / 11), np.cos(x / 31)], -1) * 50 + 128
        wave[(x // 40 + y // 30) % 3 == 0] += 60
        out.append(np.clip(wave, 0, 255).astype(np.uint8))
    return out


def both(batch: list[CropParams]) -> tuple[Array, Array]:
    levels = [pyramid(p) for p in pictures()]
    cache = GpuImageCache(levels, torch.device("cpu"))
    crops = cache.render(batch, 0).permute(0, 2, 3, 1).numpy().astype(float)
    return crops, np.stack([render(params, dict(enumerate(levels))) for params in batch]).astype(float)


def drawn(rule: AugmentRule, count: int) -> list[CropParams]:
    subjects = [
        Subject(i, p.shape[1], p.shape[0], np.array([[60, 50, 90, 90]], np.float32), np.array([False]))
        for i, p in enumerate(pictures())
    ]
    rngs = [np.random.default_rng(seed) for seed in range(count)]
    return [draw_crop_params(subjects[i % 2], lambda: subjects[1], 128, rule, rng) for i, rng in enumerate(rngs)]


@pytest.mark.parametrize(
    ("rule", "within"),
    [
        ({}, 0.6),  # OpenCV's warp counts in 1/32 of a pixel
        ({"mosaic": 1.0}, 1.2),
        ({"colour": 1.0, "grey": 0.3}, 0.8),
        ({"dark": 1.0}, 0.8),
        ({"blur": 1.0}, 1.2),
        ({"jpeg": 1.0}, 3.0),
        ({"occlude": 1.0}, 0.8),
        ({"distractors": 1.0}, 0.8),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_both_renderers_make_the_same_pixels(rule: dict[str, float], within: float) -> None:
    batch = drawn(AugmentRule(**{**PLAIN_DICT, **rule}), 16)
    torch_pixels, cv2_pixels = both(batch)
    assert cv2_pixels.std() > 10
    assert np.abs(torch_pixels - cv2_pixels).mean() < within


def test_both_renderers_add_as_much_noise() -> None:
    params = drawn(AugmentRule(**PLAIN_DICT), 1)[0]
    still = both([params])
    noisy = both([CropParams(params.size, params.cells, PixelParams(noise=10.0), params.faces, params.ignores, 5)])
    for a, b in zip(still, noisy, strict=True):
        inside = (a > 40) & (a < 215)
        assert (b - a)[inside].std() == pytest.approx(10, rel=0.1)
