from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from facestream.pipeline.stages.analyse.analyser import Analyser, shows_nothing
from facestream.pipeline.types import Frame
from facestream.pipeline.video.planes import luma_view

SIZE = (160, 120)


def frame(index: int, scene: int = 0) -> Frame:
    rng = np.random.default_rng(scene)
    rgb = rng.integers(0, 40, (*SIZE[::-1], 3)) + (20 if scene % 2 else 180)
    picture = av.VideoFrame.from_ndarray(rgb.astype(np.uint8), format="rgb24").reformat(format="yuv420p")
    return Frame(index, index, Fraction(1, 30), picture)


def test_frames_come_back_at_once_where_scene_ends_do_not_matter() -> None:
    analyser = Analyser(camera_motion=False, knows_ends=False)
    out = [analyser.push(frame(i, scene=i // 3)) for i in range(6)]
    assert [a.frame.index for a in out if a is not None] == list(range(6))
    assert [a.cut for a in out if a is not None] == [False, False, False, True, False, False]
    assert not any(a.ends for a in out if a is not None)
    assert analyser.flush() is None


def test_a_frame_waits_for_the_next_one_where_scene_ends_matter() -> None:
    analyser = Analyser(camera_motion=False, knows_ends=True)
    out = [analyser.push(frame(i, scene=i // 3)) for i in range(6)]
    assert out[0] is None
    known = [a for a in [*out, analyser.flush()] if a is not None]
    assert [a.frame.index for a in known] == list(range(6))
    assert [a.ends for a in known] == [False, False, True, False, False, True]
    assert analyser.flush() is None


def test_it_says_whether_others_wait_already() -> None:
    analyser = Analyser(camera_motion=False, knows_ends=False)
    assert [analyser.push(frame(i), backlog=i == 1).backlog for i in range(3)] == [False, True, False]  # type: ignore[union-attr]


def test_there_is_no_camera_motion_over_a_cut() -> None:
    analyser = Analyser(camera_motion=True, knows_ends=False)
    rough = np.random.default_rng(5).integers(0, 255, (30, 60)).astype(np.uint8)
    wide = np.repeat(np.repeat(rough, 12, 0), 12, 1)
    out = []
    for i in range(6):
        luma = wide[:240, 8 * i : 8 * i + 320] if i < 4 else np.full((240, 320), 240, np.uint8)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(luma), format="gray").reformat(format="yuv420p")
        out.append(analyser.push(Frame(i, i, Fraction(1, 30), picture)))
    moved = [a.affine for a in out if a is not None]
    assert [m is not None and abs(m[0, 2] + 8) < 0.5 for m in moved[1:4]] == [True] * 3
    assert out[4] is not None
    assert out[4].cut
    assert moved[4] is None


@pytest.mark.parametrize(
    ("luma", "nothing"),
    [
        (np.full((120, 160), 16, np.uint8), True),
        (np.full((120, 160), 120, np.uint8), True),  # flat
        (np.random.default_rng(0).integers(0, 44, (120, 160)).astype(np.uint8), True),  # dark, with noise
        (np.random.default_rng(0).integers(60, 200, (120, 160)).astype(np.uint8), False),
    ],
)
def test_dark_and_flat_frames_show_nothing(luma: np.ndarray, nothing: bool) -> None:
    assert shows_nothing(luma) is nothing


def test_a_lamp_in_the_dark_shows_something() -> None:
    luma = np.full((120, 160), 16, np.uint8)
    luma[:40, :40] = 200
    assert not shows_nothing(luma)


@pytest.mark.parametrize("name", ["yuv420p", "nv12", "yuvj420p", "gray", "gbrp", "yuv420p10le"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("longest", [640, 160, 100])
def test_the_luma_is_never_the_pictures_own_memory(name: str, rotation: int, longest: int) -> None:
    """The covers are written into the picture while its luma is still compared with that of later frames."""
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 255, (*SIZE[::-1], 3)).astype(np.uint8)
    picture = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=name)
    luma, _ = luma_view(Frame(0, 0, Fraction(1, 30), picture, rotation), longest)
    for plane in picture.planes:
        assert not np.shares_memory(luma, np.frombuffer(plane, np.uint8))  # type: ignore[call-overload]
    before = luma.copy()
    for plane in picture.planes:
        plane.update(bytes(plane.buffer_size))
    assert (luma == before).all()
