from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from facestream.engines.checked import checked
from facestream.pipeline.config import CoverConfig
from facestream.pipeline.errors import BadInput
from facestream.pipeline.images import register_heif
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.types import Box, BoxState, Frame, TrackedFrame
from facestream.pipeline.video.picture import PLANAR
from facestream.pipeline.video.planes import planes
from PIL import Image


def noise(name: str = "yuv420p", width: int = 160, height: int = 120) -> av.VideoFrame:
    """Random values in every plane, so that anything left of them can be found."""
    made = av.VideoFrame(width, height, name)
    rng = np.random.default_rng(0)
    top = 1 << min(10, made.format.components[0].bits)
    for plane in planes(made):
        plane.pixels[...] = rng.integers(0, top, plane.pixels.shape)
    return made


def cover(
    picture: av.VideoFrame, *xyxy: tuple[float, float, float, float], rotation: int = 0, **config: object
) -> list[np.ndarray]:
    boxes = tuple(Box(i + 1, box, 0.9, BoxState.OBSERVED) for i, box in enumerate(xyxy))
    frame = Frame(0, 5, Fraction(1, 30), picture, rotation)
    done = Anonymizer(checked({"scale": 1.0, **config}, CoverConfig)).cover(TrackedFrame(frame, boxes))
    assert (done.picture.pts, done.picture.time_base) == (5, Fraction(1, 30))
    return [plane.pixels.copy() for plane in planes(done.picture)]


@pytest.mark.parametrize("name", sorted(PLANAR))
@pytest.mark.parametrize("hide", ["solid", "pixelate", "blur"])
def test_the_box_is_covered_on_every_plane_and_nothing_else(name: str, hide: str) -> None:
    before = [plane.pixels.copy() for plane in planes(noise(name))]
    after = cover(noise(name), (40, 30, 104, 94), hide=hide, shape="box")
    for plane, old, new in zip(planes(noise(name)), before, after, strict=True):
        inside = np.s_[30 // plane.down : 94 // plane.down, 40 // plane.across : 104 // plane.across]
        assert (old[inside] != new[inside]).mean() > 0.95
        old[inside] = new[inside] = 0
        assert (old == new).all()


def test_solid_leaves_one_value() -> None:
    for plane, step in zip(cover(noise(), (40, 30, 104, 94), hide="solid", shape="box"), (1, 2, 2), strict=True):
        assert (plane[30 // step : 94 // step, 40 // step : 104 // step] == 128).all()


def test_an_ellipse_covers_the_middle_and_leaves_the_corners() -> None:
    (y, *_), old = cover(noise(), (40, 30, 104, 94), hide="solid"), planes(noise())[0].pixels
    yy, xx = np.mgrid[:120, :160] + 0.5
    inside = ((xx - 72) / 32) ** 2 + ((yy - 62) / 32) ** 2 <= 1
    assert (y[inside] == 128).all()
    assert (y[~inside] == old[~inside]).all()


def test_scale_grows_the_whole_box() -> None:
    y, *_ = cover(noise(), (60, 40, 80, 60), hide="solid", shape="box", scale=1.5)
    assert (y[35:65, 55:85] == 128).all()
    assert (y[35:65, 86:] != 128).mean() > 0.9
    assert (y[35:65, :54] != 128).mean() > 0.9


@pytest.mark.parametrize("side", [16, 40, 100])
def test_pixelate_leaves_at_most_eight_values_across_a_face(side: int) -> None:
    y, *_ = cover(noise(), (10, 10, 10 + side, 10 + side), hide="pixelate", shape="box", cells=8)
    row = y[10 + side // 2, 10 : 10 + side]
    changes = int((np.diff(row.astype(int)) != 0).sum())
    assert changes <= 8  # a grid fixed to the picture cuts a box at most once more than its cells


def test_pixelate_squares_stay_in_place_when_the_face_moves() -> None:
    """Else the frames of a video sample the face at many offsets, from which it can be computed."""
    first, *_ = cover(noise(), (40, 30, 104, 94), hide="pixelate", shape="box")
    second, *_ = cover(noise(), (43, 31, 107, 95), hide="pixelate", shape="box")
    assert (first[40:80, 56:96] == second[40:80, 56:96]).all()


@pytest.mark.parametrize("box", [(-50, -50, 20, 20), (150, 110, 400, 300), (-10, -10, 170, 130), (159, 119, 160, 120)])
def test_boxes_across_the_border_are_cut_there(box: tuple[float, float, float, float]) -> None:
    y, *_ = cover(noise(), box, hide="solid", shape="box")
    x0, y0, x1, y1 = (int(v) for v in np.clip(box, 0, (160, 120, 160, 120)))
    assert (y[y0:y1, x0:x1] == 128).all()


@pytest.mark.parametrize("box", [(-50, -50, -10, -10), (300, 10, 320, 30), (50, 50, 50, 50)])
def test_boxes_outside_or_empty_change_next_to_nothing(box: tuple[float, float, float, float]) -> None:
    old, (new, *_) = planes(noise())[0].pixels, cover(noise(), box, hide="solid")
    assert (old != new).sum() <= 4


@pytest.mark.parametrize("size", [(161, 121), (33, 47)])
@pytest.mark.parametrize("hide", ["solid", "pixelate", "blur"])
def test_odd_pictures_are_covered_to_their_last_column(size: tuple[int, int], hide: str) -> None:
    width, height = size
    before = [p.pixels.copy() for p in planes(noise("yuv420p", *size))]
    after = cover(noise("yuv420p", *size), (width - 20, height - 20, width, height), hide=hide, shape="box")
    for old, new, step in zip(before, after, (1, 2, 2), strict=True):
        assert (old[-18 // step :, -18 // step :] != new[-18 // step :, -18 // step :]).mean() > 0.9


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_pictures_are_covered_where_the_face_is_shown(rotation: int) -> None:
    y, *_ = cover(noise(), (10, 20, 50, 60), rotation=rotation, hide="solid", shape="box")
    assert (np.rot90(y, rotation // 90)[20:60, 10:50] == 128).all()
    assert (y == 128).sum() < 40 * 40 + 500


@pytest.mark.parametrize("name", ["white.png", "white.heic", "white.avif"])
def test_an_image_is_laid_over_the_face(tmp_path: Path, name: str) -> None:
    register_heif()
    Image.new("RGB", (64, 64), (255, 255, 255)).save(tmp_path / name)
    y, *_ = cover(noise(), (40, 30, 104, 94), hide=f"image:{tmp_path / name}", shape="box")
    assert (y[30:94, 40:104] >= 234).all()


def test_an_image_that_is_missing_or_broken_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "junk.png").write_bytes(b"junk")
    for name, reason in (("none.png", "does not exist"), ("junk.png", "cannot be read")):
        with pytest.raises(BadInput, match=reason):
            Anonymizer(CoverConfig(hide=f"image:{tmp_path / name}"))


def test_pictures_that_the_decoder_still_needs_are_not_written_to() -> None:
    """As the decoder does, hold a second reference to the same planes."""
    raw = noise()
    held = av.VideoFrame.from_ndarray(raw.to_ndarray(), format="yuv420p")
    before = held.to_ndarray().copy()
    cover(raw, (40, 30, 104, 94), hide="solid")
    assert (held.to_ndarray() == before).all()
    assert (raw.to_ndarray() != before).any()
