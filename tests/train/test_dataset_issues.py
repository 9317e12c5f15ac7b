from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

import cv2  # noqa: E402
from facestream.engines.errors import BadInput  # noqa: E402
from facestream.train.data import Labelled, read_split, usable  # noqa: E402
from facestream.train.dataset_issues import DatasetIssues, check_image_file  # noqa: E402


def folder(root: Path, faces: list[str], name: str = "a/1.jpg") -> Path:
    """WIDER_train with one 200x100 JPEG and the given lines."""
    path = root / "WIDER_train" / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    cv2.imwrite(str(path), noise)
    (root / "wider_face_split").mkdir(exist_ok=True)
    rows = faces or ["0 0 0 0 0 0 0 0 0 0"]
    with (root / "wider_face_split" / "wider_face_train_bbx_gt.txt").open("a") as f:
        f.write("\n".join([name, str(len(faces)), *rows]) + "\n")
    return root


def looked_at(root: Path, issues: DatasetIssues) -> list[Labelled]:
    return usable(read_split(root, "train", issues), issues)


LISTING = "wider_face_train_bbx_gt.txt"
GOOD = "10 10 20 20 0 0 0 0 0 0"
FAULTY = [
    ("190 10 20 20 0 0 0 0 0 0", "box partly outside the image", f"{LISTING}:4: box 190 10 20 20 is partly outside"),
    ("300 10 20 20 0 0 0 0 0 0", "box outside the image", f"{LISTING}:4: box 300 10 20 20 is outside the 200x100"),
    ("10 10 -5 20 0 0 0 0 0 0", "box of negative size", f"{LISTING}:4: box of negative size: -5 x 20"),
    ("10 10 0 20 0 0 0 0 0 0", "box without area", f"{LISTING}:4: box without area: 0 x 20"),
]


@pytest.mark.parametrize(("line", "kind", "message"), FAULTY)
def test_a_bad_box_is_named_counted_and_does_not_learn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str, kind: str, message: str
) -> None:
    root, issues = folder(tmp_path, [GOOD, line]), DatasetIssues()
    (item,) = looked_at(root, issues)
    assert issues.counts == {kind: 1}
    assert message in caplog.text
    assert kind in issues.summary()
    assert not item.ignore[0]
    if kind == "box partly outside the image":
        assert item.xyxy[1].tolist() == [190, 10, 200, 30]
        assert not item.ignore[1]
    else:
        assert item.ignore[1]
    with pytest.raises(BadInput) as stopped:
        looked_at(root, DatasetIssues(stop=True))
    assert message in str(stopped.value)


def test_boxes_that_are_marked_invalid_need_not_be_right(tmp_path: Path) -> None:
    issues = DatasetIssues(stop=True)
    (item,) = looked_at(folder(tmp_path, ["300 10 0 20 0 0 0 1 0 0"]), issues)
    assert item.ignore.tolist() == [True]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_picture_that_is_cut_short_is_left_out(tmp_path: Path, suffix: str) -> None:
    root = folder(folder(tmp_path, [GOOD]), [GOOD], f"a/cut{suffix}")
    path = root / "WIDER_train/images/a" / f"cut{suffix}"
    assert check_image_file(path) == (200, 100)
    path.write_bytes(path.read_bytes()[:-200])
    issues = DatasetIssues()
    assert [i.path.name for i in looked_at(root, issues)] == ["1.jpg"]
    assert issues.counts == {"unreadable image": 1}
    with pytest.raises(BadInput, match=rf"cut\{suffix}: cannot read the image.*{LISTING}:4"):
        looked_at(root, DatasetIssues(stop=True))


def test_missing_pictures_and_missing_annotations_are_counted(tmp_path: Path) -> None:
    root = folder(folder(folder(tmp_path, [GOOD]), [], "b/2.jpg"), [GOOD], "b/3.jpg")
    (root / "WIDER_train/images/b/3.jpg").rename(root / "WIDER_train/images/b/4.jpg")
    issues = DatasetIssues()
    assert [i.path.name for i in looked_at(root, issues)] == ["1.jpg", "2.jpg"]
    assert issues.counts == {"missing image": 1, "image without annotation": 1}


def test_no_picture_at_all_stops(tmp_path: Path) -> None:
    root = folder(tmp_path, [GOOD])
    (root / "WIDER_train/images/a/1.jpg").unlink()
    with pytest.raises(BadInput, match="none of the images can be read"):
        looked_at(root, DatasetIssues())


def test_only_the_first_issues_of_a_kind_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    issues = DatasetIssues()
    for i in range(9):
        issues.add("missing image", f"{i}.jpg", "not found")
    assert caplog.text.count("not found") == 3
    assert issues.summary() == "left out: 9 missing image"


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda r: None, "no such folder"),
        (lambda r: r.mkdir(), "must hold WIDER_train/"),
        (lambda r: (r / "WIDER" / "wider_face_split").mkdir(parents=True), "did you mean --data"),
        (lambda r: (r.mkdir(), (r / "WIDER_train.zip").touch()), "unpack WIDER_train.zip"),
        (lambda r: ((r / "annotations").mkdir(parents=True), (r / "annotations/train.json").touch()), "coco"),
        (lambda r: ((r / "Annotations").mkdir(parents=True), (r / "Annotations/1.xml").touch()), "voc"),
        (lambda r: ((r / "labels").mkdir(parents=True), (r / "labels/1.txt").touch()), "python -m train.prepare"),
    ],
)
def test_a_wrong_folder_is_told_what_to_do(tmp_path: Path, make: object, hint: str) -> None:
    make(tmp_path / "data")  # type: ignore[operator]
    with pytest.raises(BadInput, match=hint):
        read_split(tmp_path / "data", "train")


def test_the_folder_within_the_data_set_is_told_so(tmp_path: Path) -> None:
    root = folder(tmp_path, [GOOD])
    for inner in ("WIDER_train", "wider_face_split"):
        with pytest.raises(BadInput, match=f"the folder above it: --data {tmp_path}"):
            read_split(root / inner, "train")


def test_the_command_counts_or_stops_as_the_config_says(tmp_path: Path) -> None:
    root = folder(tmp_path, [GOOD, "300 10 20 20 0 0 0 0 0 0"])
    command = [
        sys.executable, "-m", "facestream.train", "--data", str(root), "--model", "narrow",
        "--out", str(tmp_path / "run"),
        "--steps", "1", "--threads", "1", "--workers", "0", "--set", "batch=1", "--set", "sizes=[64]",
    ]  # fmt: skip
    stopped = subprocess.run([*command, "--set", "on_bad=stop"], capture_output=True, text=True, timeout=120)
    assert stopped.returncode == 2
    assert f"{LISTING}:4" in stopped.stderr
    assert "Traceback" not in stopped.stderr
