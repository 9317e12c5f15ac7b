from __future__ import annotations

import pytest

pytest.importorskip("onnx", reason="cleaning the baselines' graphs needs the train extra")

from facestream.benchmarks.baselines import KINDS, load_baseline, weights
from facestream.engines.boxes import iou_xyxy
from facestream.engines.errors import BadConfig, BadInput
from facestream.engines.letterbox import view
from facestream.engines.options import DetectorOptions

from tests.pack import demo_frames, demo_truth


@pytest.mark.parametrize("name", sorted(KINDS))
@pytest.mark.parametrize("size", [(640, 384), (960, 544)])
def test_a_baseline_finds_the_faces_of_the_demo_at_any_size(name: str, size: tuple[int, int]) -> None:
    try:
        weights(name)
    except BadInput as e:
        pytest.skip(str(e))
    detector = load_baseline(name, DetectorOptions(threshold=0.5))
    (rgb,) = demo_frames([100])
    found = detector.detect([view(rgb, size)])[0]
    assert len(found) == len(demo_truth()[100])
    assert (iou_xyxy(demo_truth()[100], found.xyxy).max(1) > 0.5).all()


def test_an_unknown_baseline_lists_the_known() -> None:
    with pytest.raises(BadConfig, match="yunet"):
        load_baseline("mtcnn", DetectorOptions())
