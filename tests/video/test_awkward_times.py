"""Recordings put together from several, sizes that change, transparency: what comes out of each."""

from __future__ import annotations

import itertools
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from facestream.engines.boxes import Array
from facestream.pipeline.cli.app import main
from facestream.pipeline.types import Frame
from facestream.pipeline.video.decode import TimestampUnwrapper
from facestream.pipeline.video.source import open_source
from PIL import Image

from tests.conftest import picture, render

CASES = Path(os.environ.get("FACESTREAM_CASES", "../shared/cases")) / "files"


class Stream:
    def __init__(self, kind: str) -> None:
        self.type = kind


class Packet:
    """The times of one, as the unwrapper sees them."""

    def __init__(self, index: int, dts: int, kind: str = "video", duration: int = 33) -> None:
        self.stream_index, self.dts, self.duration = index, dts, duration
        self.pts: int | None = dts
        self.time_base = Fraction(1, 1000)
        self.stream = Stream(kind)


def unwrapped(packets: list[Packet]) -> list[int]:
    unwrapper = TimestampUnwrapper()
    for packet in packets:
        unwrapper.unwrap(packet)  # type: ignore[arg-type]
    return [packet.dts for packet in packets]


@pytest.mark.parametrize("jump", [0, 5, 2**32 + 5, 95_443_717])
def test_times_that_begin_anew_run_on(jump: int) -> None:
    """Back to the start, or where FFmpeg takes that for an overflow of 32 (or MPEG's 33) bits."""
    before = [Packet(i % 2, 100_000 + 33 * (i // 2), "audio" if i % 2 else "video") for i in range(20)]
    after = [Packet(i % 2, jump + 33 * (i // 2), "audio" if i % 2 else "video") for i in range(20)]
    found = unwrapped([*before, *after])
    for stream in (0, 1):
        steps = np.diff(found[stream::2])
        assert (steps == 33).all()


def test_what_is_no_seam_is_left_alone() -> None:
    gap = [Packet(0, 0), Packet(0, 3_600_000), Packet(0, 3_600_033)]  # an hour without motion
    assert unwrapped(gap) == [0, 3_600_000, 3_600_033]
    jitter = [Packet(0, 0), Packet(0, 40), Packet(0, 30), Packet(0, 80)]
    assert unwrapped(jitter) == [0, 40, 30, 80]
    titles = [Packet(0, 0), Packet(1, 500, "subtitle", 5000), Packet(1, 200, "subtitle", 9000), Packet(0, 33)]
    assert unwrapped(titles) == [0, 500, 200, 33]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".flv"])
def test_a_recording_whose_times_begin_anew(tmp_path: Path, suffix: str) -> None:
    if not (CASES / "reset.flv").exists():
        pytest.skip(f"{CASES}/reset.flv is not there: set FACESTREAM_CASES")
    out = tmp_path / f"out{suffix}"
    assert main(["anonymize", str(CASES / "reset.flv"), "-o", str(out), "--detect-every", "8"]) == 0
    with av.open(str(out)) as file:
        times = [frame.time for frame in file.decode(video=0)]
    assert len(times) == 120
    assert 3.8 < times[-1] - times[0] < 4.4


def test_two_flash_videos_behind_each_other(tmp_path: Path) -> None:
    """The tags of a second recording, whose times begin at 0, as cameras and recorders append them."""
    data = render(tmp_path / "one.flv", frames=30).read_bytes()
    path = tmp_path / "in.flv"
    path.write_bytes(data + data[13:])  # without the second header and the size that stands before its first tag
    assert main(["anonymize", str(path), "-o", str(tmp_path / "out.mp4"), "--detect-every", "8"]) == 0
    with av.open(str(tmp_path / "out.mp4")) as file:
        times = [frame.time for frame in file.decode(video=0)]
    assert len(times) == 60
    assert all(0.02 < b - a < 0.2 for a, b in itertools.pairwise(times))
    assert 1.9 < times[-1] - times[0] < 2.2


@pytest.mark.parametrize("number", range(6))
def test_one_picture_of_hevc(tmp_path: Path, number: int) -> None:
    path, out = tmp_path / "in.mkv", tmp_path / "out.mp4"
    with av.open(str(path), "w") as file:
        film = file.add_stream("libx265", rate=1, options={"x265-params": "log-level=none"})
        assert isinstance(film, av.VideoStream)
        film.width, film.height, film.pix_fmt = 160, 120, "yuv420p"
        file.mux(film.encode(picture(number)))
        file.mux(film.encode(None))
    assert main(["anonymize", str(path), "-o", str(out)]) == 0
    with av.open(str(out)) as file:
        assert len(list(file.decode(video=0))) == 1


def two_sizes(path: Path) -> Path:
    """A transport stream whose pictures become smaller."""
    parts = []
    for number, size in enumerate(((320, 240), (160, 120))):
        part = path.with_name(f"{number}.ts")
        with av.open(str(part), "w") as file:
            film = file.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            assert isinstance(film, av.VideoStream)
            film.width, film.height = size
            film.pix_fmt = "yuv420p"
            for i in range(25):
                shown = picture(i, size)
                shown.pts = i + 25 * number
                shown.time_base = Fraction(1, 25)
                file.mux(film.encode(shown))
            file.mux(film.encode(None))
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def test_a_size_that_changes_is_that_of_the_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = two_sizes(tmp_path / "in.ts")
    source = open_source(path)
    source.open()
    sizes = [item.size for item in source.items() if isinstance(item, Frame)]
    source.close()
    assert len(sizes) == 50
    assert set(sizes) == {(320, 240)}
    assert main(["anonymize", str(path), "-o", str(tmp_path / "out.mp4")]) == 0
    assert "size changes to 160x120" in capfd.readouterr().err


def see_through(path: Path, codec: str, pix_fmt: str, options: dict[str, str] | None = None) -> Path:
    """A red mark in the left half, wholly transparent, on opaque grey."""
    rgba: Array = np.full((96, 160, 4), 90, np.uint8)
    rgba[..., 3] = 255
    rgba[16:80, 16:64] = (230, 20, 20, 0)
    with av.open(str(path), "w") as file:
        film = file.add_stream(codec, rate=10, options=options or {})
        assert isinstance(film, av.VideoStream)
        film.width, film.height, film.pix_fmt = 160, 96, pix_fmt
        if codec == "libvpx-vp9":
            film.metadata["alpha_mode"] = "1"
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=pix_fmt)
            frame.pts = i
            file.mux(film.encode(frame))
        file.mux(film.encode(None))
    return path


SEE_THROUGH = [
    ("in.webm", "libvpx-vp9", "yuva420p"),
    ("in.mov", "qtrle", "argb"),
    ("in.mov", "prores_ks", "yuva444p10le"),
    ("in.mov", "png", "rgba"),
    ("in.avi", "png", "rgba"),
    ("in.mkv", "ffv1", "yuva420p"),
]


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), SEE_THROUGH)
@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".avi"])
def test_what_is_transparent_stays_hidden(tmp_path: Path, name: str, codec: str, pix_fmt: str, suffix: str) -> None:
    path = see_through(tmp_path / name, codec, pix_fmt)
    out = tmp_path / f"out{suffix}"
    assert main(["anonymize", str(path), "-o", str(out)]) == 0
    with av.open(str(out)) as file:  # by FFmpeg's own decoder, which does not know VP9's transparency
        shown = [frame.to_ndarray(format="rgba") for frame in file.decode(video=0)]
    assert len(shown) == 5
    for rgba in shown:
        assert rgba[24:72, 24:56, :3][rgba[24:72, 24:56, 3] > 0].min(initial=255) > 200, (
            "the mark is white, or not seen"
        )
        assert abs(int(rgba[40, 120, 0]) - 90) < 12
    if suffix == ".webm":
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        with av.open(str(out)) as file:
            frames = [f for packet in file.demux(video=0) for f in decoder.decode(packet)]  # type: ignore[attr-defined]
        alpha = frames[0].to_ndarray(format="rgba")[..., 3]
        assert alpha[48, 40] < 10
        assert alpha[48, 120] > 245


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_half_transparent_videos_are_laid_on_white(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "in.mov"
    rgba = np.full((96, 160, 4), 90, np.uint8)
    rgba[..., 3] = 128
    with av.open(str(path), "w") as file:
        film = file.add_stream("png", rate=30)
        assert isinstance(film, av.VideoStream)
        film.width, film.height, film.pix_fmt = 160, 96, "rgba"
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba")
            frame.pts = i
            file.mux(film.encode(frame))
        file.mux(film.encode(None))
    out = tmp_path / f"out{suffix}"
    assert main(["anonymize", str(path), "-o", str(out)]) == 0
    with av.open(str(out)) as video:
        for frame in video.decode(video=0):
            assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - 172).max() < 12


@pytest.mark.parametrize("loops", [None, 0, 3])
def test_a_gif_keeps_its_transparency_and_its_loops(tmp_path: Path, loops: int | None) -> None:
    frames = []
    for i in range(4):
        image = Image.new("RGBA", (96, 64), (90, 90, 90 + 20 * i, 255))
        image.paste((0, 0, 0, 0), (8, 8, 40, 40))
        frames.append(image)
    more = {} if loops is None else {"loop": loops}
    frames[0].save(tmp_path / "in.gif", save_all=True, append_images=frames[1:], duration=100, disposal=2, **more)
    assert main(["anonymize", str(tmp_path / "in.gif"), "-o", str(tmp_path / "out.gif")]) == 0
    out = Image.open(tmp_path / "out.gif")
    assert out.info.get("loop") == loops
    alpha = np.asarray(out.convert("RGBA"))[..., 3]
    assert alpha[24, 24] == 0
    assert alpha[60, 90] == 255


def test_a_cameras_data_does_not_lengthen_the_film(tmp_path: Path) -> None:
    """GoPro's telemetry: an edit list ends with the film what its last sample's duration says lasts longer."""
    data = bytearray(render(tmp_path / "in.mp4", frames=60, subtitles="mov_text").read_bytes())
    data = data.replace(b"sbtl", b"meta").replace(b"tx3g", b"gpmd")
    times = data.index(b"stts", data.index(b"gpmd"))
    rows = struct.unpack(">I", data[times + 8 : times + 12])[0]
    last = times + 12 + 8 * (rows - 2)  # behind it comes an empty one
    assert struct.unpack(">II", data[last : last + 8]) == (1, 300)
    data[last + 4 : last + 8] = struct.pack(">I", 3000)
    path = tmp_path / "gopro.mp4"
    path.write_bytes(data)
    (tmp_path / "boxes.jsonl").write_text('{"frame": 0, "faces": []}\n')
    out = tmp_path / "out.mp4"
    assert main(["apply", str(path), str(tmp_path / "boxes.jsonl"), "-o", str(out), "--keep-metadata"]) == 0
    with av.open(str(path)) as before, av.open(str(out)) as after:
        assert [stream.type for stream in after.streams] == ["video", "audio", "data"]
        assert after.duration == before.duration
        assert after.streams[2].duration * after.streams[2].time_base == 2, "the film's length, not 3.5 s"
