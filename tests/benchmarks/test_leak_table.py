"""The leak table's cache of detections."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facestream.benchmarks.leak_table import Known, cache_of, overrides, seeds_of
from facestream.engines.base import Detector
from facestream.engines.letterbox import ImageView
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.pipeline.config import read
from facestream.pipeline.errors import BadInput
from facestream.pipeline.types import Frame
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.planes import Viewer
from facestream.pipeline.video.source import open_source

from tests.conftest import render


class Counts(Detector):
    """As many faces as the first pixel says; counts how often it is asked."""

    asked = 0

    def infer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("not asked")

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        self.asked += len(images)
        rows = np.arange(5 * int(images[0].rgb[0, 0, 0]), dtype=np.float32).reshape(-1, 5)
        return [Detections(rows[:, :4], rows[:, 4])]


def view(faces: int) -> ImageView:
    return ImageView(np.full((4, 4, 3), faces, np.uint8), 4, 4)


def test_what_was_found_is_found_again_without_a_look(tmp_path: Path) -> None:
    detector, cache = Counts(DetectorOptions()), tmp_path / "clip.npz"
    known = Known(detector, cache)
    first = [known.detect([view(n)])[0] for n in (2, 0, 3, 2)]
    known.save()
    again = Known(detector, cache)
    for n, found in zip((2, 0, 3, 2), first, strict=True):
        (same,) = again.detect([view(n)])
        assert np.array_equal(same.xyxy, found.xyxy)
        assert np.array_equal(same.scores, found.scores)
    assert detector.asked == 3
    again.detect([view(7)])
    assert detector.asked == 4
    assert list(tmp_path.iterdir()) == [cache]


class Three(Detector):
    """Finds three faces in any picture."""

    def infer(self, images: Any) -> Any:
        raise AssertionError("not asked")

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        return [Detections(np.ones((3, 4), np.float32), np.ones(3, np.float32))]


def test_a_share_is_lost_and_bursts_of_eight_frames_whichever_are_looked_at(tmp_path: Path) -> None:
    clip = render(tmp_path / "clip.mp4", frames=400, audio=())
    reader = open_source(str(clip), SourceOptions())
    reader.open()
    pictures = [Viewer().view(f, (160, 120)) for f in reader.items() if isinstance(f, Frame)]
    reader.close()
    known = Known(Three(DetectorOptions()))
    known.lose(clip, (160, 120), 0.2)
    left = [len(known.detect([picture])[0]) for picture in pictures]
    bursts = [len(list(run)) for empty, run in groupby(left, lambda n: n == 0) if empty]
    assert max(bursts) >= 8
    assert 0.5 < sum(left) / (3 * len(left)) < 0.82
    other = Known(Three(DetectorOptions()))
    other.lose(clip, (160, 120), 0.2)
    assert [len(other.detect([picture])[0]) for picture in pictures[::2]] == left[::2]


def test_the_cache_belongs_to_a_clip_a_model_a_size_and_a_threshold(tmp_path: Path) -> None:
    clips = [tmp_path / "a.mp4", tmp_path / "b" / "a.mp4"]
    clips[1].parent.mkdir()
    for n, clip in enumerate(clips):
        clip.write_bytes(bytes([n]))
    flags: list[dict[str, object]] = [
        {}, {"detector.size": (640, 384)}, {"detector.threshold": 0.3}, {"detector.model": "plainXS16"}
    ]  # fmt: skip
    files = {cache_of(clip, read(None, f), tmp_path / "cache") for clip in clips for f in flags}
    assert len(files) == 8
    assert cache_of(clips[0], read(None), tmp_path / "cache") in files
    assert cache_of(clips[0], read(None), None) is None


def test_a_cache_that_is_no_cache_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_text("nonsense")
    with pytest.raises(ValueError, match="pickle"):
        Known(Counts(DetectorOptions()), tmp_path / "x.npz")


def test_constants_and_settings_can_be_set_by_name() -> None:
    values = overrides(["policy.eager_frames=3", "tracker.coast_s=1.5", "detector.every=auto"])
    assert values == {"advanced.policy.eager_frames": 3, "tracker.coast_s": 1.5, "detector.every": "auto"}
    config = read(None, values)
    assert config.advanced.policy.eager_frames == 3
    assert config.tracker.coast_s == 1.5
    for text in ("policy.eager_frames", "eager_frames=3"):
        with pytest.raises(BadInput, match="--set"):
            overrides([text])


def test_each_table_says_which_seeds_its_clips_have(tmp_path: Path) -> None:
    assert seeds_of(tmp_path) == "seed unknown"
    (tmp_path / "clips.json").write_text(json.dumps([{"name": "a", "seed": 101, "set": "report"}, {"name": "b"}]))
    assert seeds_of(tmp_path) == "seed 101 (report)"
