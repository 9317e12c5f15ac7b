"""Pictures so large or so wide that one view would shrink their small faces out of sight."""

from __future__ import annotations

import itertools
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from facestream.engines.base import Detector
from facestream.engines.letterbox import fit
from facestream.engines.loader import load_detector
from facestream.engines.types import Detections
from facestream.pipeline.cli.app import main
from facestream.pipeline.config import read
from facestream.pipeline.evaluate.leaks import read_truth
from facestream.pipeline.run import Job, run
from facestream.pipeline.types import Frame, TrackedFrame
from facestream.pipeline.video.tiles import Tiling, detection_scale, tiling_of
from PIL import Image

CLIPS = Path(os.environ.get("FACESTREAM_DATA", "../shared/data")) / "clips"
LIMIT = (960, 544)


class Shape:
    """A picture's size, without its pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height


def frame(width: int, height: int, aspect: float = 1.0) -> Frame:
    return Frame(0, 0, Fraction(1, 30), Shape(width, height), pixel_aspect=aspect)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(640, 360), (1920, 1080), (3840, 2160), (2160, 3840), (4096, 2160)][:4])
def test_up_to_4k_one_view_is_enough(size: tuple[int, int]) -> None:
    assert tiling_of(frame(*size), LIMIT, "auto") is None
    assert tiling_of(frame(11520, 1080), LIMIT, 1) is None


@pytest.mark.parametrize("size", [(11520, 1080), (1080, 11520), (12000, 9000), (5761, 2881), (30001, 1501)])
def test_a_face_of_24_pixels_keeps_8_and_lies_whole_in_a_tile(size: tuple[int, int]) -> None:
    shown = frame(*size)
    tiling = tiling_of(shown, LIMIT, "auto")
    assert tiling is not None
    assert 24 * detection_scale(shown, LIMIT, "auto") >= 7.9
    full = fit(*size, *LIMIT)[0] / size[0]
    face = 16 / full * 0.95  # larger ones are found in the full view
    rng = np.random.default_rng(0)
    for x, y in rng.uniform((0, 0), (size[0] - face, size[1] - face) if min(size) > face else (1, 1), (300, 2)):
        if min(size) <= face:
            break
        held = [r for r in tiling.regions if r[0] <= x and r[1] <= y and x + face <= r[2] and y + face <= r[3]]
        assert held, (x, y, face)
    for left, top, right, bottom in tiling.regions:
        assert left % 2 == top % 2 == 0
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
    assert max(region[2] for region in tiling.regions) == size[0]
    assert max(region[3] for region in tiling.regions) == size[1]


def test_tiles_by_number() -> None:
    tiling = tiling_of(frame(3840, 2160), LIMIT, 2)
    assert tiling is not None
    assert 4 <= len(tiling.regions) <= 9
    assert tiling.scale > 0.4


def test_what_a_tile_cuts_is_left_to_its_neighbour() -> None:
    tiling = Tiling(((0, 0, 100, 100), (60, 0, 160, 100)), (100, 100), 1.0)

    def found(*boxes: tuple[float, float, float, float]) -> Detections:
        return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, np.float32))

    parts = [found((0, 0, 20, 20), (80, 40, 100, 60)), found((20, 40, 50, 60), (80, 80, 100, 100))]
    merged = tiling.merge(found((0, 1, 20, 20)), parts, (160, 100), 0.3)
    assert sorted(merged.xyxy.tolist()) in (
        [[0, 0, 20, 20], [80, 40, 110, 60], [140, 80, 160, 100]],
        [[0, 1, 20, 20], [80, 40, 110, 60], [140, 80, 160, 100]],
    )


class Boxes:
    def __init__(self) -> None:
        self.found: list[tuple[float, ...]] = []

    def write(self, tracked: TrackedFrame, source: str) -> None:
        self.found += [box.xyxy for box in tracked.boxes]


@pytest.mark.data
def test_six_copies_of_a_street_side_by_side(tmp_path: Path) -> None:
    if not (CLIPS / "street.mp4").exists():
        pytest.skip(f"{CLIPS}/street.mp4 is not there: set FACESTREAM_DATA")
    with av.open(str(CLIPS / "street.mp4")) as file:
        street = next(itertools.islice(file.decode(video=0), 0, None)).to_ndarray(format="rgb24")
    Image.fromarray(np.concatenate([street] * 6, 1)).save(tmp_path / "wide.jpg", quality=92)
    config = read(None)
    detector: Detector = load_detector(config.detector.model, config.detector.options())
    boxes = Boxes()
    run(Job(str(tmp_path / "wide.jpg"), None), config, detector, boxes, False)
    centres = np.array([((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in boxes.found])
    for copy in range(6):
        for left, top, right, bottom in read_truth(CLIPS / "street.truth.txt")[0].values():
            inside = (centres > (left + 1920 * copy, top)) & (centres < (right + 1920 * copy, bottom))
            assert inside.all(1).any(), (copy, left, top)


def test_4k_says_which_faces_are_out_of_reach(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And with the option that it names, they are not."""
    Image.new("RGB", (3840, 2160), "grey").save(tmp_path / "in.bmp")
    words = ["anonymize", str(tmp_path / "in.bmp"), "-o", str(tmp_path / "out.png"), "--overwrite"]
    assert main(words) == 0
    assert "are out of reach at 3840x2160: detector.tiles = 2" in capfd.readouterr().err
    (tmp_path / "c.toml").write_text("[detector]\ntiles = 2\n")
    assert main([*words, "--config", str(tmp_path / "c.toml")]) == 0
    assert "out of reach" not in capfd.readouterr().err
