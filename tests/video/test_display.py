"""What the detector sees is what a player shows: orientation, pixel aspect, HDR.

Each variant of a clip, stored otherwise and shown the same, leaks no more than the plain one; in its output the covers
lie where the faces are shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from facestream.engines.base import Detector
from facestream.engines.boxes import Array
from facestream.engines.loader import load_detector
from facestream.pipeline.cli.app import main
from facestream.pipeline.config import read
from facestream.pipeline.evaluate.leaks import LeakMeter, read_truth
from facestream.pipeline.run import Job, run
from facestream.pipeline.types import Frame
from facestream.pipeline.video.picture import matrix_of
from facestream.pipeline.video.planes import rgb_view
from facestream.pipeline.video.source import open_source

CLIPS = Path(os.environ.get("FACESTREAM_DATA", "../shared/data")) / "clips"
FRAMES, SIZE = 24, (960, 540)
ORIENTATIONS = [(rotation, mirrored) for rotation in (0, 90, 180, 270) for mirrored in (False, True)]


def pictures() -> list[Array]:
    """The first pictures of the street clip, RGB, at half its size."""
    if not (CLIPS / "street.mp4").exists():
        pytest.skip(f"{CLIPS}/street.mp4 is not there: set FACESTREAM_DATA")
    with av.open(str(CLIPS / "street.mp4")) as file:
        frames = (frame for frame, _ in zip(file.decode(video=0), range(FRAMES), strict=False))
        return [cv2.resize(frame.to_ndarray(format="rgb24"), SIZE, interpolation=cv2.INTER_AREA) for frame in frames]


def write(
    path: Path, shown: list[Array], matrix: tuple[int, ...] | None = None, aspect: Fraction | None = None, trc: int = 0
) -> Path:
    """A clip of RGB pictures: uint8, or uint16 for 10 bits."""
    deep = shown[0].dtype == np.uint16
    with av.open(str(path), "w") as out:
        options = {"x265-params": "log-level=none", "crf": "12"} if deep else {}
        film = out.add_stream("libx265" if deep else "libx264", rate=30, options={"preset": "ultrafast", **options})
        assert isinstance(film, av.VideoStream)
        film.height, film.width = shown[0].shape[:2]
        film.pix_fmt = "yuv420p10le" if deep else "yuv420p"
        if trc:
            film.codec_context.color_trc = trc
        if matrix is not None:
            film.set_display_matrix(matrix)
        if aspect is not None:
            film.codec_context.sample_aspect_ratio = aspect
        for picture in shown:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb48le" if deep else "rgb24")
            frame = frame.reformat(format=film.pix_fmt)
            frame.color_trc = trc or 1
            out.mux(film.encode(frame))
        out.mux(film.encode(None))
    return path


def stored(shown: Array, rotation: int, mirrored: bool) -> Array:
    """What is to be stored so that a player, which mirrors and then turns, shows this."""
    turned = np.rot90(shown, -rotation // 90)
    return turned[:, ::-1] if mirrored else turned


def as_hdr(shown: Array, trc: int) -> Array:
    """SDR code values as PQ (16) or HLG (18) ones, white at 203 cd/m2."""
    light = (shown / 255.0) ** 2.2 * 203
    if trc == 16:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = (light / 10000) ** m1
        code = ((c1 + c2 * power) / (1 + c3 * power)) ** m2
    else:
        scene = 12 * (light / 1000) ** (1 / 1.2)
        code = np.where(
            scene <= 1, np.sqrt(scene) / 2, 0.17883277 * np.log(np.maximum(scene - 0.28466892, 1e-6)) + 0.55991073
        )
    return (code * 65535).round().astype(np.uint16)


def leaked(path: Path, detector: Detector, across: float, down: float) -> int:
    truth = {
        index: {track: box * np.array([across, down] * 2) for track, box in faces.items()}
        for index, faces in read_truth(CLIPS / "street.truth.txt").items()
        if index < FRAMES
    }
    config = read(None)
    meter = LeakMeter(truth, config.cover)
    run(Job(str(path), None), config, detector, meter, False)
    return int(meter.result().leaked)


HALF = SIZE[0] / 1920


def as_plain(path: Path) -> tuple[Path, float, float]:
    return write(path, pictures()), HALF, HALF


def as_turned(path: Path, rotation: int, mirrored: bool) -> tuple[Path, float, float]:
    clip = [stored(picture, rotation, mirrored) for picture in pictures()]
    return write(path, clip, matrix_of(rotation, mirrored)), HALF, HALF


def as_stretched(path: Path, aspect: Fraction) -> tuple[Path, float, float]:
    across, down = min(1.0, float(1 / aspect)), min(1.0, float(aspect))
    size = round(SIZE[0] * across / 2) * 2, round(SIZE[1] * down / 2) * 2
    clip = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures()]
    return write(path, clip, aspect=aspect), HALF * across, HALF * down


def as_bright(path: Path, trc: int) -> tuple[Path, float, float]:
    return write(path, [as_hdr(picture, trc) for picture in pictures()], trc=trc), HALF, HALF


# A clip and the scale of its stored pixels to those of the truth, across and down.
WAYS: dict[str, Callable[[Path], tuple[Path, float, float]]] = {"plain": as_plain}
WAYS |= {f"{turn} {mirror}": partial(as_turned, rotation=turn, mirrored=mirror) for turn, mirror in ORIENTATIONS}
WAYS |= {
    f"aspect {aspect}": partial(as_stretched, aspect=aspect) for aspect in (Fraction(2), Fraction(1, 2), Fraction(4, 3))
}
WAYS |= {"PQ": partial(as_bright, trc=16), "HLG": partial(as_bright, trc=18)}


@pytest.fixture(scope="module")
def leaks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], int]:
    """Face-frames that stay open in the street clip, stored in one of these ways."""
    config = read(None)
    detector = load_detector(config.detector.model, config.detector.options())

    @cache
    def measure(way: str) -> int:
        path, across, down = WAYS[way](tmp_path_factory.mktemp("way") / "clip.mp4")
        return leaked(path, detector, across, down)

    return measure


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("way", [way for way in WAYS if way != "plain"])
def test_all_ways_to_store_a_picture_leak_as_the_plain_one(leaks: Callable[[str], int], way: str) -> None:
    """One more or less of some hundred may come of another rounding; what is seen wrongly leaks many."""
    assert leaks(way) <= leaks("plain") + 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".flv", ".gif"])
@pytest.mark.parametrize(("rotation", "mirrored"), ORIENTATIONS)
def test_boxes_lie_where_a_player_shows_them(tmp_path: Path, rotation: int, mirrored: bool, suffix: str) -> None:
    """A box drawn by hand on the displayed picture covers that place in what a player shows of the output."""
    shown = np.full((96, 160, 3), 60, np.uint8)
    shown[16:48, 96:128] = (250, 250, 250)
    path = write(tmp_path / "in.mp4", [stored(shown, rotation, mirrored)] * 3, matrix_of(rotation, mirrored))
    face = '{"frame": %d, "faces": [{"id": 1, "xyxy": [92, 12, 132, 52]}]}\n'
    (tmp_path / "boxes.jsonl").write_text("".join(face % index for index in range(3)))
    out = tmp_path / f"out{suffix}"
    words = [path, tmp_path / "boxes.jsonl", "-o", out, "--hide", "solid", "--shape", "box"]
    assert main(["apply", *map(str, words)]) == 0
    source = open_source(out)
    try:
        source.open()
        frame = next(item for item in source.items() if isinstance(item, Frame))
        view = rgb_view(frame, (160, 160)).rgb
    finally:
        source.close()
    assert view.shape == (96, 160, 3)
    assert view.max() < 200  # the white square is gone
    assert 100 < view[20:44, 100:124].mean() < 160  # and grey, of `solid`
    assert view[60:90, 10:150].mean() < 80


@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(1, 2), Fraction(4, 3)])
def test_a_files_pixel_aspect_reaches_the_detectors_view(tmp_path: Path, aspect: Fraction) -> None:
    path = write(tmp_path / "in.mp4", [np.zeros((96, 192, 3), np.uint8)] * 2, aspect=aspect)
    source = open_source(path)
    try:
        source.open()
        frame = next(item for item in source.items() if isinstance(item, Frame))
        height, width = rgb_view(frame, (160, 160)).rgb.shape[:2]
    finally:
        source.close()
    assert frame.size == (192, 96), "boxes stay in the source's pixels"
    assert abs(width / height / (2 * float(aspect)) - 1) < 0.05
