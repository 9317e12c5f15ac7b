"""The committed demo clip is what its script renders, and its ground truth is correct."""

import importlib
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

TOOLS = Path(__file__).parents[2] / "tools"
CLIP, TRUTH = TOOLS / "demo.mp4", TOOLS / "demo.truth.txt"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    return importlib.import_module("facestream.benchmarks.make_demo_clip")


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """One row a face: frame, id, left, top, width, height, 1, -1, -1, visibility; float64."""
    return np.loadtxt(TRUTH, delimiter=",")


def decoded(index: int) -> np.ndarray:
    """Frame `index` (from 0) of the committed clip: uint8 RGB."""
    with av.open(str(CLIP)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == index:
                colours = {"src_colorspace": Colorspace.ITU709, "src_color_range": ColorRange.MPEG}
                return frame.reformat(format="rgb24", **colours).to_ndarray()
    raise AssertionError(f"the clip has no frame {index}")


def test_clip_format() -> None:
    data = CLIP.read_bytes()
    assert len(data) < 1_000_000
    assert data.index(b"moov") < data.index(b"mdat"), "the index comes first, so that a browser can start at once"
    with av.open(str(CLIP)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height, video.pix_fmt) == (1280, 720, "yuv420p")
        assert video.average_rate == 30
        assert audio.codec_context.layout.name == "mono"
        context = video.codec_context
        assert context.colorspace == context.color_primaries == context.color_trc == 1, "tagged BT.709"
        for stream in (video, audio):
            assert 4 <= stream.duration * stream.time_base <= 5


def test_sound_is_neither_silent_nor_clipped() -> None:
    with av.open(str(CLIP)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert 0.1 < np.abs(sound).max() < 0.9


def test_truth_is_within_the_clip(truth: np.ndarray) -> None:
    with av.open(str(CLIP)) as container:
        frames = container.streams.video[0].frames
    assert truth[:, 0].min() == 1
    assert truth[:, 0].max() == frames
    assert set(truth[:, 1]) == {1, 2, 3, 4, 5}
    assert len({(frame, person) for frame, person in truth[:, :2]}) == len(truth)
    assert (truth[:, 2:4] >= 0).all()
    assert (truth[:, 2] + truth[:, 4] <= 1280.01).all()
    assert (truth[:, 3] + truth[:, 5] <= 720.01).all()
    assert ((truth[:, 9] >= 0.5) & (truth[:, 9] <= 1)).all()


def test_truth_spans_the_sizes(truth: np.ndarray) -> None:
    heights = truth[:, 5]
    assert 28 <= heights.min() <= 32
    assert 250 <= heights.max() <= 280


def test_walkers_move_smoothly(truth: np.ndarray) -> None:
    for person in np.unique(truth[:, 1]):
        rows = truth[(truth[:, 1] == person) & (truth[:, 9] > 0.99)]
        next_frame = np.diff(rows[:, 0]) == 1
        centres = rows[:, 2:4] + rows[:, 4:6] / 2
        steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)[next_frame]
        assert len(steps) > 10
        assert steps.max() < 60


@pytest.mark.parametrize("index", [50, 68, 147])  # one walker behind another; the largest face; the last frame
def test_script_still_renders_the_clip(script: ModuleType, truth: np.ndarray, index: int) -> None:
    rendered, lines = script.render(index)
    difference = np.abs(rendered.astype(int) - decoded(index))
    assert difference.mean() < 3
    assert np.abs(rendered.astype(int) - decoded(index - 2)).mean() > 3 * difference.mean(), "frames are in step"
    expected = truth[truth[:, 0] == index + 1]
    assert np.array([line.split(",") for line in lines], float) == pytest.approx(expected, abs=0.05)
    for left, top, width, height in expected[:, 2:6].astype(int):
        assert difference[top : top + height, left : left + width].mean() < 6
