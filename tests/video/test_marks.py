"""How a picture is to be shown comes along: the shape of its pixels, that it is a sphere, that it is stereoscopic."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import pytest
from facestream.pipeline.cli.app import main
from facestream.pipeline.types import Frame, StreamInfo
from facestream.pipeline.video.marks import Marks, Sphere, mark
from facestream.pipeline.video.source import open_source

from tests.conftest import render

CASES = Path(os.environ.get("FACESTREAM_CASES", "../shared/cases")) / "files"
SPHERE = Sphere(0, 90 << 16, -(10 << 16), 0, (0, 0, 0, 0), 0)
TILE = Sphere(2, 0, 0, 0, (1 << 30, 1 << 29, 1 << 30, 0), 0)
CUBE = Sphere(1, 0, 0, 0, (0, 0, 0, 0), 8)


def seen(path: Path) -> StreamInfo:
    """What FFmpeg's own reader tells of a file, all of whose frames can be decoded."""
    source = open_source(path)
    try:
        info = source.open()
        assert sum(isinstance(item, Frame) for item in source.items()) == 6
        return info
    finally:
        source.close()


def covered(path: Path, out: Path, *words: str) -> Path:
    boxes = out.with_suffix(".jsonl")
    boxes.write_text('{"frame": 0, "faces": []}\n')
    assert main(["apply", str(path), str(boxes), "-o", str(out), *words]) == 0
    return out


@pytest.mark.parametrize("marks", [Marks(SPHERE), Marks(TILE, (2, False)), Marks(CUBE), Marks(None, (1, False))])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_spheres_and_stereo_are_carried(tmp_path: Path, suffix: str, marks: Marks) -> None:
    path = render(tmp_path / "in.mp4", frames=6)
    assert mark(path, "mp4", None, marks)
    assert seen(path).marks == marks
    assert seen(covered(path, tmp_path / f"out{suffix}")).marks == marks


@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(1, 2), Fraction(4, 3)])
@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "vp9"), (".webm", "vp9"), (".mkv", "av1"), (".mkv", "h264")])
def test_the_pixels_shape_is_carried(tmp_path: Path, suffix: str, codec: str, aspect: Fraction) -> None:
    path = tmp_path / "in.mp4"
    with av.open(str(path), "w") as out:
        film = out.add_stream("libx264", rate=30)
        assert isinstance(film, av.VideoStream)
        film.width, film.height, film.pix_fmt = 192, 96, "yuv420p"
        film.codec_context.sample_aspect_ratio = aspect
        for _ in range(6):
            out.mux(film.encode(av.VideoFrame(192, 96, "yuv420p")))
        out.mux(film.encode(None))
    made = covered(path, tmp_path / f"out{suffix}", "--codec", codec)
    assert seen(made).pixel_aspect == aspect
    with av.open(str(made)) as file:  # the index still leads to its parts
        file.seek(100_000)
        assert next(file.decode(video=0)) is not None


def test_what_cannot_be_marked_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = render(tmp_path / "in.mp4", frames=6)
    assert mark(path, "mp4", None, Marks(SPHERE))
    covered(path, tmp_path / "out.ts")
    assert "360-degree" in capfd.readouterr().err


def test_other_files_are_left_as_they_are(tmp_path: Path) -> None:
    for data in (b"", b"\x1a\x45\xdf\xa3", bytes(100), b"\0\0\0\x08moov", b"\x18\x53\x80\x67" + bytes(40)):
        path = tmp_path / "odd"
        path.write_bytes(data)
        for kind in ("matroska", "mp4"):
            assert not mark(path, kind, Fraction(2), Marks(SPHERE))
            assert path.read_bytes() == data


def test_the_sphere_of_the_field(tmp_path: Path) -> None:
    path = CASES / "sph.mp4"
    if not path.exists():
        pytest.skip(f"{path} is not there: set FACESTREAM_CASES")
    boxes = tmp_path / "boxes.jsonl"
    boxes.write_text('{"frame": 0, "faces": []}\n')
    for suffix in (".mp4", ".mkv"):
        out = tmp_path / f"out{suffix}"
        assert main(["apply", str(path), str(boxes), "-o", str(out)]) == 0
        source = open_source(out)
        marks = source.open().marks
        source.close()
        assert marks == Marks(Sphere(0, 0, 0, 0, (0, 0, 0, 0), 0))


CHROMA = ("left", "center", "topleft", "top")


@pytest.mark.parametrize("location", CHROMA)
@pytest.mark.parametrize(
    ("codec", "suffix", "made"),
    [
        ("libx264", ".mp4", "h264"),
        ("libx264", ".ts", "h264"),
        ("libx265", ".mp4", "hevc"),
        ("libx265", ".mkv", "hevc"),
        ("libx265", ".mov", "h264"),
        ("libvpx-vp9", ".mkv", "vp9"),
        ("libsvtav1", ".mkv", "av1"),
        ("libx264", ".mkv", "av1"),
    ],
)
def test_where_the_chroma_samples_lie_is_carried(
    tmp_path: Path, location: str, codec: str, suffix: str, made: str
) -> None:
    options = {"chroma_sample_location": location}
    source = tmp_path / ("in.mkv" if codec in ("libvpx-vp9", "libsvtav1") else "in.mp4")
    path = render(source, frames=6, codec=codec, options=options, audio=())
    assert seen(path).chroma_location == location
    assert seen(covered(path, tmp_path / f"out{suffix}", "--codec", made)).chroma_location == location


def test_turned_pixels_and_other_chroma_say_nothing_of_it(tmp_path: Path) -> None:
    options = {"chroma_sample_location": "topleft"}
    path = render(tmp_path / "in.mp4", frames=6, options=options, rotation=90)
    assert seen(path).chroma_location == "topleft"
    assert seen(covered(path, tmp_path / "out.ts")).chroma_location == "left", "the default of H.264"
    assert seen(render(tmp_path / "full.mp4", frames=6, pix_fmt="yuv444p")).chroma_location is None


def test_the_chroma_of_the_field(tmp_path: Path) -> None:
    path = CASES / "chroma.mp4"
    if not path.exists():
        pytest.skip(f"{path} is not there: set FACESTREAM_CASES")
    source = open_source(covered(path, tmp_path / "out.mp4"))
    location = source.open().chroma_location
    source.close()
    assert location == "topleft"
