from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from facestream.pipeline.config import read
from facestream.pipeline.errors import BadInput
from facestream.pipeline.evaluate.leaks import read_truth
from facestream.pipeline.evaluate.pixels import measure
from facestream.pipeline.jobs.replay import RecordReplay
from facestream.pipeline.records import Face, Record
from facestream.pipeline.run import Job, run_stages

from tests.conftest import render
from tests.pack import DEMO, TRUTH, demo_truth

FRAMES = 148


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo clip covered from its truth: solid, blurred, not at all, and without one face for ten frames."""
    folder = tmp_path_factory.mktemp("covered")
    made = {}
    for name, hide in (("solid", "solid"), ("blur", "blur"), ("none", "solid"), ("gap", "solid")):
        rows = {i: Record(frame=i) for i in range(FRAMES)}
        for i, boxes in demo_truth().items():
            faces = [Face(id=n, xyxy=tuple(b)) for n, b in enumerate(boxes)]
            if name == "gap" and 60 <= i < 70:
                faces = faces[1:]
            rows[i] = Record(frame=i, faces=() if name == "none" else tuple(faces))
        config = read(None, {"cover.hide": hide, "cover.scale": 1.2, "encode.preset": "superfast", "encode.crf": 26})
        made[name] = folder / f"{name}.mp4"
        run_stages(Job(str(DEMO), made[name]), config, RecordReplay(rows, Path("truth")), None, False)
    return made


@pytest.mark.parametrize("name", ["solid", "blur"])
def test_a_covered_video_leaks_nothing(outputs: dict[str, Path], name: str) -> None:
    result = measure(DEMO, outputs[name], read_truth(TRUTH)).result()
    assert result.face_frames == 367
    assert result.leak_rate < 0.02
    assert result.overblur < 1


def test_a_video_that_was_only_encoded_leaks_everything(outputs: dict[str, Path]) -> None:
    result = measure(DEMO, outputs["none"], read_truth(TRUTH)).result()
    assert result.leak_rate_tau50 > 0.98
    assert result.overblur < 0.05


def test_a_face_that_was_left_out_for_ten_frames_is_found(outputs: dict[str, Path]) -> None:
    result = measure(DEMO, outputs["gap"], read_truth(TRUTH)).result()
    runs = [frames for frames in result.exposed.values() if len(frames) >= 8]
    assert len(runs) == 1
    assert set(runs[0]) >= set(range(60, 70))
    assert 10 <= result.longest_exposed_run <= 11


def test_videos_that_do_not_fit_are_refused(outputs: dict[str, Path], tmp_path: Path) -> None:
    small = render(tmp_path / "small.mp4", frames=5)
    with pytest.raises(BadInput, match="160x120"):
        measure(DEMO, small, {})
    short = render(tmp_path / "short.mp4", frames=4)
    with pytest.raises(BadInput, match="as many frames"):
        measure(small, short, {0: {1: np.array([1.0, 1, 20, 20])}})
