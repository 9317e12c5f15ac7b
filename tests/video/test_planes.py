from __future__ import annotations

import dataclasses
from fractions import Fraction

import av
import numpy as np
import pytest
from facestream.engines.letterbox import pad
from facestream.pipeline.types import Frame
from facestream.pipeline.video.picture import PLANAR, matrix_of, orientation_of
from facestream.pipeline.video.planes import (
    Viewer,
    luma_view,
    planes,
    rgb_view,
    to_stored,
    upright,
    upright_picture,
)


def picture(name: str, width: int = 128, height: int = 72) -> av.VideoFrame:
    """Red left half, blue right half, in any format."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, : width // 2] = (200, 30, 30)
    rgb[:, width // 2 :] = (30, 30, 200)
    return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=name)


def frame(name: str, rotation: int = 0, width: int = 128, height: int = 72) -> Frame:
    return Frame(0, 0, Fraction(1, 30), picture(name, width, height), rotation)


@pytest.mark.parametrize("name", sorted(PLANAR))
def test_views_write_into_the_picture(name: str) -> None:
    made = picture(name)
    for plane in planes(made):
        assert plane.pixels.shape[:2] == (72 // plane.down, 128 // plane.across)
        plane.pixels[10:20, 10:20] = 7
    again = planes(made)
    assert all((plane.pixels[10:20, 10:20] == 7).all() for plane in again)
    assert not any((plane.pixels[30:] == 7).all() for plane in again)


@pytest.mark.parametrize("name", sorted(PLANAR - {"gray"}))
def test_the_detector_sees_the_colours_in_rgb_order(name: str) -> None:
    view = rgb_view(frame(name), (64, 64))
    assert view.rgb.shape == (36, 64, 3)
    assert (view.width, view.height) == (128, 72)
    left, right = view.rgb[18, 16].astype(int), view.rgb[18, 48].astype(int)
    assert np.abs(left - (200, 30, 30)).max() < 30
    assert np.abs(right - (30, 30, 200)).max() < 30


def test_gray_is_seen_as_gray() -> None:
    view = rgb_view(frame("gray"), (64, 64))
    assert (view.rgb[..., 0] == view.rgb[..., 1]).all()


@pytest.mark.parametrize("size", [(127, 71), (31, 33), (2, 2)])
def test_odd_and_tiny_pictures_can_be_seen(size: tuple[int, int]) -> None:
    view = rgb_view(frame("yuv420p", 0, *size), (960, 544))
    assert view.rgb.shape[2] == 3
    assert (view.width, view.height) == size


@pytest.mark.parametrize(("rotation", "red_at"), [(90, (60, 16)), (180, (18, 48)), (270, (4, 16))])
def test_rotated_pictures_are_seen_upright(rotation: int, red_at: tuple[int, int]) -> None:
    """The red left half is at the bottom after 90 degrees counter-clockwise, and so on."""
    view = rgb_view(frame("yuv420p", rotation), (64, 64))
    assert (view.width, view.height) == ((128, 72) if rotation == 180 else (72, 128))
    y, x = red_at
    assert view.rgb[y, x, 0] > 150
    assert view.rgb[y, x, 2] < 80


def test_views_made_in_the_same_memory_are_those_made_anew() -> None:
    viewer = Viewer()
    for size in ((128, 72), (200, 120), (128, 72), (97, 55)):
        for name in ("yuv420p", "gray", "nv12", "yuv444p10le"):
            for shown in (frame(name, 0, *size), frame(name, 180, *size)):
                view, anew = viewer.view(shown, (96, 96)), rgb_view(shown, (96, 96))
                assert (view.rgb == anew.rgb).all()
                assert view.padded is None or (view.padded == pad(anew.rgb)).all()
    assert viewer.view(frame("yuv420p"), (64, 64)).padded is viewer.view(frame("yuv420p"), (64, 64)).padded is not None


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_displayed_boxes_find_their_stored_pixels(rotation: int, mirrored: bool) -> None:
    stored = np.zeros((72, 128), np.uint8)
    stored[10:20, 100:120] = 255
    frame = Frame(0, 0, Fraction(1, 30), av.VideoFrame(128, 72, "gray"), rotation, mirrored=mirrored)
    shown = upright(stored, frame)
    assert shown.shape == frame.size[::-1]
    y, x = np.nonzero(shown)
    box = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], np.float32)
    assert to_stored(box, frame).tolist() == [[100, 10, 120, 20]]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_display_matrix_and_its_orientation(rotation: int, mirrored: bool) -> None:
    """Where the matrix takes the stored corners is where `upright` takes them."""
    matrix = matrix_of(rotation, mirrored)
    assert orientation_of(matrix) == (rotation, mirrored)
    if matrix is None:
        return
    a, b, c, d = (matrix[i] / 65536 for i in (0, 1, 3, 4))
    stored = np.arange(12).reshape(3, 4)
    y, x = np.mgrid[:3, :4]
    to_x, to_y = (a * x + c * y).astype(int), (b * x + d * y).astype(int)
    shown = np.zeros((np.ptp(to_y) + 1, np.ptp(to_x) + 1), int)
    shown[to_y - to_y.min(), to_x - to_x.min()] = stored
    frame = Frame(0, 0, Fraction(1, 30), av.VideoFrame(4, 3, "gray"), rotation, mirrored=mirrored)
    assert (upright(stored, frame) == shown).all()


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p", "yuv444p10le", "nv12", "gbrp"])
def test_pictures_turned_for_containers_that_know_no_orientation(name: str) -> None:
    for rotation in (0, 90, 180, 270):
        for mirrored in (False, True):
            shown = dataclasses.replace(frame(name, rotation), mirrored=mirrored)
            turned = upright_picture(shown.picture, shown)
            plain = Frame(0, 0, Fraction(1, 30), turned)
            ours, as_seen = rgb_view(plain, (64, 64)).rgb, rgb_view(shown, (64, 64)).rgb
            assert plain.size == shown.size
            assert np.abs(ours.astype(int) - as_seen).mean() < 6


@pytest.mark.parametrize("aspect", [2.0, 0.5, 1.0])
def test_the_view_has_square_pixels(aspect: float) -> None:
    shown = dataclasses.replace(frame("yuv420p"), pixel_aspect=aspect)
    view = rgb_view(shown, (64, 64))
    assert (view.width, view.height) == (128, 72)
    height, width = view.rgb.shape[:2]
    assert abs(width / height - 128 * aspect / 72) < 0.12


def test_hdr_is_seen_as_bright_as_sdr() -> None:
    """A face of about 100 cd/m2 on a display whose white has 203."""
    for curve, code in ((16, 0.508), (18, 0.63)):
        values = np.full((64, 64), round(code * 876 + 64), np.uint16)
        picture = av.VideoFrame.from_ndarray(np.concatenate([values, np.full((32, 64), 512, np.uint16)]), "yuv420p10le")
        before = rgb_view(Frame(0, 0, Fraction(1, 30), picture), (64, 64)).rgb.mean()
        picture.color_trc = curve
        shown = Frame(0, 0, Fraction(1, 30), picture)
        after = rgb_view(shown, (64, 64)).rgb.mean()
        assert 150 < after < 200
        assert curve == 18 or before < 145
        assert luma_view(shown, 64)[0].mean() > 145


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_the_luma_view_is_small_upright_and_a_copy(rotation: int) -> None:
    rgb = np.zeros((120, 320, 3), np.uint8)
    rgb[20:60, 40:80] = 255
    picture = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
    luma, scale = luma_view(Frame(0, 0, Fraction(1, 30), picture, rotation), 160)
    assert max(luma.shape) == 160
    assert scale == 0.5
    shown = np.rot90(rgb[..., 0], rotation // 90)
    assert np.abs(luma.astype(int) - np.where(shown[::2, ::2], 235, 16)).mean() < 3
    planes(picture)[0].pixels[:] = 77
    assert (luma != 77).all()


def test_the_luma_view_of_deep_and_rgb_pictures() -> None:
    rgb = np.full((32, 48, 3), 200, np.uint8)
    for name in ("yuv420p10le", "gbrp", "gray"):
        picture = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=name)
        luma, scale = luma_view(Frame(0, 0, Fraction(1, 30), picture), 640)
        assert (luma.dtype, luma.shape, scale) == (np.uint8, (32, 48), 1.0)
        assert 150 < luma.mean() < 220
