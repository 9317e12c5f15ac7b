"""From covered frames to files: the output is compared with the source packet by packet."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from facestream.pipeline.errors import BadConfig, BadInput, SinkLost, SourceLost
from facestream.pipeline.types import CoveredFrame, Frame, SidePacket, StreamInfo, TrackedFrame
from facestream.pipeline.video.encode import EncodeOptions, format_for
from facestream.pipeline.video.picture import planar_format
from facestream.pipeline.video.sink import Sink, check_output, open_sink
from facestream.pipeline.video.source import open_source
from PIL import Image, ImageCms

from tests.compare import looks, packets, shown, times
from tests.conftest import picture, unprivileged

Clip = Callable[..., Path]
MS = Fraction(1, 1000)
QUICK = EncodeOptions(preset="ultrafast")


def covered(frame: Frame) -> CoveredFrame:
    return CoveredFrame(frame.picture, TrackedFrame(frame, ()))


def copy(source_path: Path, *targets: Path, options: EncodeOptions = QUICK) -> list[str]:
    """Read a source and write all of it, as it is, into each target. Returns the last sink's warnings."""
    source = open_source(source_path)
    info = source.open()
    sinks: list[Sink] = [open_sink(target, info, options) for target in targets]
    try:
        for item in source.items():
            for sink in sinks:
                sink.copy(item) if isinstance(item, SidePacket) else sink.write(covered(item))
    except SourceLost:
        pass
    source.close()
    for sink in sinks:
        sink.close()
    return sinks[-1].warnings


# What is kept


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("plain.mp4", {}),
        ("ordered.mp4", {"options": {"preset": "veryfast"}, "frames": 40}),
        ("ntsc.mp4", {"rate": Fraction(30000, 1001)}),
        ("turned.mp4", {"rotation": 90}),
        ("upside.mp4", {"rotation": 180}),
        ("wide.mp4", {"aspect": Fraction(4, 3)}),
        ("tagged.mp4", {"colours": {"color_range": 1, "colorspace": 1, "color_primaries": 1, "color_trc": 1}}),
        ("full.mp4", {"pix_fmt": "yuvj420p", "colours": {"color_range": 2, "colorspace": 5}}),
        ("late.mp4", {"start": 45, "time_base": Fraction(1, 30)}),
        ("phone.mp4", {"times": [0, 3003, 6010, 9000, 12020, 27000, 30003], "time_base": Fraction(1, 90000)}),
        ("varying.mkv", {"times": [0, 33, 80, 100, 200, 233, 500, 1100], "time_base": MS, "rate": 15}),
        ("late.ts", {"time_base": Fraction(1, 90000), "start": 126000}),
        ("chroma.mp4", {"pix_fmt": "yuv444p"}),
        ("apple.mov", {"muxer": {"video_track_timescale": "600"}, "rate": 24}),
        ("half.mkv", {"pix_fmt": "yuv422p", "time_base": MS}),
        ("deep.mkv", {"pix_fmt": "yuv420p10le", "time_base": MS}),
        ("old.avi", {"time_base": Fraction(1, 30), "audio_codec": "libmp3lame"}),
        ("camera.avi", {"time_base": Fraction(1, 30)}),
    ],
)
@pytest.mark.parametrize("preset", ["ultrafast", "auto", "veryfast"])  # without B-frames, with one, with more
def test_a_copy_has_the_same_times_sound_and_looks(
    clip: Clip, folder: Path, name: str, how: dict[str, Any], preset: str
) -> None:
    path = clip(name, **how)
    out = folder / name
    assert copy(path, out, options=EncodeOptions(preset=preset)) == []
    assert times(out) == times(path)
    assert packets(out, "audio") == packets(path, "audio")
    assert packets(path, "audio")[0]
    assert looks(out) == looks(path)
    with av.open(str(path)) as one, av.open(str(out)) as two:
        assert two.duration == pytest.approx(one.duration, abs=50_000 if name.endswith("ts") else 3000)  # µs
        assert two.streams.video[0].start_time == one.streams.video[0].start_time


def test_each_frame_keeps_its_length(clip: Clip, folder: Path) -> None:
    path = clip("phone.mp4", times=[0, 3003, 6010, 9000, 12020, 27000, 30003], time_base=Fraction(1, 90000))
    copy(path, folder / "out.mp4")
    assert shown(folder / "out.mp4") == shown(path)


def test_pictures_survive(clip: Clip, folder: Path) -> None:
    path = clip("plain.mp4")
    copy(path, folder / "out.mp4", options=EncodeOptions(crf=10))
    with av.open(str(path)) as one, av.open(str(folder / "out.mp4")) as two:
        for a, b in zip(one.decode(video=0), two.decode(video=0), strict=True):
            assert abs(a.to_ndarray().astype(int) - b.to_ndarray()).mean() < 2


@pytest.mark.parametrize(("name", "subtitles"), [("tracks.mkv", "subrip"), ("tracks.mp4", "mov_text")])
def test_tracks_keep_their_bytes_languages_and_roles(clip: Clip, folder: Path, name: str, subtitles: str) -> None:
    path = clip(name, audio=("eng", "fra:hearing_impaired"), subtitles=subtitles)
    out = folder / name
    assert copy(path, out) == []
    for kind, count in [("audio", 2), ("subtitle", 1)]:
        assert packets(out, kind) == packets(path, kind)
        assert len(packets(out, kind)) == count
    with av.open(str(path)) as one, av.open(str(out)) as two:
        for a, b in zip(one.streams, two.streams, strict=True):
            assert (a.type, a.metadata.get("language"), a.disposition) == (
                b.type,
                b.metadata.get("language"),
                b.disposition,
            )


def test_private_metadata_is_left_out(clip: Clip, folder: Path) -> None:
    private = {"title": "My home", "location": "+48.1+011.5/", "artist": "Jane", "comment": "secret"}
    path = clip("named.mp4", metadata=private, muxer={"movflags": "use_metadata_tags"})
    with av.open(str(path)) as file:
        assert file.metadata["title"] == "My home"  # else this test would prove nothing
    titled = clip("titled.mkv")
    assert b"Jane" in titled.read_bytes()
    for source, name in [(path, "out.mp4"), (path, "out.mkv"), (titled, "titled.mkv")]:
        copy(source, folder / name)
        data = (folder / name).read_bytes()
        assert not [value for value in private.values() if value.encode() in data]


def test_ten_bit_hevc_stays_so_with_its_hdr_tags(clip: Clip, folder: Path) -> None:
    colours = {"color_range": 1, "colorspace": 9, "color_primaries": 9, "color_trc": 16}
    path = clip("hdr.mp4", codec="libx265", pix_fmt="yuv420p10le", frames=8, colours=colours)
    copy(path, folder / "out.mp4")
    assert looks(folder / "out.mp4") == looks(path)
    assert looks(path)["colours"] == (1, 9, 9, 16)
    assert times(folder / "out.mp4") == times(path)
    with av.open(str(folder / "out.mp4")) as file:
        assert file.streams.video[0].codec_context.codec.canonical_name == "hevc"
        assert file.streams.video[0].codec_tag == "hvc1"


@pytest.mark.parametrize(
    ("suffix", "options", "codec"),
    [
        (".mp4", {}, "h264"),
        (".webm", {}, "vp9"),
        (".mkv", {"codec": "hevc"}, "hevc"),
        (".mkv", {"codec": "av1"}, "av1"),
        (".mp4", {"codec": "vp9"}, "vp9"),
    ],
)
def test_the_codec_is_the_wanted_one_or_one_that_fits(
    clip: Clip, folder: Path, suffix: str, options: dict[str, Any], codec: str
) -> None:
    path = clip("brief.mp4", frames=4, audio=())
    out = folder / f"out{suffix}"
    copy(path, out, options=EncodeOptions(preset="ultrafast", **options))
    with av.open(str(out)) as file:
        assert file.streams.video[0].codec_context.codec.canonical_name == codec
    assert [round(at * 1000) for at in times(out)] == [0, 33, 67, 100]


def test_vp9_of_an_odd_size_stays_both(clip: Clip, folder: Path) -> None:
    path = clip("odd.webm", codec="libvpx-vp9", size=(161, 121), audio=(), frames=4, options={"cpu-used": "8"})
    copy(path, folder / "out.webm")
    assert looks(folder / "out.webm")["size"] == (161, 121)
    assert looks(folder / "out.webm")["format"] == "yuv420p"
    copy(path, folder / "out.mkv", options=EncodeOptions(preset="ultrafast", codec="h264"))
    assert looks(folder / "out.mkv")["size"] == (161, 121)
    assert looks(folder / "out.mkv")["format"] == "yuv444p"


@pytest.mark.parametrize(
    ("encoder", "given", "want"),
    [
        ("libx264", "yuv420p12le", "yuv420p10le"),
        ("libx264", "gbrp", "yuv420p"),
        ("libx265", "gbrp", "yuv420p"),
        ("libx264", "nv12", "nv12"),
        ("libvpx-vp9", "nv12", "yuv420p"),
        ("libvpx-vp9", "yuvj422p", "yuv422p"),
        ("libsvtav1", "yuv444p10le", "yuv420p10le"),
        ("libsvtav1", "gray", "yuv420p"),
        ("gif", "gbrp", "pal8"),
    ],
)
def test_formats_that_an_encoder_lacks_become_near_ones(encoder: str, given: str, want: str) -> None:
    assert format_for(encoder, picture(0, (32, 32), given)) == want


def test_full_chroma_on_request() -> None:
    assert format_for("libx264", picture(0, (32, 32), "gbrp"), full_chroma=True) == "yuv444p"
    assert planar_format("yuv411p") == "yuv420p"


def test_rgb_sources_keep_their_colours(clip: Clip, folder: Path) -> None:
    path = clip("screen.avi", codec="ffv1", pix_fmt="bgr0", frames=3, audio=())
    copy(path, folder / "out.mp4", options=EncodeOptions(crf=5))
    with av.open(str(folder / "out.mp4")) as file:
        got = next(file.decode(video=0))
    assert got.colorspace == 1
    assert abs(got.to_ndarray(format="rgb24").astype(int) - picture(0).to_ndarray(format="rgb24")).mean() < 4


def test_gif_becomes_gif(clip: Clip, folder: Path) -> None:
    path = clip("moving.gif", codec="gif", pix_fmt="rgb8", audio=(), frames=6, rate=10)
    copy(path, folder / "out.gif")
    assert times(folder / "out.gif") == times(path)
    with Image.open(folder / "out.gif") as image:
        assert (image.n_frames, image.size) == (6, (160, 120))


def test_two_sinks_get_the_same(clip: Clip, folder: Path) -> None:
    path = clip("tracks.mkv", audio=("eng", "fra"), subtitles="subrip")
    copy(path, folder / "a.mkv", folder / "b.mp4", folder / "c.mkv")
    for kind in ("video", "audio", "subtitle"):
        assert packets(folder / "a.mkv", kind) == packets(folder / "c.mkv", kind)
    assert [round(at * 1000) for at in times(folder / "b.mp4")] == [round(at * 1000) for at in times(path)]
    assert [len(track) for track in packets(folder / "b.mp4", "audio")] == [48, 48]


# What a container cannot hold


def test_a_stream_that_does_not_fit_is_dropped_with_a_warning(clip: Clip, folder: Path) -> None:
    path = clip("tracks.mkv", audio=("eng", "fra"), subtitles="subrip")
    assert copy(path, folder / "a.mp4") == ["the subrip subtitle stream is left out: mp4 does not hold it"]
    assert [len(track) for track in packets(folder / "a.mp4", "audio")] == [48, 48]
    assert packets(folder / "a.mp4", "subtitle") == []
    warnings = copy(path, folder / "b.webm")
    assert len(warnings) == 3
    assert "the aac sound becomes Opus: webm does not hold it" in warnings
    assert len(packets(folder / "b.webm", "audio")) == 2


def test_a_second_video_is_not_copied_uncovered(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        films = [out.add_stream("libx264", rate=30, options={"preset": "ultrafast"}) for _ in range(2)]
        for film in films:
            film.width, film.height = 160, 120
        for i in range(4):
            for film in films:
                frame = picture(i)
                frame.pts, frame.time_base = i, Fraction(1, 30)
                out.mux(film.encode(frame))
        for film in films:
            out.mux(film.encode(None))
    assert copy(path, folder / "out.mkv") == ["not copied: a video stream (#1)"]
    with av.open(str(folder / "out.mkv")) as file:
        assert len(file.streams) == 1


def test_priming_before_zero_moves_nothing_in_matroska(clip: Clip, folder: Path) -> None:
    path = clip("plain.mp4")
    copy(path, folder / "out.mkv")
    assert [round(at * 1000) for at in times(folder / "out.mkv")] == [round(at * 1000) for at in times(path)]
    assert packets(path, "audio")[0][0][0] == -1024
    assert packets(folder / "out.mkv", "audio")[0][0][0] == -21


def test_padding_at_the_end_of_the_sound_stays_cut(clip: Clip, folder: Path) -> None:
    path = clip("opus.mkv", audio_codec="libopus", frames=20)
    copy(path, folder / "out.mkv")
    lengths = []
    for name in (path, folder / "out.mkv"):
        with av.open(str(name)) as file:
            lengths.append(sum(sound.samples for sound in file.decode(audio=0)))
    assert lengths[0] == 32000
    assert lengths[1] == lengths[0]


def test_an_avi_has_one_rate_and_a_place_for_each_frame(clip: Clip, folder: Path) -> None:
    even = clip("plain.mp4", audio=())
    copy(even, folder / "even.avi")
    with av.open(str(folder / "even.avi")) as file:
        assert file.streams.video[0].time_base == Fraction(1, 30)
        assert len(list(file.decode(video=0))) == 30
    varying = clip("varying.mkv", times=[0, 33, 34, 35, 200, 233, 500, 1100], time_base=MS, rate=15)
    copy(varying, folder / "varying.avi")
    source = open_source(folder / "varying.avi")
    source.open()
    assert len([item for item in source.items() if isinstance(item, Frame)]) == 8
    source.close()


def test_recordings_put_together_run_on(clip: Clip, tmp_path: Path, folder: Path) -> None:
    one = clip("late.ts", time_base=Fraction(1, 90000), start=126000)
    path = tmp_path / "both.ts"
    path.write_bytes(one.read_bytes() * 2)
    assert copy(path, folder / "out.ts") == []
    got = times(folder / "out.ts")
    assert len(got) == 60
    assert got[:30] == times(one)
    assert {round((b - a) * 90000) for a, b in pairwise(got[30:])} == {3000}
    assert 0 < got[30] - got[29] < Fraction(1, 10)
    with av.open(str(folder / "out.ts")) as file:
        sounds = [packet.pts for packet in file.demux(audio=0) if packet.size]
    assert len(sounds) == 96
    assert sounds == sorted(sounds)


def test_a_transport_stream_becomes_an_mp4_in_step(clip: Clip, folder: Path) -> None:
    path = clip("late.ts", time_base=Fraction(1, 90000), start=126000)
    copy(path, folder / "out.mp4")
    assert times(folder / "out.mp4") == times(path)
    with av.open(str(path)) as one, av.open(str(folder / "out.mp4")) as two:
        a, b = (next(file.decode(audio=0)).time for file in (one, two))
        assert a is not None
        assert b == pytest.approx(a, abs=1e-4)


def test_a_start_far_from_zero_is_not_padded_in_another_container(clip: Clip, folder: Path) -> None:
    path = clip("recorder.ts", time_base=Fraction(1, 90000), start=90000 * 5000)
    copy(path, folder / "same.ts")
    assert times(folder / "same.ts") == times(path)
    assert copy(path, folder / "out.mp4") == ["the source starts at 5000 s; the output starts at 0"]
    assert times(folder / "out.mp4") == [at - 5000 for at in times(path)]


def test_frames_with_one_time_are_moved_apart_and_not_lost(clip: Clip, folder: Path) -> None:
    source = open_source(clip("plain.mp4", frames=6))
    info = source.open()
    frames = [item for item in source.items() if isinstance(item, Frame)]
    source.close()
    frames[3].picture.pts = frames[2].picture.pts
    frames[4].picture.pts = None
    sink = open_sink(folder / "out.mp4", info, QUICK)
    for frame in frames:
        sink.write(covered(frame))
    sink.close()
    assert [at * 15360 for at in times(folder / "out.mp4")] == [0, 512, 1024, 1025, 1026, 2560]
    assert frames[3].picture.pts == 1024  # not ours to change
    assert frames[4].picture.pts is None


def test_a_live_source_starts_at_zero(folder: Path) -> None:
    source = open_source("lavfi:testsrc2=size=64x48:rate=50:duration=0.2,setpts=PTS+4000/TB,realtime")
    info = source.open()
    assert info.live
    sink = open_sink(folder / "out.mp4", info, QUICK)
    for item in source.items():
        assert isinstance(item, Frame)
        sink.write(covered(item))
    source.close()
    sink.close()
    assert [round(at * 50) for at in times(folder / "out.mp4")] == list(range(10))


def test_a_size_that_changes_is_scaled_to_the_first(clip: Clip, folder: Path) -> None:
    source = open_source(clip("plain.mp4", frames=6))
    info = source.open()
    frames = [item for item in source.items() if isinstance(item, Frame)]
    source.close()
    sink = open_sink(folder / "out.mp4", info, QUICK)
    for frame in frames:
        other = frame.picture.reformat(80, 60) if frame.index > 2 else frame.picture
        sink.write(CoveredFrame(other, TrackedFrame(frame, ())))
    sink.close()
    assert len(times(folder / "out.mp4")) == 6
    assert looks(folder / "out.mp4")["size"] == (160, 120)


# Outputs that cannot be written: said before the work starts, and nothing is left


def refused(path: Path, message: str, info: StreamInfo, options: EncodeOptions = QUICK) -> None:
    before = sorted(os.walk(path.parent))
    with pytest.raises((BadInput, BadConfig), match=message) as caught:
        open_sink(path, info, options)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert sorted(os.walk(path.parent)) == before


@pytest.fixture(scope="module")
def info(clip: Clip) -> StreamInfo:
    source = open_source(clip("plain.mp4"))
    opened = source.open()
    source.close()
    return opened


def test_bad_outputs_are_refused(info: StreamInfo, folder: Path) -> None:
    (folder / "there.mp4").write_text("mine")
    (folder / "folder.mp4").mkdir()
    refused(folder / "there.mp4", "exists already.*--overwrite", info)
    refused(folder / "folder.mp4", "the output is a folder", info)
    refused(folder / "no" / "where.mp4", "folder does not exist.*mkdir", info)
    refused(folder / "there.mp4" / "x.mp4", "folder is a file", info)
    refused(folder / "out.xyz", r"\.xyz is not a format we write.*\.mp4 .*\.mkv", info)
    refused(folder / "out", "no suffix", info)
    refused(folder / "out.png", "cannot be written as a picture", info)
    refused(folder / "out.mp4", "no codec mpeg2", info, EncodeOptions(codec="mpeg2"))
    refused(folder / "out.webm", "webm does not hold h264", info, EncodeOptions(codec="h264"))
    refused(folder / "out.mp4", "no preset hasty.*ultrafast", info, EncodeOptions(preset="hasty"))
    assert (folder / "there.mp4").read_text() == "mine"


def test_the_input_is_never_the_output(clip: Clip, folder: Path) -> None:
    path = folder / "in.mp4"
    path.write_bytes(clip("plain.mp4").read_bytes())
    (folder / "link.mp4").symlink_to(path)
    for name in ("in.mp4", "link.mp4"):
        with pytest.raises(BadInput, match="the input itself"):
            check_output(folder / name, EncodeOptions(overwrite=True), [path])


def test_a_folder_without_permission_is_refused(info: StreamInfo, folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o555)
    barred = folder / "barred"
    (barred / "inside").mkdir(parents=True)
    with unprivileged(folder):
        refused(closed / "out.mp4", "no permission to write", info)
    barred.chmod(0o700)
    with unprivileged(folder):
        refused(barred / "inside" / "out.mp4", "no permission to write", info)


def test_an_existing_output_without_permission_is_not_replaced(info: StreamInfo, folder: Path) -> None:
    out = folder / "out.mp4"
    out.write_text("mine")
    out.chmod(0o444)
    folder.chmod(0o777)
    with unprivileged(folder):
        refused(out, "write-protected", info, EncodeOptions(overwrite=True))
    assert out.read_text() == "mine"


def test_an_existing_output_is_replaced_only_when_asked_and_only_at_the_end(clip: Clip, folder: Path) -> None:
    path = clip("plain.mp4")
    out = folder / "out.mp4"
    out.write_text("old")
    source = open_source(path)
    sink = open_sink(out, source.open(), EncodeOptions(preset="ultrafast", overwrite=True))
    for item in source.items():
        if isinstance(item, SidePacket):
            before = (item.packet.stream, item.packet.pts, item.packet.time_base)
            sink.copy(item)
            assert (item.packet.stream, item.packet.pts, item.packet.time_base) == before  # for other sinks
        else:
            sink.write(covered(item))
        assert out.read_text() == "old"
    source.close()
    sink.close()
    assert times(out) == times(path)
    assert [file.name for file in folder.iterdir()] == ["out.mp4"]


def test_the_temporary_file_is_hidden_beside_the_output(info: StreamInfo, folder: Path) -> None:
    sink = open_sink(folder / "out.mp4", info, QUICK)
    (name,) = [file.name for file in folder.iterdir()]
    assert name.startswith(".out.mp4.facestream-")
    assert name.endswith(".part")
    sink.abort()
    sink.abort()
    assert list(folder.iterdir()) == []


def test_long_names_leave_room_for_the_temporary_one(clip: Clip, folder: Path) -> None:
    out = folder / ("ä" * 120 + ".mp4")
    copy(clip("plain.mp4"), out)
    assert out.exists()


def test_abort_in_the_middle_leaves_nothing(clip: Clip, folder: Path) -> None:
    source = open_source(clip("plain.mp4"))
    sink = open_sink(folder / "out.mp4", source.open(), QUICK)
    for item in list(source.items())[:40]:
        sink.copy(item) if isinstance(item, SidePacket) else sink.write(covered(item))
    source.close()
    sink.abort()
    assert list(folder.iterdir()) == []


def test_nothing_written_is_an_error_and_leaves_nothing(info: StreamInfo, folder: Path) -> None:
    sink = open_sink(folder / "out.mp4", info, QUICK)
    with pytest.raises(SinkLost, match="nothing was written"):
        sink.close()
    assert list(folder.iterdir()) == []


def test_an_output_that_appears_meanwhile_is_not_overwritten(clip: Clip, folder: Path) -> None:
    source = open_source(clip("plain.mp4"))
    sink = open_sink(folder / "out.mp4", source.open(), QUICK)
    for item in source.items():
        sink.copy(item) if isinstance(item, SidePacket) else sink.write(covered(item))
    source.close()
    (folder / "out.mp4").write_text("theirs")
    with pytest.raises(SinkLost, match="meanwhile"):
        sink.close()
    assert (folder / "out.mp4").read_text() == "theirs"
    assert [file.name for file in folder.iterdir()] == ["out.mp4"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A real write error, as on a full disk: the system refuses more than size bytes a file."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(clip: Clip, folder: Path, suffix: str) -> None:
    path = clip("plain.mp4", frames=60)
    with largest_file(40_000), pytest.raises(SinkLost, match="the file grew too large") as caught:
        copy(path, folder / f"out{suffix}", options=EncodeOptions(crf=1, preset="ultrafast"))
    assert "\n" not in str(caught.value)
    for part in folder.iterdir():  # copy() above is a bare pipe: abort() is the caller's
        assert ".facestream-" in part.name
        part.unlink()


def test_a_failed_write_can_be_aborted(clip: Clip, folder: Path) -> None:
    source = open_source(clip("plain.mp4", frames=60))
    sink = open_sink(folder / "out.mp4", source.open(), EncodeOptions(crf=1, preset="ultrafast"))
    with largest_file(40_000):
        with pytest.raises(SinkLost):
            write_all(source.items(), sink)
        sink.abort()
    source.close()
    assert list(folder.iterdir()) == []


def write_all(items: Iterator[Frame | SidePacket], sink: Sink) -> None:
    for item in items:
        sink.copy(item) if isinstance(item, SidePacket) else sink.write(covered(item))
    sink.close()


def test_a_trailer_that_fails_leaves_nothing(clip: Clip, folder: Path) -> None:
    source = open_source(clip("plain.mp4"))
    sink = open_sink(folder / "out.mp4", source.open(), QUICK)
    for item in source.items():
        sink.copy(item) if isinstance(item, SidePacket) else sink.write(covered(item))
    source.close()
    with largest_file(1000), pytest.raises(SinkLost, match="writing failed"):
        sink.close()
    assert list(folder.iterdir()) == []


def test_sound_that_ends_early_does_not_hold_back_the_pictures(clip: Clip, folder: Path) -> None:
    """The muxer sorts packets by time; what it holds for that must not grow with the file."""
    source = open_source(clip("plain.mp4", frames=6))
    info = source.open()
    items = list(source.items())
    source.close()
    sink = open_sink(folder / "out.ts", info, EncodeOptions(preset="ultrafast", crf=10))
    for item in items:
        if isinstance(item, SidePacket):
            sink.copy(item)
    (part,) = folder.iterdir()
    frame = next(item for item in items if isinstance(item, Frame))
    frame.picture.make_writable()
    noise = np.random.default_rng(0).integers(0, 256, 3000, np.uint8)
    for i in range(1200):
        np.frombuffer(frame.picture.planes[0], np.uint8)[:2000] = noise[i % 1000 :][:2000]
        frame.picture.pts = i * 2048
        sink.write(covered(frame))
    written = part.stat().st_size
    sink.close()
    assert written > 0.6 * (folder / "out.ts").stat().st_size


# Still images


def test_an_image_keeps_its_profile_and_loses_its_story(tmp_path: Path, folder: Path) -> None:
    image = Image.fromarray(picture(0).to_ndarray(format="rgb24"))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker of Cameras"
    exif.get_ifd(0x8825)[1] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(tmp_path / "in.jpg", exif=exif, icc_profile=profile, quality=95, comment=b"hidden words")
    copy(tmp_path / "in.jpg", folder / "out.jpg")
    with Image.open(folder / "out.jpg") as out:
        assert out.size == (120, 160)  # upright now
        assert b"rXYZ" in out.info["icc_profile"]
        assert len(out.getexif()) == 0
        assert "comment" not in out.info
        assert out.format == "JPEG"
        assert abs(np.asarray(out).astype(int) - np.rot90(np.asarray(image), -1)).mean() < 4
    assert b"Maker" not in (folder / "out.jpg").read_bytes()


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tiff"])
def test_an_image_keeps_its_alpha(tmp_path: Path, folder: Path, name: str) -> None:
    image = Image.new("RGBA", (40, 30), (200, 100, 50, 255))
    image.paste((0, 200, 0, 0), (0, 0, 20, 30))
    image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    copy(tmp_path / name, folder / name)
    with Image.open(folder / name) as out:
        assert out.mode == "RGBA"
        assert np.array_equal(np.asarray(out)[..., 3], np.asarray(image)[..., 3])


def test_a_gray_image_stays_gray(tmp_path: Path, folder: Path) -> None:
    Image.new("L", (40, 30), 77).save(tmp_path / "in.png")
    copy(tmp_path / "in.png", folder / "out.png")
    with Image.open(folder / "out.png") as out:
        assert out.mode == "L"
        assert (np.asarray(out) == 77).all()


def test_an_image_holds_one_frame_and_leaves_nothing_on_failure(tmp_path: Path, folder: Path) -> None:
    Image.new("RGB", (400, 300), 77).save(tmp_path / "in.png")
    source = open_source(tmp_path / "in.png")
    info = source.open()
    (frame,) = source.items()
    assert isinstance(frame, Frame)
    sink = open_sink(folder / "out.bmp", info)
    with pytest.raises(SinkLost, match="nothing was written"):
        sink.close()
    sink = open_sink(folder / "out.bmp", info)
    sink.write(covered(frame))
    with pytest.raises(SinkLost, match="one frame"):
        sink.write(covered(frame))
    sink.abort()
    sink = open_sink(folder / "out.bmp", info)
    with largest_file(1000), pytest.raises(SinkLost, match=os.strerror(errno.EFBIG)):
        sink.write(covered(frame))
    sink.abort()
    assert list(folder.iterdir()) == []
