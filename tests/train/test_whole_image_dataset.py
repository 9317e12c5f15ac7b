from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

from facestream.train.anchors import grid_anchors  # noqa: E402
from facestream.train.assign import BACKGROUND, FACE, IGNORE, AssignRule, assign  # noqa: E402
from facestream.train.config import recipe  # noqa: E402
from facestream.train.data import Labelled, read_split, usable  # noqa: E402
from facestream.train.dataset_issues import DatasetIssues  # noqa: E402
from facestream.train.snip import Level  # noqa: E402
from facestream.train.targets import TargetAssigner  # noqa: E402
from facestream.train.whole_image_dataset import WholeImageDataset  # noqa: E402

from tests.pack import make_pack  # noqa: E402


def pack(tmp_path: Path) -> list[Labelled]:
    return usable(read_split(make_pack(tmp_path, 2), "train"), DatasetIssues())


def test_the_papers_view_scales_the_shorter_side_unless_the_longer_would_be_too_long(tmp_path: Path) -> None:
    images = pack(tmp_path)  # 640x360
    data = WholeImageDataset(images, recipe("vgg16", flip=False))
    pixels, faces, _ = data[(0, 0, 0)]
    assert pixels.shape == (3, 928, 1600)  # 1600 / 640 = 2.5 before 1200 / 360; 900 padded to 928
    item = data.item((0, 0, 0))
    wanted = item.xyxy * 2.5
    assert np.allclose(faces, wanted, atol=0.01) or not len(item.xyxy)


def test_half_of_the_pictures_are_mirrored_with_their_faces(tmp_path: Path) -> None:
    images = [i for i in pack(tmp_path) if len(i.xyxy)]
    plain = WholeImageDataset(images, recipe("vgg16", flip=False, shortest=360, longest=640))
    turned = WholeImageDataset(images, recipe("vgg16", shortest=360, longest=640))
    flipped = 0
    for step in range(6):
        (a, boxes, _), (b, mirrored, _) = plain[(step, 0, 0)], turned[(step, 0, 0)]
        if not torch.equal(a, b):
            assert torch.equal(a[:, :360].flip(2), b[:, :360])
            assert np.allclose(mirrored[:, [0, 2]], 640 - boxes[:, [2, 0]], atol=0.01)
            flipped += 1
    assert 0 < flipped < 6


def test_snip_makes_faces_outside_a_levels_range_invalid(tmp_path: Path) -> None:
    """Every picture is seen at each level; a face is valid at those whose range it is in, ignored at the others."""
    boxes = np.array([[10, 10, 30, 30], [50, 50, 110, 110], [200, 100, 350, 250]], np.float32)  # 20, 60 and 150 px
    image = next(i for i in pack(tmp_path) if len(i.xyxy))
    levels = (Level(360, 640, 0, 30), Level(180, 320, 25, 80), Level(90, 160, 70, 1e9))
    config = recipe("narrow", snip=True, levels=levels, flip=False)
    assert (config.view, config.assign.inside, config.assign.ignored) == ("whole_images", 1.0, 0.3)
    data = WholeImageDataset([Labelled(image.path, boxes, np.zeros(3, bool))], config)
    seen = {}
    for slot in range(12):
        pixels, faces, ignores = data[(0, slot, 0)]
        scale = {640: 1.0, 320: 0.5, 160: 0.25}[pixels.shape[2]]
        seen[pixels.shape[2]] = (faces / scale).tolist(), (ignores / scale).tolist()
    for number, width in enumerate((640, 320, 160)):
        assert seen[width][0] == [boxes[number].tolist()]
        assert seen[width][1] == [b for i, b in enumerate(boxes.tolist()) if i != number]


def test_anchors_that_overlap_an_invalid_face_by_more_than_03_learn_nothing() -> None:
    anchors = grid_anchors(8, 8, 16, (64.0,))
    invalid = torch.tensor([[[32.0, 32, 96, 96]]])
    labels, _ = assign(anchors, torch.zeros(1, 0, 4), invalid, AssignRule(inside=1.0))
    inter = torch.minimum(anchors[:, 2:], invalid[0, :, 2:]) - torch.maximum(anchors[:, :2], invalid[0, :, :2])
    inter = inter.clamp(min=0).prod(1)
    iou = inter / (2 * 64**2 - inter)
    assert (labels[0] == IGNORE).tolist() == (iou > 0.3).tolist()
    assert 0 < int((iou > 0.3).sum()) < len(anchors)
    small = grid_anchors(8, 8, 16, (16.0,))  # inside the invalid face but much smaller: background, as in SNIP
    assert (assign(small, torch.zeros(1, 0, 4), invalid, AssignRule(inside=1.0))[0] == BACKGROUND).all()
    assert (assign(small, torch.zeros(1, 0, 4), invalid, AssignRule())[0] == IGNORE).any()


def test_a_window_shows_a_face_and_is_no_larger_than_asked(tmp_path: Path) -> None:
    images = [i for i in pack(tmp_path) if len(i.xyxy)]
    data = WholeImageDataset(images, recipe("narrow", snip=True, levels=(Level(720, 1280, 0, 1e9),), window=256))
    for step in range(6):
        pixels, faces, _ = data[(step, 0, 0)]
        assert pixels.shape == (3, 256, 256)
        assert len(faces)
        assert (faces >= 0).all()
        assert (faces <= 256).all()


def test_a_crowd_in_a_large_picture_is_assigned_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 200, (30, 2)).astype(np.float32)
    faces = np.concatenate([corner, corner + rng.uniform(12, 80, (30, 1)).astype(np.float32)], 1)
    targets = TargetAssigner(recipe("narrow"), torch.device("cpu"))
    whole = targets(256, 320, [faces], [faces[:2] + 40])
    monkeypatch.setattr(TargetAssigner, "AT_ONCE", 3000)
    for a, b in zip(whole, targets(256, 320, [faces], [faces[:2] + 40]), strict=True):
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.xyxy[a.labels == FACE], b.xyxy[b.labels == FACE])
    assert sum(int((t.labels == FACE).sum()) for t in whole) > 10
