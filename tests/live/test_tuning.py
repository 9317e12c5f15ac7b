"""Settings that can be changed during a run: by default only towards covering more."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from facestream.engines.base import Detector
from facestream.engines.letterbox import ImageView
from facestream.engines.options import DetectorOptions
from facestream.pipeline.config import Config, read
from facestream.pipeline.errors import BadConfig, BadInput
from facestream.pipeline.live.batching_detector import BatchingDetector, DetectorClient, Request
from facestream.pipeline.live.tuning import Mode, Tuner
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.stages.overlay import Drawer


def config(**flags: Any) -> Config:
    flags = {"cover__hide": "pixelate"} | flags
    return read(None, {key.replace("__", "."): value for key, value in flags.items()})


def test_more_may_be_covered_and_the_start_come_back() -> None:
    tuner = Tuner(config())
    tuner.change({"hide": "solid", "scale": 2, "threshold": 0.1, "mode": "boxes"})
    assert (tuner.now.hide, tuner.now.scale, tuner.now.threshold, tuner.now.mode) == ("solid", 2.0, 0.1, Mode.BOXES)
    assert isinstance(tuner.coverer, Anonymizer)
    assert (tuner.coverer.config.hide, tuner.coverer.config.scale) == ("solid", 2.0)
    assert tuner.boxes
    tuner.change({"hide": "pixelate", "scale": 1.4, "threshold": 0.2, "mode": "cover"})
    assert tuner.now == tuner.start


@pytest.mark.parametrize(
    "patch",
    [
        {"hide": "blur"}, {"scale": 1.39}, {"threshold": 0.26}, {"mode": "bare"}, {"mode": None}, {"mode": ["cover"]},
        {"hide": "image:/etc/passwd"}, {"hide": 3}, {"hide": "none"}, {"scale": 6}, {"scale": "wide"}, {"scale": None},
        {"scale": float("nan")}, {"threshold": 0}, {"threshold": -1}, {"allow": [[0, 0, 1, 1]]}, {"scale": 2, "x": 1},
    ],
)  # fmt: skip
def test_less_may_not(patch: dict[str, Any]) -> None:
    tuner = Tuner(config())
    before = tuner.coverer
    with pytest.raises(BadConfig, match=next(iter(set(patch) - {"scale"}), "scale")):
        tuner.change(patch)
    assert tuner.now == tuner.start
    assert tuner.coverer is before


def test_the_configuration_may_permit_less_or_nothing() -> None:
    free = Tuner(config(run__change="any"))
    free.change({"hide": "blur", "scale": 1, "threshold": 0.9})
    assert (free.now.hide, free.now.scale, free.now.threshold) == ("blur", 1.0, 0.9)
    for patch in ({"mode": "bare"}, {"hide": "image:/etc/passwd"}):
        with pytest.raises(BadConfig):
            free.change(patch)
    fixed = Tuner(config(run__change="no"))
    for patch in ({"mode": "boxes"}, {"hide": "solid"}, {"scale": 2}, {"threshold": 0.1}):
        with pytest.raises(BadConfig, match="the run allows"):
            fixed.change(patch)


def test_bare_faces_only_where_the_run_was_started_so() -> None:
    tuner = Tuner(config(), drawn=True, bare=True)
    assert tuner.now.mode is Mode.BARE
    assert isinstance(tuner.coverer, Drawer)
    assert not tuner.boxes  # all outputs have them already
    tuner.change({"mode": "cover"})
    assert isinstance(tuner.coverer, Anonymizer)
    drawn = Tuner(config(), drawn=True)
    with pytest.raises(BadConfig):
        drawn.change({"mode": "bare"})


def test_a_detector_with_a_threshold_of_its_own_keeps_it() -> None:
    tuner = Tuner(config(run__change="any"), adjustable=False)
    with pytest.raises(BadConfig):
        tuner.change({"threshold": 0.1})
    tuner.change({"threshold": 0.6})
    assert tuner.choices["threshold"][0] == 0.2


def test_an_image_hides_as_much_as_solid(tmp_path: Any) -> None:
    path = tmp_path / "stamp.png"
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    tuner = Tuner(config(cover__hide=f"image:{path}"))
    assert tuner.choices["hide"] == ["image", "solid"]
    assert str(tmp_path) not in str(tuner.values)
    tuner.change({"hide": "solid"})
    tuner.change({"hide": "image"})
    assert tuner.now == tuner.start
    tuner.change({"hide": "solid"})
    path.unlink()
    with pytest.raises(BadInput, match="does not exist"):
        tuner.change({"hide": "image"})
    assert tuner.now.hide == "solid"
    other = tmp_path / "other.png"
    cv2.imwrite(str(other), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(BadConfig):
        tuner.change({"hide": f"image:{other}"})


class Scores(Detector):
    """Finds the same overlapping boxes with scores from 0.9 down to 0.05 in every picture."""

    def infer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chance = np.random.default_rng(4)
        corner = chance.uniform(0, 400, (40, 2))
        xyxy = np.concatenate([corner, corner + chance.uniform(20, 40, (40, 2))], 1).astype(np.float32)
        scores = np.linspace(0.9, 0.05, 40, dtype=np.float32)
        return np.repeat(xyxy[None], len(images), 0), np.repeat(scores[None], len(images), 0)


def test_cameras_with_different_thresholds_share_a_detector() -> None:
    view = ImageView(np.zeros((448, 448, 3), np.uint8), 448, 448)
    shared_detector = BatchingDetector(Scores(DetectorOptions(0.3)), batch=4)
    requests = [Request(view, threshold) for threshold in (0.1, 0.6, 0.3)]
    shared_detector._finish(shared_detector._begin(requests))
    for request in requests:
        found = request.found
        assert found is not None
        alone = Scores(DetectorOptions(request.threshold)).detect([view])[0]
        assert found.scores.tolist() == alone.scores.tolist()
        assert found.xyxy.tolist() == alone.xyxy.tolist()
    shared_detector.start()
    asked = DetectorClient(shared_detector, 5.0)
    assert min(asked.detect([view])[0].scores) >= 0.3
    asked.threshold = 0.06
    assert min(asked.detect([view])[0].scores) < 0.1
    assert (
        min(DetectorClient(shared_detector, 5.0).detect([view])[0].scores) >= 0.3
    )  # the run's own, whatever others ask
    shared_detector.stop()
    assert shared_detector.join(5)
