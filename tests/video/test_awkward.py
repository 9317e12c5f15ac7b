"""Files that other programs spoil: each goes through the whole line, and what comes out is held against what went in
by an independent program, stream by stream and packet by packet."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from facestream.pipeline.config import read
from facestream.pipeline.errors import UserError
from facestream.pipeline.run import Job, Report, run_stages
from facestream.pipeline.types import Box, BoxState, Frame, TrackedFrame
from facestream.pipeline.video.container_metadata import hdr_metadata_of
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.source import open_source

from tests.awkward import FILES, Awkward, helpers, probe
from tests.conftest import picture, render

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffprobe") is None or shutil.which("ffmpeg") is None, reason="ffmpeg is not installed"
)
SPOT = (10.0, 8.0, 42.0, 40.0)
CODECS = {"h264", "hevc", "vp9", "av1"}


class Spot:
    """Finds one face at one place, three frames late as a look-ahead would."""

    def __init__(self) -> None:
        self.waiting: list[Frame] = []

    def push(self, frame: Frame) -> list[TrackedFrame]:
        self.waiting.append(frame)
        return [self._found(self.waiting.pop(0))] if len(self.waiting) > 3 else []

    def flush(self) -> list[TrackedFrame]:
        waiting, self.waiting = self.waiting, []
        return [self._found(frame) for frame in waiting]

    def _found(self, frame: Frame) -> TrackedFrame:
        return TrackedFrame(frame, (Box(1, SPOT, 0.9, BoxState.OBSERVED),))


def cover(source: Path, out: Path, **flags: Any) -> Report:
    settings = {"cover.hide": "solid", "cover.shape": "box", "encode.preset": "ultrafast", "encode.crf": 10, **flags}
    return run_stages(Job(str(source), out), read(None, settings), Spot(), progress=False)


def rows(path: Path) -> dict[str, Any]:
    """A file as a table: what a player shows, how long, and what it says of itself."""
    probed = probe(path)
    both = probed["packets_and_frames"]
    films = [s for s in probed["streams"] if s["codec_type"] == "video" and not s["disposition"]["attached_pic"]]
    film = films[0]
    frames = [f for f in both if f["type"] == "frame" and f["stream_index"] == film["index"]]
    sides = [s for s in probed["streams"] if s["codec_type"] in ("audio", "subtitle")]
    table: dict[str, Any] = {
        "films": len(films),
        "times": [f.get("pts_time", f.get("pkt_dts_time")) for f in frames],
        "lengths": [f.get("pkt_duration_time") for f in frames][:-1],  # ffprobe guesses the last one's
        "fields": [(f["interlaced_frame"], f["top_field_first"]) for f in frames],
        "light": [d for d in frames[0].get("side_data_list", []) if "metadata" in d["side_data_type"]],
        "turned": [d.get("rotation") for d in film.get("side_data_list", []) if "rotation" in d],
        "chapters": [(c["start_time"], c["end_time"]) for c in probed["chapters"]],
        "fonts": [s["extradata_hash"]
                  for s in probed["streams"] if s["codec_type"] == "attachment"],
    }  # fmt: skip
    for key in ("width", "height", "sample_aspect_ratio", "pix_fmt", "time_base", "r_frame_rate"):
        table[key] = film.get(key)
    for key in ("color_space", "color_transfer", "color_primaries"):
        table[key] = film.get(key)
    table["color_range"] = film.get("color_range", "tv")
    table["order"] = film["field_order"] if film.get("field_order") in ("tt", "bb", "tb", "bt") else "progressive"
    for number, side in enumerate(sides):
        kept = [side.get(k) for k in ("codec_name", "sample_rate", "channels", "time_base", "start_time")]
        table[f"side {number}"] = (*kept, side["disposition"], side.get("tags", {}).get("language"))
        table[f"packets {number}"] = [
            (p.get("pts_time"), p.get("duration_time"), p["data_hash"])
            for p in both
            if p["type"] == "packet" and p["stream_index"] == side["index"]
        ]
    return table


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return helpers(tmp_path_factory.mktemp("helpers"))


# What a format cannot hold, or holds in another way.
ELSEWHERE = {
    "motion.avi": {"times"},  # H.264 in AVI has decoding times only
    "old.avi": {"times"},
    "edit.mov": set(),
    "grey.mkv": set(),
}
MPEGTS = {"lengths"}  # it stores none: readers guess


@needs_ffmpeg
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_only_the_faces_change(file: Awkward, small: dict[str, Path], tmp_path: Path, folder: Path) -> None:
    source = file.make(tmp_path, small)
    out = folder / file.name
    report = cover(source, out)
    assert report.lost is None
    assert report.warnings == file.lost
    want, got = rows(source), rows(out)
    skipped = ELSEWHERE.get(file.name, set()) | (MPEGTS if out.suffix in (".ts", ".mts") else set())
    differing = {
        key: (want.get(key), got.get(key))
        for key in {*want, *got} - skipped
        if key != "films" and want.get(key) != got.get(key)
    }
    assert differing == {}
    assert got["films"] == 1
    assert len(got["times"]) == report.frames == len(want["times"]) > 5
    with av.open(str(source)) as one, av.open(str(out)) as two:
        a, b = (c.streams.video[0].codec_context.codec.canonical_name for c in (one, two))
        assert b == (a if a in CODECS else "h264")
        slack = 60_000 if out.suffix in (".ts", ".mts", ".mkv", ".webm") else 3000  # µs; priming counts in some
        assert two.duration == pytest.approx(one.duration, abs=slack)
    assert_covered(source, out)
    assert not [
        word for word in (b"My home", b"48.1374", b"Maker of Cameras", b"secret words") if word in out.read_bytes()
    ]


def assert_covered(source: Path, out: Path) -> None:
    """The spot is one grey in every frame, and the rest is the source's."""
    for one, two in zip(pictures(source), pictures(out), strict=True):
        x0, y0, x1, y1 = (int(v) for v in SPOT)
        assert np.ptp(two[y0 : y1 + 1, x0 : x1 + 1]) < 40
        assert np.ptp(one[y0 : y1 + 1, x0 : x1 + 1]) > 60
        edge = (slice(52, None), slice(56, None))
        assert np.abs(one[edge].astype(int) - two[edge]).mean() < 6


def pictures(path: Path) -> list[np.ndarray]:
    """Every frame as displayed, as brightness, from our own source: it starts where players start."""
    source = open_source(path, SourceOptions(threads=1))
    source.open()
    found = [
        np.rot90(item.picture.to_ndarray(format="gray"), item.rotation // 90)
        for item in source.items()
        if isinstance(item, Frame)
    ]
    source.close()
    return found


@needs_ffmpeg
def test_there_are_enough_of_them() -> None:
    assert len(FILES) == len({file.name for file in FILES}) >= 25


@needs_ffmpeg
@pytest.mark.parametrize("name", ["home.mp4", "home.mov", "home.mkv"])
def test_metadata_stays_when_asked_for(name: str, small: dict[str, Path], tmp_path: Path, folder: Path) -> None:
    (file,) = [file for file in FILES if file.name == name]
    source = file.make(tmp_path, small)
    cover(source, folder / name, **{"encode.keep_metadata": True})
    one, two = (
        {k.lower(): v for k, v in probe(path)["format"]["tags"].items() if k.lower() not in ("encoder",)}
        for path in (source, folder / name)
    )
    assert two == one
    assert "+48.1374+011.5755/" in two.values()
    if name == "home.mov":
        codes = [s["tags"].get("timecode") for s in probe(folder / name)["streams"] if s["codec_type"] == "data"]
        assert codes == ["01:02:03:04"]


def where_i_was(path: Path) -> Path:
    """A transport stream as drones make them: beside each picture, where it was taken."""
    with av.open(str(path), "w") as out:
        film = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        assert isinstance(film, av.VideoStream)
        film.width, film.height = 96, 64
        track: Any = out.add_data_stream("klv")
        for i in range(6):
            frame = picture(i, (96, 64))
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(film.encode(frame))
            packet: av.Packet = av.Packet(b"48.1374 11.5755")
            packet.stream, packet.pts, packet.dts, packet.time_base = track, i, i, Fraction(1, 25)
            out.mux(packet)
        out.mux(film.encode(None))
    return path


def test_a_track_of_places_is_dropped_unless_asked_for(tmp_path: Path, folder: Path) -> None:
    source = where_i_was(tmp_path / "drone.ts")
    assert cover(source, folder / "dropped.ts").warnings == ("not copied: a data stream (#1)",)
    assert b"11.5755" not in (folder / "dropped.ts").read_bytes()
    assert cover(source, folder / "kept.ts", **{"encode.keep_metadata": True}).warnings == ()
    assert (folder / "kept.ts").read_bytes().count(b"48.1374 11.5755") == 6


@needs_ffmpeg
@pytest.mark.parametrize(("codec", "name"), [("h264", "deep.mkv"), ("av1", "light.mp4"), ("vp9", "light.webm")])
def test_hdr_light_survives_another_codec_or_is_said_to_be_lost(
    codec: str, name: str, small: dict[str, Path], tmp_path: Path, folder: Path
) -> None:
    (file,) = [file for file in FILES if file.name == "hdr10.mp4"]
    source = file.make(tmp_path, small)
    report = cover(source, folder / name, **{"encode.codec": codec})
    if codec == "vp9":
        assert report.warnings == (
            "the aac sound becomes Opus: webm does not hold it",
            "the HDR light levels are left out: libvpx-vp9 does not write them",
        )
        return
    with av.open(str(source)) as one, av.open(str(folder / name)) as two:
        was, now = (hdr_metadata_of(next(file.decode(video=0))) for file in (one, two))
    assert was is not None
    assert now is not None
    assert now.content == was.content == (1000, 400)
    assert now.primaries == pytest.approx(was.primaries, abs=2e-5)
    assert now.luminance == pytest.approx(was.luminance, abs=1e-4)


def test_what_a_container_cannot_hold_is_said(small_mkv: Path, folder: Path) -> None:
    assert set(cover(small_mkv, folder / "out.mp4").warnings) >= {
        "the attached fonts are left out: mp4 does not hold them"
    }
    assert "the chapters are left out: mpegts does not hold them" in cover(small_mkv, folder / "out.ts").warnings


@pytest.fixture
def small_mkv(tmp_path: Path) -> Path:
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as out:
        film = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        assert isinstance(film, av.VideoStream)
        film.width, film.height = 96, 64
        out.add_attachment(
            "font.ttf",
            "application/x-truetype-font",
            b"\0\1\0\0\0\1"
            + bytes(6)
            + b"glyf"
            + bytes(4)
            + (28).to_bytes(4, "big")
            + (64).to_bytes(4, "big")
            + bytes(64),
        )
        row: Any = {"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}
        out.set_chapters([row])
        for i in range(6):
            frame = picture(i, (96, 64))
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(film.encode(frame))
        out.mux(film.encode(None))
    return path


def test_the_same_work_gives_the_same_bytes(small_mkv: Path, folder: Path) -> None:
    for name in ("a.mkv", "b.mkv"):
        cover(small_mkv, folder / name)
    assert (folder / "a.mkv").read_bytes() == (folder / "b.mkv").read_bytes()


def test_an_encoder_in_hardware_is_taken_by_name_and_its_absence_is_one_line(small_mkv: Path, folder: Path) -> None:
    if "h264_nvenc" not in av.codecs_available:
        pytest.skip("this FFmpeg was built without nvenc")
    said = ""
    try:
        assert cover(small_mkv, folder / "out.mp4", **{"encode.codec": "h264_nvenc"}).frames == 6
    except UserError as error:
        said = str(error)
    assert said.count("\n") == 0
    assert not said or "h264_nvenc" in said
    assert bool(said) is not (folder / "out.mp4").exists()


# Damage


def go(source: Path, out: Path) -> str:
    """Cover a file that may be broken. Returns what was said of it: nothing, a warning or an error, one line."""
    try:
        report = cover(source, out)
    except UserError as error:
        assert not out.exists()
        said = str(error)
    else:
        for frame in pictures_left(out):
            x0, y0, x1, y1 = (int(v) for v in SPOT)
            assert np.ptp(frame[y0 : y1 + 1, x0 : x1 + 1]) < 40  # never raw
        assert len(pictures_left(out)) == report.frames > 0
        said = str(report.lost or "")
    assert "\n" not in said
    assert [path.name for path in out.parent.iterdir()] in ([], [out.name])
    out.unlink(missing_ok=True)
    return said


def pictures_left(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="gray") for frame in file.decode(video=0)]


CONTAINERS = ("clip.mp4", "clip.mkv", "clip.ts", "clip.avi", "clip.webm")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
            options = {"cpu-used": "8", "deadline": "realtime"} if codec == "libvpx-vp9" else {"g": "5"}
            sound = {"mp4": "aac", "mkv": "aac", "ts": "aac", "avi": "libmp3lame", "webm": "libopus"}
            made[name] = render(
                tmp_path_factory.mktemp("whole") / name, frames=12, size=(96, 64), codec=codec, options=options,
                audio_codec=sound[name.partition(".")[2]],
            )  # fmt: skip
        return made[name]

    return make


def test_flipped_bits_never_crash_and_leave_nothing_raw(
    whole: Callable[[str], Path], tmp_path: Path, folder: Path
) -> None:
    """At 50 seeded places over five containers, each time a byte or a run of them."""
    dice = random.Random(8)
    said = []
    for turn in range(50):
        name = CONTAINERS[turn % 5]
        data = whole(name).read_bytes()
        broken = bytearray(data)
        at = dice.randrange(len(data))
        length = (1, 1, 16, 200)[turn % 4]
        for place in range(at, min(at + length, len(data))):
            broken[place] ^= 1 << dice.randrange(8)
        path = tmp_path / f"broken-{turn}-{name}"
        path.write_bytes(broken)
        said.append(go(path, folder / name))
    assert sum(map(bool, said)) > 3, "hardly any damage was noticed"
    assert [go(whole(name), folder / name) for name in CONTAINERS] == [""] * 5


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_cut_files_never_crash(name: str, share: float, whole: Callable[[str], Path], cut: Any, folder: Path) -> None:
    said = go(cut(whole(name), share), folder / name)
    if share < 0.9 and name != "clip.ts":  # which has no end to miss
        assert said


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_files_of_zeros_are_refused(size: int, tmp_path: Path, folder: Path) -> None:
    for suffix in (".mp4", ".mkv", ".ts", ".jpg", ".png"):
        (tmp_path / f"zero{suffix}").write_bytes(bytes(size))
        said = go(tmp_path / f"zero{suffix}", folder / f"zero{suffix}")
        assert "zero" in said


@needs_ffmpeg
def test_a_wrong_suffix_is_seen_through_or_refused(
    whole: Callable[[str], Path], small: dict[str, Path], tmp_path: Path, folder: Path
) -> None:
    for kind, pretended, refused in (
        ("clip.mkv", "a.mp4", False),
        ("clip.mp4", "a.mkv", False),
        ("clip.ts", "a.avi", False),
        ("clip.mp4", "a.jpg", True),
        ("clip.mkv", "a.png", True),
    ):
        shutil.copy(whole(kind), tmp_path / pretended)
        assert bool(go(tmp_path / pretended, folder / pretended)) is refused
    shutil.copy(small["words"], tmp_path / "a.mp4")
    assert "no video" in go(tmp_path / "a.mp4", folder / "a.mp4") or "text" in go(tmp_path / "a.mp4", folder / "a.mp4")


@needs_ffmpeg
def test_sound_alone_is_no_video(tmp_path: Path, folder: Path) -> None:
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=duration=0.2", str(tmp_path / "a.mp4")]
    subprocess.run(command, check=True, timeout=30)
    assert "there is no video stream" in go(tmp_path / "a.mp4", folder / "a.mp4")
