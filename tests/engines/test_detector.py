from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from facestream.engines.base import Detector
from facestream.engines.boxes import iou_xyxy
from facestream.engines.errors import BadConfig, BadInput, EngineMismatch
from facestream.engines.letterbox import ImageView, view
from facestream.engines.loader import load_detector, shipped
from facestream.engines.options import DetectorOptions
from onnx import TensorProto, helper

from tests.pack import demo_frames, demo_truth


class Fixed(Detector):
    """Says the same boxes for every picture: for what happens after the net."""

    def __init__(self, xyxy: list[list[float]], scores: list[float], **options: float) -> None:
        super().__init__(DetectorOptions(**options))  # type: ignore[arg-type]
        self.xyxy, self.scores = np.array(xyxy, np.float32), np.array(scores, np.float32)
        self.shapes: list[tuple[int, ...]] = []

    def infer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.shapes.append(images.shape)
        return np.stack([self.xyxy] * len(images)), np.stack([self.scores] * len(images))


def blank(width: int, height: int) -> ImageView:
    return view(np.zeros((height, width, 3), np.uint8))


def test_threshold_suppression_and_order() -> None:
    detector = Fixed([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 50, 9, 60]], [0.5, 0.9, 0.7, 0.17])
    found = detector.detect([blank(64, 64)])[0]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert found.xyxy.tolist() == [[1, 0, 11, 10], [50, 50, 60, 60]]


def test_boxes_are_in_pixels_of_the_picture_that_the_view_shows() -> None:
    small = view(np.zeros((1000, 2000, 3), np.uint8), (500, 250))
    assert Fixed([[10, 20, 30, 40]], [0.9]).detect([small])[0].xyxy.tolist() == [[40, 80, 120, 160]]


def test_scores_that_are_no_numbers_are_no_faces() -> None:
    assert len(Fixed([[0, 0, 9, 9]], [float("nan")]).detect([blank(32, 32)])[0]) == 0


def test_views_of_one_size_run_together_and_answers_keep_their_order() -> None:
    detector = Fixed([[0, 0, 10, 10]], [0.9])
    found = detector.detect([blank(64, 64), view(np.zeros((64, 128, 3), np.uint8), (64, 64)), blank(64, 40)])
    assert sorted(detector.shapes) == [(1, 32, 64, 3), (2, 64, 64, 3)]
    assert [float(d.xyxy[0, 2]) for d in found] == [10, 20, 10]
    assert detector.detect([]) == []


def test_the_shipped_model_finds_the_faces_of_the_demo() -> None:
    detector = load_detector("plainS")
    picked = [10, 40, 70, 100, 130]
    truth = demo_truth()
    false = 0
    for index, rgb in zip(picked, demo_frames(picked), strict=True):
        shown = view(rgb, (960, 544))
        found = detector.detect([shown])[0]
        assert (iou_xyxy(truth[index], found.xyxy).max(1) > 0.5).all(), f"a face of frame {index} is missed"
        false += len(found) - len(truth[index])
    assert false <= 6


def test_the_shipped_model_finds_nothing_in_an_empty_picture() -> None:
    for value in (0, 128, 255):
        assert len(load_detector("plainS").detect([view(np.full((360, 640, 3), value, np.uint8))])[0]) == 0


def test_a_face_is_found_at_its_place_in_upright_and_odd_pictures() -> None:
    (rgb,) = demo_frames([60])
    truth = demo_truth()[60]
    x0, y0, x1, y1 = truth[np.argmax(truth[:, 3] - truth[:, 1])].astype(int)
    left, top = max(0, x0 - 61), max(0, y0 - 100)
    cut = np.ascontiguousarray(rgb[top:719, left : x1 + 60])  # no side a multiple of 32
    found = load_detector("plainS").detect([view(cut)])[0]
    assert cut.shape[0] > cut.shape[1]
    assert iou_xyxy(np.array([[x0 - left, y0 - top, x1 - left, y1 - top]]), found.xyxy).max() > 0.5


def test_a_batch_says_what_single_pictures_say() -> None:
    detector = load_detector("plainS")
    views = [view(rgb, (640, 384)) for rgb in demo_frames([30, 90])]
    for alone, together in zip([detector.detect([v])[0] for v in views], detector.detect(views), strict=True):
        assert np.allclose(alone.xyxy, together.xyxy, atol=0.05)


def test_unknown_names_list_what_is_shipped() -> None:
    assert "plainS" in shipped()
    with pytest.raises(BadConfig, match="plainS"):
        load_detector("plainX")


def test_a_missing_file_says_how_to_build_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"build_engine\.py"):
        load_detector(str(tmp_path / "none.onnx"))


def test_files_that_are_no_detector_are_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(EngineMismatch, match="cannot load"):
        load_detector(str(tmp_path / "junk.onnx"))
    io = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", io[:1], io[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), tmp_path / "other.onnx"
    )
    with pytest.raises(EngineMismatch, match="not a detector"):
        load_detector(str(tmp_path / "other.onnx"))
