from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from facestream.engines.base import Detector
from facestream.engines.boxes import F32, Array
from facestream.engines.errors import EngineMismatch
from facestream.engines.face_crops import SIDE
from facestream.engines.letterbox import ImageView, view
from facestream.engines.loader import WEIGHTS, load_detector, shipped
from facestream.engines.options import DetectorOptions
from facestream.engines.verified import BATCH, PROPOSALS, VERIFIER, VerifiedDetector, Verifier, shared_verifier
from facestream.pipeline.stages.crop_mosaic import mosaic_of


class Fixed(Detector):
    """Finds the same boxes in every picture."""

    def __init__(self, boxes: list[list[float]], scores: list[float], options: DetectorOptions) -> None:
        super().__init__(options)
        self.boxes = np.float32([boxes])
        self.scores = np.float32([scores])

    def infer(self, images: Array) -> tuple[F32, F32]:
        return self.boxes, self.scores


class Brightness(Verifier):
    """Says that what is bright in the middle is a face."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def scores(self, crops: Array, scores: F32) -> F32:
        assert crops.shape[1:] == (SIDE, SIDE, 3)
        self.seen += scores.tolist()
        return crops[:, SIDE // 2, SIDE // 2, 0].astype(np.float32) / 255


def spots() -> ImageView:
    """A picture of 400x200, shown at half its size, with a bright spot at 100, 100."""
    rgb = np.zeros((100, 200, 3), np.uint8)
    rgb[40:60, 40:60] = 204
    return ImageView(rgb, 400, 200)


BOXES = [[40, 40, 60, 60], [140, 40, 160, 60], [90, 40, 110, 60]]


def test_the_joint_score_decides_and_boxes_are_in_the_pictures_pixels() -> None:
    options = DetectorOptions(threshold=0.4)
    inner = Fixed(BOXES, [0.3, 0.9, 0.1], options)
    verifier = Brightness()
    (found,) = VerifiedDetector(inner, options, verifier).detect([spots()])
    assert found.xyxy.tolist() == [[80, 80, 120, 120]]
    assert found.scores == pytest.approx([0.8])
    assert sorted(verifier.seen) == pytest.approx([0.3, 0.9])  # half of the threshold and more


def test_a_changed_threshold_takes_effect_on_both() -> None:
    options = DetectorOptions(threshold=0.9)
    detector = VerifiedDetector(Fixed(BOXES, [0.3, 0.9, 0.1], options), options, Brightness())
    assert len(detector.detect([spots()])[0]) == 0
    detector.options = DetectorOptions(threshold=0.5)
    assert len(detector.detect([spots()])[0]) == 1
    assert detector.inner.options.threshold == 0.5 * PROPOSALS


def test_the_best_comes_first_by_the_joint_score() -> None:
    rgb = np.zeros((100, 200, 3), np.uint8)
    rgb[:, :100] = 51
    rgb[:, 100:] = 204
    options = DetectorOptions(threshold=0.1)
    detector = VerifiedDetector(Fixed(BOXES[:2], [0.9, 0.5], options), options, Brightness())
    (found,) = detector.detect([view(rgb)])
    assert found.scores == pytest.approx([0.8, 0.2])
    assert found.xyxy[0].tolist() == BOXES[1]


def test_nothing_found_is_nothing_to_verify() -> None:
    options = DetectorOptions()
    verifier = Brightness()
    (found,) = VerifiedDetector(Fixed(BOXES, [0.01, 0.02, 0.03], options), options, verifier).detect([spots()])
    assert len(found) == 0
    assert verifier.seen == []


def test_shipped_models_are_loaded_with_it_unless_it_is_not_wanted() -> None:
    for name in shipped():
        assert isinstance(load_detector(name), VerifiedDetector)
        assert not isinstance(load_detector(name, DetectorOptions(verify=False)), VerifiedDetector)
    assert "verifier" not in shipped()


def test_a_detector_that_takes_frames_as_stored_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from facestream.engines import loader

    class Stored(Fixed):
        takes_yuv = True

    stored = Stored(BOXES, [0.1, 0.2, 0.3], DetectorOptions())
    monkeypatch.setattr(loader, "load_unverified", lambda path, options: stored)
    assert load_detector("plainS") is stored


@pytest.mark.parametrize("count", [0, 1, BATCH, 2 * BATCH + 1])
def test_the_graph_scores_any_number_of_crops_each_by_itself(count: int) -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)
    scores = rng.random(count).astype(np.float32)
    verifier = Verifier()
    out = verifier.scores(crops, scores)
    assert out.shape == (count,)
    for i in range(0, count, 16):
        assert verifier.scores(crops[i : i + 1], scores[i : i + 1]) == pytest.approx(out[i], abs=1e-4)


def test_a_higher_score_of_the_detector_is_a_higher_joint_score() -> None:
    crops = np.full((9, SIDE, SIDE, 3), 90, np.uint8)
    out = Verifier().scores(crops, np.linspace(0, 1, 9, dtype=np.float32))
    assert (np.diff(out) >= 0).all()
    assert np.isfinite(out).all()
    assert out[0] < out[-1]


def test_it_says_what_it_is_made_of() -> None:
    about = ort.InferenceSession(str(VERIFIER)).get_modelmeta().custom_metadata_map["facestream"]
    assert set(json.loads(about)) >= {"fusion", "training", "fused on"}
    assert VERIFIER.stat().st_size < 2e6
    assert VERIFIER.with_suffix(".md").is_file()


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineMismatch, match="not a verifier"):
        Verifier(WEIGHTS / "plainXS16.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(EngineMismatch, match="cannot load"):
        Verifier(broken)


def test_all_detectors_of_a_process_share_one() -> None:
    assert shared_verifier() is shared_verifier()


def test_crops_of_a_mosaic_are_its_parts() -> None:
    mosaic = mosaic_of(np.float32([[100, 100, 140, 150], [400, 100, 440, 150]]), (640, 360), 1.0, 1e6)
    assert mosaic is not None
    from fractions import Fraction

    import av
    from facestream.pipeline.types import Frame

    shown = mosaic.view(Frame(0, 0, Fraction(1, 25), av.VideoFrame(640, 360, "yuv420p")))
    assert len(shown.parts) == 2
    for (crop, x, y), part in zip(mosaic.placed, shown.parts, strict=True):
        assert part == (x, y, x + crop.width, y + crop.height)
