from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.errors import BadInput
from facestream.train.augment import AugmentRule
from facestream.train.data import Batches, Crops, collate, load, read_split

from tests.pack import make_pack

PACK = Path(os.environ.get("FACESTREAM_DATA", "../shared/data")) / "face-pack"


def listing(root: Path, text: str) -> Path:
    (root / "wider_face_split").mkdir()
    (root / "wider_face_split" / "wider_face_train_bbx_gt.txt").write_text(text)
    return root


def test_boxes_become_corners_and_invalid_ones_are_ignored(tmp_path: Path) -> None:
    faces = "10 20 30 40 0 0 0 0 0 0\n1 2 3 4 0 0 0 1 0 0\n5 5 0 9 0 0 0 0 0 0\n"
    text = f"a/1.jpg\n3\n{faces}a/2.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n"
    one, two = read_split(listing(tmp_path, text), "train")
    assert one.xyxy.tolist() == [[10, 20, 40, 60], [1, 2, 4, 6], [5, 5, 5, 14]]
    assert one.ignore.tolist() == [False, True, True]  # the last has no area
    assert one.path == tmp_path / "WIDER_train/images/a/1.jpg"
    assert two.xyxy.shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a.jpg\nmany\n1 2 3 4 0 0 0 0 0 0\n", 1),
        ("a.jpg\n1\n1 2 3 4\n", 1),
        ("a.jpg\n1\n1 2 3 4 0 0 0 0 0 0\nb.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n", 4),
    ],
)
def test_a_bad_annotation_names_file_and_line(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(BadInput, match=rf"bbx_gt\.txt:{line}"):
        read_split(listing(tmp_path, text), "train")


def test_a_wrong_folder_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="wider_face_split"):
        read_split(tmp_path, "train")


def test_a_crop_depends_on_seed_and_number_only(tmp_path: Path) -> None:
    images = read_split(make_pack(tmp_path), "train")
    first, again, other = (Crops(images, AugmentRule(), seed, 4) for seed in (0, 0, 1))
    again[(0, 0, 128)]  # another crop in between must not matter
    a, b, c = first[(3, 1, 128)], again[(3, 1, 128)], other[(3, 1, 128)]
    assert (a[0] == b[0]).all()
    assert np.array_equal(a[1], b[1])
    assert not (a[0] == c[0]).all()


def test_images_that_do_not_fit_the_cache_give_the_same_crops(tmp_path: Path) -> None:
    images = read_split(make_pack(tmp_path), "train")
    kept, read = Crops(images, AugmentRule(), 0, 2), Crops(images, AugmentRule(), 0, 2, cache_gb=0)
    assert all(p is not None for p in kept.pictures)
    assert all(p is None for p in read.pictures)
    assert (kept[(1, 0, 96)][0] == read[(1, 0, 96)][0]).all()


def test_workers_deliver_the_same_batches(tmp_path: Path) -> None:
    crops = Crops(read_split(make_pack(tmp_path), "train"), AugmentRule(), 0, 2)
    plain, forked = (
        [part[0] for (part,) in load(crops, Batches(1, 3, 2, (64,), 0), collate, workers)] for workers in (0, 1)
    )
    assert len(plain) == 2
    assert all((a == b).all() for a, b in zip(plain, forked, strict=True))


def test_larger_crops_come_in_smaller_batches() -> None:
    batches = list(Batches(0, 60, 16, (128, 256), 0))
    assert {(b[0][2], len(b)) for b in batches} == {(128, 16), (256, 4)}


def test_resumed_batches_continue_the_series() -> None:
    assert list(Batches(0, 9, 4, (64, 128), 5))[4:] == list(Batches(4, 9, 4, (64, 128), 5))


@pytest.mark.data
def test_the_pack_has_the_faces_its_readme_counts() -> None:
    if not PACK.is_dir():
        pytest.skip(f"no training images at {PACK}")
    images = read_split(PACK, "train")
    said = re.search(r"([\d,]+) training pictures \(([\d,]+) faces, ([\d,]+) ignore", (PACK / "README.md").read_text())
    assert said is not None
    faces, ignored = (
        sum(int(flags.sum()) for flags in each) for each in zip(*((~i.ignore, i.ignore) for i in images), strict=True)
    )
    assert (len(images), faces, ignored) == tuple(int(number.replace(",", "")) for number in said.groups())


def test_some_crops_are_built_around_false_alarms(tmp_path: Path) -> None:
    """With a chance of one, every crop shows the place in the one picture that has any."""
    images = read_split(make_pack(tmp_path), "train")
    place = np.array([[40, 30, 60, 50]], np.float32)
    crops = Crops(images, AugmentRule(mined=1.0, mosaic=0.0), 0, 2, mined={images[1].path: place})
    for step in range(6):
        (cell,) = crops.params((step, 0, 128)).cells
        x, y = cell.matrix @ (50, 40, 1)
        assert cell.image == 1
        assert -1 <= x <= 129
        assert -1 <= y <= 129
    plain = Crops(images, AugmentRule(), 0, 2)
    assert not plain.mined
