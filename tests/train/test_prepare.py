from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.errors import BadConfig, BadInput
from facestream.train.data import read_split, usable
from facestream.train.dataset_issues import DatasetIssues
from facestream.train.prepare import command, convert


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(1).integers(0, 256, (100, 200, 3), dtype=np.uint8))
    return path


def coco(root: Path, classes: tuple[str, ...] = ("face",)) -> Path:
    picture(root / "images" / "a.jpg")
    picture(root / "images" / "b.jpg")
    table = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 200, "height": 100}, {"id": 9, "file_name": "b.jpg"}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, 1)],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 30.4, 40], "area": 1200, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [100, 0, 50, 50], "iscrowd": 1},
            {"id": 3, "image_id": 9, "category_id": len(classes), "bbox": [1, 2, 3, 4], "iscrowd": 0},
        ],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(table))
    return root


def voc(root: Path) -> Path:
    picture(root / "JPEGImages" / "000001.jpg")
    (root / "Annotations").mkdir()
    (root / "Annotations" / "000001.xml").write_text(
        "<annotation><filename>000001.jpg</filename>"
        "<object><name>face</name><difficult>0</difficult>"
        "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>40</xmax><ymax>60</ymax></bndbox></object>\n"
        "<object><name>face</name><difficult>1</difficult>"
        "<bndbox><xmin>101</xmin><ymin>1</ymin><xmax>150</xmax><ymax>50</ymax></bndbox></object></annotation>"
    )
    return root


def yolo(root: Path) -> Path:
    picture(root / "images" / "train" / "a.jpg")
    picture(root / "images" / "train" / "none.jpg")
    picture(root / "images" / "val" / "v.jpg")
    (root / "labels" / "train").mkdir(parents=True)
    (root / "labels" / "train" / "a.txt").write_text("0 0.125 0.4 0.15 0.4\n0 0.625 0.25 0.25 0.5\n")
    return root


def boxes(root: Path, split: str = "train") -> dict[str, tuple[list, list]]:
    images = usable(read_split(root, split), DatasetIssues(stop=True))
    return {i.path.name: (i.xyxy.tolist(), i.ignore.tolist()) for i in images}


TWO = [[10, 20, 40, 60], [100, 0, 150, 50]]


def test_coco(tmp_path: Path) -> None:
    assert convert(coco(tmp_path / "s"), tmp_path / "w", "train", "coco", None, DatasetIssues()) == (2, 2, 1)
    assert boxes(tmp_path / "w") == {"a.jpg": (TWO, [False, True]), "b.jpg": ([[1, 2, 4, 6]], [False])}


def test_voc_counts_pixels_from_one_and_its_difficult_faces_are_invalid(tmp_path: Path) -> None:
    assert convert(voc(tmp_path / "s"), tmp_path / "w", "val", "voc", None, DatasetIssues()) == (1, 1, 1)
    assert boxes(tmp_path / "w", "val") == {"000001.jpg": (TWO, [False, True])}


def test_yolo_knows_splits_and_images_without_faces(tmp_path: Path) -> None:
    assert convert(yolo(tmp_path / "s"), tmp_path / "w", "train", "yolo", None, DatasetIssues()) == (2, 2, 0)
    assert boxes(tmp_path / "w") == {"a.jpg": (TWO, [False, False]), "none.jpg": ([], [])}
    convert(tmp_path / "s", tmp_path / "w", "val", "yolo", None, DatasetIssues())  # the other split beside it
    assert boxes(tmp_path / "w", "val") == {"v.jpg": ([], [])}


def test_of_several_classes_one_must_be_named(tmp_path: Path) -> None:
    source = coco(tmp_path / "s", ("face", "dog"))
    with pytest.raises(BadConfig, match="--class"):
        convert(source, tmp_path / "w", "train", "coco", None, DatasetIssues())
    assert not (tmp_path / "w").exists()
    assert convert(source, tmp_path / "w", "train", "coco", "face", DatasetIssues()) == (2, 1, 1)


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("labels/train/a.txt", "0 0.1 0.2\n", r"a\.txt:1"),
        ("labels/train/a.txt", "0 0.1 0.2 0.1 0.1\n0 90 80 10 10\n", r"a\.txt:2.*shares"),
    ],
)
def test_a_bad_yolo_line_is_named(tmp_path: Path, file: str, text: str, named: str) -> None:
    (yolo(tmp_path / "s") / file).write_text(text)
    with pytest.raises(BadInput, match=named):
        convert(tmp_path / "s", tmp_path / "w", "train", "yolo", None, DatasetIssues())


def test_bad_files_are_named(tmp_path: Path) -> None:
    (voc(tmp_path / "v") / "Annotations" / "000001.xml").write_text("<annotation>\n<object>")
    with pytest.raises(BadInput, match=r"000001\.xml:2"):
        convert(tmp_path / "v", tmp_path / "w", "train", "voc", None, DatasetIssues())
    (coco(tmp_path / "c") / "annotations" / "instances_train2017.json").write_text("{}")
    with pytest.raises(BadInput, match=r"train2017\.json"):
        convert(tmp_path / "c", tmp_path / "w", "train", "coco", None, DatasetIssues())


def test_the_command_finds_the_format_and_leaves_out_what_cannot_be_read(tmp_path: Path) -> None:
    (coco(tmp_path / "s") / "images" / "b.jpg").unlink()
    done = CliRunner().invoke(command, [str(tmp_path / "s"), "--to", str(tmp_path / "w")])
    assert "coco: 1 images, 1 faces, 1 invalid" in done.output
    assert "1 image that cannot be read" in done.output
    again = CliRunner().invoke(command, [str(tmp_path / "s"), "--to", str(tmp_path / "w")])
    assert isinstance(again.exception, BadInput)
    assert "is there already" in str(again.exception)
    strict = CliRunner().invoke(command, [str(tmp_path / "s"), "--to", str(tmp_path / "x"), "--strict"])
    assert isinstance(strict.exception, BadInput)
