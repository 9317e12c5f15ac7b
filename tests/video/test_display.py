"""What the detector sees is what a player shows: orientation, pixel aspect, HDR.

Each variant of a clip, stored otherwise and shown the same, leaks no more than the plain one; in its output the covers
lie where the faces are shown.
"""

from __future__ import annotations

import os
from fractions import Fraction
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


@pytest.mark.data
@pytest.mark.slow
def test_all_ways_to_store_a_picture_leak_as_the_plain_one(tmp_path: Path) -> None:
    shown = pictures()
    config = read(None)
    detector = load_detector(config.detector.model, config.detector.options())
    half = SIZE[0] / 1920
    found = {"plain": leaked(write(tmp_path / "plain.mp4", shown), detector, half, half)}
    for rotation, mirrored in ORIENTATIONS:
        clip = [stored(picture, rotation, mirrored) for picture in shown]
        path = write(tmp_path / f"{rotation}{mirrored}.mp4", clip, matrix_of(rotation, mirrored))
        found[path.stem] = leaked(path, detector, half, half)
    for aspect in (Fraction(2), Fraction(1, 2), Fraction(4, 3)):
        across, down = min(1.0, float(1 / aspect)), min(1.0, float(aspect))
        size = round(SIZE[0] * across / 2) * 2, round(SIZE[1] * down / 2) * 2
        clip = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in shown]
        path = write(tmp_path / f"sar{aspect.numerator}_{aspect.denominator}.mp4", clip, aspect=aspect)
        found[path.stem] = leaked(path, detector, half * across, half * down)
    for name, trc in (("pq", 16), ("hlg", 18)):
        path = write(tmp_path / f"{name}.mp4", [as_hdr(picture, trc) for picture in shown], trc=trc)
        found[path.stem] = leaked(path, detector, half, half)
    assert set(found.values()) == {found["plain"]}, found


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
