"""From files and addresses to frames and side packets: complete and unchanged."""

from __future__ import annotations

import gc
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import pytest
from facestream.pipeline.errors import BadInput, SourceLost
from facestream.pipeline.types import Frame, SidePacket, StreamInfo
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.picture import PLANAR, duplicate, planar_format, to_planar
from facestream.pipeline.video.source import Source, open_source
from PIL import Image

from tests.conftest import picture, render, unprivileged
from tests.pack import DEMO

Clip = Callable[..., Path]
Cut = Callable[..., Path]
MS = Fraction(1, 1000)


def drain(source: Source) -> tuple[StreamInfo, list[Frame], list[SidePacket], SourceLost | None]:
    """Everything that a source gives, and what it raises at the end."""
    frames: list[Frame] = []
    packets: list[SidePacket] = []
    info = source.open()
    lost = None
    try:
        for item in source.items():
            frames.append(item) if isinstance(item, Frame) else packets.append(item)
    except SourceLost as error:
        lost = error
    source.close()
    return info, frames, packets, lost


def stored(path: Path) -> list[int]:
    """The video packets' times, in the order of presentation."""
    with av.open(str(path)) as file:
        return sorted(packet.pts for packet in file.demux(video=0) if packet.pts is not None)


def rejected(path: str | Path, message: str) -> None:
    source = open_source(path, SourceOptions(open_timeout_s=0.5, read_timeout_s=0.5))
    with pytest.raises(BadInput, match=message) as caught:
        source.open()
    source.close()
    text = str(caught.value)
    assert "\n" not in text
    assert "secret" not in text
    assert Path(str(path)).name.rpartition("@")[2] in text


@pytest.mark.parametrize("rate", [30, Fraction(30000, 1001)])
def test_every_frame_comes_once_in_order_with_its_time(clip: Clip, rate: Fraction) -> None:
    path = clip("plain.mp4", rate=rate, options={"preset": "veryfast"})  # with B-frames
    info, frames, packets, lost = drain(open_source(path))
    assert lost is None
    assert [frame.index for frame in frames] == list(range(30))
    assert [frame.pts for frame in frames] == stored(path)
    assert {frame.time_base for frame in frames} == {info.time_base}
    assert [frame.picture.pts for frame in frames] == [frame.pts for frame in frames]
    assert {frame.picture.time_base for frame in frames} == {info.time_base}
    assert frames[15].time_s == pytest.approx(float(15 / Fraction(rate)), abs=1e-6)
    assert (info.width, info.height, info.rotation, info.live, info.frames) == (160, 120, 0, False, 30)
    assert info.rate == rate
    assert len(packets) > 40


def test_frames_show_what_was_rendered(clip: Clip) -> None:
    _, frames, _, _ = drain(open_source(clip("plain.mp4", options={"preset": "veryfast"})))
    for index in (0, 11, 29):
        want = picture(index).to_ndarray().astype(int)
        assert abs(frames[index].picture.to_ndarray().astype(int) - want).mean() < 4


def test_varying_times_are_kept(clip: Clip) -> None:
    times = [0, 33, 80, 100, 200, 233, 500, 1100]
    path = clip("varying.mkv", times=times, time_base=MS, rate=15)
    _, frames, _, lost = drain(open_source(path))
    assert lost is None
    assert [frame.pts for frame in frames] == times


def test_a_start_other_than_zero_is_kept(clip: Clip) -> None:
    path = clip("late.ts", time_base=Fraction(1, 90000), start=126000)
    _, frames, packets, lost = drain(open_source(path))
    assert lost is None
    assert [frame.pts for frame in frames] == [126000 + 3000 * i for i in range(30)]
    assert min(packet.packet.pts or 0 for packet in packets) == 126000 - 1920  # the encoder's priming


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotation_is_read_and_turns_the_displayed_size(clip: Clip, turn: int) -> None:
    info, frames, _, _ = drain(open_source(clip(f"turned{turn}.mp4", rotation=turn, frames=5)))
    assert {frame.rotation for frame in frames} == {turn} == {info.rotation}
    assert (info.width, info.height) == ((160, 120) if turn == 180 else (120, 160)) == frames[0].size
    assert frames[0].picture.width == 160  # the picture itself stays as it is stored


def test_side_packets_come_whole_and_name_their_stream(clip: Clip) -> None:
    path = clip("tracks.mkv", audio=("eng", "fra"), subtitles="subrip")
    info, _, packets, _ = drain(open_source(path))
    assert [(side.type, side.metadata["language"]) for side in info.side_streams] == [
        ("audio", "eng"),
        ("audio", "fra"),
        ("subtitle", "deu"),
    ]
    for position, side in enumerate(info.side_streams, start=1):
        with av.open(str(path)) as file:
            want = [(p.pts, bytes(p)) for p in file.demux(file.streams[position]) if p.size]
        assert want
        assert [(p.packet.pts, bytes(p.packet)) for p in packets if p.packet.stream is side] == want


def test_sound_comes_beside_the_frames_not_after_them(clip: Clip) -> None:
    source = open_source(clip("plain.mp4", frames=90))
    source.open()
    kinds = [isinstance(item, Frame) for item in source.items()]
    source.close()
    middle = kinds[len(kinds) // 4 : -len(kinds) // 4]
    assert True in middle
    assert False in middle


def test_descriptions_outlive_the_source(clip: Clip) -> None:
    info, _, _, _ = drain(open_source(clip("tracks.mkv", audio=("eng", "fra"), subtitles="subrip")))
    assert info.video is not None
    assert info.video.codec_context.codec.canonical_name == "h264"
    assert [side.codec_context.codec.canonical_name for side in info.side_streams] == ["aac", "aac", "subrip"]


def test_a_cover_picture_is_not_the_video(tmp_path: Path, clip: Clip) -> None:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as out:
        audio = out.add_stream("aac", rate=48000)
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 160, 120, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        for at in range(0, 9600, 1024):
            sound = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            sound.sample_rate, sound.pts = 48000, at
            out.mux(audio.encode(sound))
        image = picture(0, pix_fmt="yuvj420p")
        image.pts = 0
        out.mux(cover.encode(image))
        out.mux(cover.encode(None))
        out.mux(audio.encode(None))
    rejected(path, "no video stream")


def test_ten_bits_stay_ten_bits(clip: Clip) -> None:
    path = clip("deep.mp4", codec="libx265", pix_fmt="yuv420p10le", frames=5)
    _, frames, _, _ = drain(open_source(path))
    assert {frame.picture.format.name for frame in frames} == {"yuv420p10le"}


def test_an_odd_size_is_kept(clip: Clip) -> None:
    path = clip("odd.webm", codec="libvpx-vp9", size=(161, 121), audio=(), frames=4, options={"cpu-used": "8"})
    info, frames, _, lost = drain(open_source(path))
    assert lost is None
    assert (info.width, info.height) == (161, 121) == frames[0].size
    assert len(frames) == 4


def test_an_avi_without_presentation_times_gets_even_ones(clip: Clip) -> None:
    path = clip("old.avi", options={"preset": "veryfast"}, audio=())
    _, frames, _, lost = drain(open_source(path))
    assert lost is None
    steps = {(b.pts or 0) - (a.pts or 0) for a, b in pairwise(frames)}
    assert len(frames) == 30
    assert frames[0].pts == 0
    assert len(steps) == 1
    assert frames[29].time_s == pytest.approx(29 / 30, abs=0.01)


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ("rgb24", "gbrp"),
        ("bgra", "gbrp"),
        ("pal8", "gbrp"),
        ("rgb48le", "yuv444p12le"),
        ("nv21", "yuv420p"),
        ("yuyv422", "yuv422p"),
        ("uyvy422", "yuv422p"),
        ("nv16", "yuv422p"),
        ("p010le", "yuv420p10le"),
        ("yuva420p", "yuv420p"),
        ("yuv420p16le", "yuv420p12le"),
        ("yuv420p10be", "yuv420p10le"),
        ("yuv440p", "yuv444p"),
        ("ya8", "gray"),
        ("monob", "gray"),
        ("gray10le", "yuv420p10le"),
        ("nv12", "nv12"),
        ("yuvj422p", "yuvj422p"),
    ],
)
def test_other_formats_become_the_nearest_planar_one(given: str, want: str) -> None:
    assert planar_format(given) == want
    assert want in PLANAR


def test_conversion_keeps_picture_times_and_tags() -> None:
    packed = picture(3, pix_fmt="yuyv422")
    packed.pts, packed.time_base = 7, MS
    packed.color_range, packed.color_primaries, packed.color_trc, packed.colorspace = 2, 9, 16, 9
    planar = to_planar(packed)
    assert planar.format.name == "yuv422p"
    assert (planar.pts, planar.time_base) == (7, MS)
    assert (planar.color_range, planar.color_primaries, planar.color_trc, planar.colorspace) == (2, 9, 16, 9)
    luma = np.asarray(packed.to_ndarray())[..., 0]
    assert np.array_equal(np.frombuffer(planar.planes[0], np.uint8).reshape(120, -1)[:, :160], luma)


def test_planar_pictures_pass_untouched_and_can_be_duplicated() -> None:
    for name in sorted(PLANAR):
        original = picture(1, (42, 34), name)
        original.pts, original.time_base = 5, MS
        assert to_planar(original) is original
        copy = duplicate(original)
        assert (copy.pts, copy.time_base, copy.format.name) == (5, MS, name)
        for one, two in zip(original.planes, copy.planes, strict=True):
            assert one.buffer_ptr != two.buffer_ptr
            width = one.width * (2 if name.startswith(("nv12",)) and one.width < 42 else 1)
            width *= 2 if "le" in name else 1
            rows = [np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height, :width] for p in (one, two)]
            assert np.array_equal(*rows), name


def test_gif_is_a_video(clip: Clip) -> None:
    path = clip("moving.gif", codec="gif", pix_fmt="rgb8", audio=(), frames=6, rate=10)
    _, frames, _, lost = drain(open_source(path))
    assert lost is None
    assert len(frames) == 6
    assert frames[0].picture.format.name == "gbrp"


# Files that are not what they should be


def test_what_is_no_video_says_so(tmp_path: Path, clip: Clip) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("This is not a video.\n" * 50)
    (tmp_path / "notes.txt").write_text("This is not a video.\n" * 50)
    rejected(tmp_path / "missing.mp4", "no such file")
    rejected(tmp_path / "empty.mp4", "the file is empty")
    rejected(tmp_path / "text.mp4", "not a video, or damaged")
    rejected(tmp_path / "notes.txt", "text, not a video")
    rejected(clip("sound.m4a", video=False), "no video stream")
    with pytest.raises(BadInput, match="it is a folder"):
        open_source(tmp_path)


def test_no_permission_says_so(tmp_path: Path, clip: Clip) -> None:
    path = tmp_path / "closed.mp4"
    path.write_bytes(clip("plain.mp4").read_bytes())
    path.chmod(0)
    with unprivileged(tmp_path):
        rejected(path, "no permission to read it")


@pytest.mark.parametrize(
    ("name", "muxer"),
    [("front.mp4", {"movflags": "+faststart"}), ("parts.mp4", {"movflags": "frag_keyframe+empty_moov"}), ("m.mkv", {})],
)
def test_a_file_cut_off_gives_what_it_has_and_then_says_so(clip: Clip, cut: Cut, name: str, muxer: dict) -> None:
    path = clip(name, frames=60, muxer=muxer, options={"g": "12", "preset": "veryfast"})
    short = cut(path, 0.6)
    _, frames, _, lost = drain(open_source(short))
    assert 20 < len(frames) < 55
    want = stored(path)[: len(frames)]
    assert (
        sum(frame.pts == at for frame, at in zip(frames, want, strict=True)) >= len(frames) - 3
    )  # B-frames at the cut
    assert lost is not None
    assert "s are missing at the end" in lost.what
    assert lost.exit_code == 1
    assert short.name in str(lost)


def test_a_file_that_ends_between_two_packets_is_noticed_too(clip: Clip, tmp_path: Path) -> None:
    """FFmpeg ends such a file without a word."""
    path = clip("front.mp4", frames=60, muxer={"movflags": "+faststart"})
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux() if packet.size]
        end = max((p.pos or 0) + p.size for p in packets if (p.pos or 0) < path.stat().st_size * 0.6)
    short = tmp_path / "short.mp4"
    short.write_bytes(path.read_bytes()[:end])
    _, frames, _, lost = drain(open_source(short))
    assert lost is not None
    assert "missing at the end" in lost.what
    assert "could not be decoded" not in lost.what
    assert frames


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_lose_no_frame_of_a_cut_file(clip: Clip, cut: Cut, threads: int) -> None:
    path = cut(clip("front.mp4", frames=60, muxer={"movflags": "+faststart"}, options={"preset": "veryfast"}), 0.6)
    with av.open(str(path)) as file:  # one thread, no flush that could fail: all that there is
        file.streams.video[0].thread_type = "SLICE"
        want = []
        for packet in file.demux(video=0):
            with suppress(av.FFmpegError):
                want += [frame.pts for frame in packet.decode()]
    _, frames, _, _ = drain(open_source(path, SourceOptions(threads=threads)))
    assert [frame.pts for frame in frames] == want


def test_threads_lose_no_frame_before_a_broken_last_one(clip: Clip, tmp_path: Path) -> None:
    """A threaded decoder still holds some then, and PyAV lets go of them without a word."""
    path = clip("ordered.mp4", frames=60, options={"preset": "veryfast"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        last = [packet for packet in file.demux(video=0) if packet.size][-1]
        data[last.pos : last.pos + last.size] = b"\xff" * last.size
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    for threads in (1, 4):
        _, frames, _, lost = drain(open_source(broken, SourceOptions(threads=threads)))
        assert [frame.pts for frame in frames] == [at for at in stored(path) if at != last.pts]
        assert lost is not None
        assert "1 frame could not be decoded" in lost.what


def test_a_trimmed_file_is_whole(clip: Clip, tmp_path: Path) -> None:
    """Editors leave the pictures before the cut in the file and hide them with an edit list."""
    path = tmp_path / "trimmed.mp4"
    with av.open(str(clip("plain.mp4", frames=60))) as file, av.open(str(path), "w") as out:
        film = out.add_stream_from_template(file.streams.video[0], opaque=True)
        for packet in file.demux(video=0):
            if packet.size and packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts = packet.pts - 512 * 20, packet.dts - 512 * 20
                packet.stream = film
                out.mux(packet)
    with av.open(str(path)) as file:
        assert file.streams.video[0].frames == 60
    _, frames, _, lost = drain(open_source(path))
    assert [frame.pts for frame in frames] == [512 * i for i in range(40)]
    assert lost is None


def test_a_file_without_its_index_is_refused(clip: Clip, cut: Cut) -> None:
    rejected(cut(clip("plain.mp4"), 0.6), "not a video, or damaged")  # the index comes last


def test_a_file_from_which_nothing_decodes_is_refused(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "hollow.mp4"
    data = bytearray(clip("front.mp4", frames=60, muxer={"movflags": "+faststart"}).read_bytes())
    at = data.index(b"mdat") + 4
    data[at:] = bytes(len(data) - at)
    path.write_bytes(data)
    rejected(path, "no frame of it can be decoded")


def test_damage_in_the_middle_does_not_stop_the_rest(clip: Clip, tmp_path: Path) -> None:
    path = clip("groups.mp4", frames=60, options={"g": "10"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
        for packet in packets[23:26]:
            data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    _, frames, _, lost = drain(open_source(broken))
    assert len(frames) == 57
    assert frames[-1].pts == stored(path)[-1]
    assert lost is not None
    assert "3 frames could not be decoded" in lost.what
    assert "missing" not in lost.what


def test_close_in_the_middle_ends_the_items(clip: Clip) -> None:
    source = open_source(clip("plain.mp4"))
    source.open()
    items = source.items()
    next(items)
    source.close()
    source.close()
    assert not [item for item in items if isinstance(item, Frame) and item.index > 0]


# Live sources


def test_a_graph_is_a_source() -> None:
    info, frames, _, lost = drain(open_source("lavfi:testsrc2=size=64x48:rate=10:duration=0.5"))
    assert lost is None
    assert len(frames) == 5
    assert (info.width, info.height, info.live) == (64, 48, False)
    live = open_source("lavfi:testsrc2=size=64x48:rate=50:duration=0.1,realtime")
    assert drain(live)[0].live
    rejected("lavfi:nosuchfilter=1", "cannot build this graph")


def test_a_missing_camera_says_so() -> None:
    rejected("/dev/video99", "no such camera")


def test_a_port_that_nobody_listens_on_refuses() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rejected(f"rtsp://user:secret@127.0.0.1:{port}/live", "refused the connection")
    rejected(f"http://user:secret@127.0.0.1:{port}/live", "refused the connection")


def test_a_server_that_never_answers_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        rejected(f"http://user:secret@127.0.0.1:{port}/live", "did not answer in time|no video")
        rejected(f"rtsp://user:secret@127.0.0.1:{port}/live", "did not answer in time|no video")


class Web(http.server.BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        code = {"/locked": 401, "/forbidden": 403, "/broken": 500}.get(
            self.path, 200 if self.path in self.files else 404
        )
        self.send_response(code)
        body = self.files.get(self.path, b"")
        if not self.path.startswith("/endless"):
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def web(clip: Clip) -> Iterator[str]:
    Web.files = {
        "/clip.mp4": clip("front.mp4", frames=60, muxer={"movflags": "+faststart"}).read_bytes(),
        "/page": b"<html>hello</html>" * 100,
        "/endless.mjpg": clip("camera.mjpg", codec="mjpeg", pix_fmt="yuvj420p", audio=(), frames=20).read_bytes() * 20,
    }
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://user:secret@127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_video_on_a_web_server_is_a_file(web: str) -> None:
    info, frames, packets, lost = drain(open_source(f"{web}/clip.mp4"))
    assert lost is None
    assert not info.live
    assert len(frames) == 60
    assert packets
    assert "secret" not in info.source


def test_an_endless_stream_that_ends_was_lost(web: str) -> None:
    info, frames, _, lost = drain(open_source(f"{web}/endless.mjpg"))
    assert info.live
    assert len(frames) >= 399
    assert lost is not None
    assert "broke off" in lost.what
    assert "secret" not in str(lost)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/locked", "401"),
        ("/forbidden", "403"),
        ("/missing", "no such path.*404"),
        ("/broken", "5xx"),
        ("/page", "no video"),
    ],
)
def test_what_a_web_server_says_is_passed_on(web: str, path: str, message: str) -> None:
    rejected(web + path, message)


# Still images


def test_a_still_image_is_one_upright_frame(tmp_path: Path) -> None:
    image = Image.fromarray(picture(0, (64, 48)).to_ndarray(format="rgb24"))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show
    image.save(tmp_path / "phone.jpg", exif=exif, quality=95)
    info, frames, packets, lost = drain(open_source(tmp_path / "phone.jpg"))
    assert lost is None
    assert not packets
    assert (info.width, info.height, info.frames, info.live, info.rotation) == (48, 64, 1, False, 0)
    assert (frames[0].index, frames[0].pts, frames[0].size) == (0, 0, (48, 64))
    assert frames[0].picture.format.name == "gbrp"
    shown = frames[0].picture.to_ndarray(format="rgb24").astype(int)
    assert abs(shown - np.rot90(np.asarray(image), -1)).mean() < 6


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp", "a.tiff", "a.jpeg"])
def test_every_image_format_is_read(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (20, 10), (200, 30, 60)).save(tmp_path / name)
    _, frames, _, _ = drain(open_source(tmp_path / name))
    colour = frames[0].picture.to_ndarray(format="rgb24").reshape(-1, 3).mean(0)
    assert colour == pytest.approx((200, 30, 60), abs=6)


def test_a_gray_image_stays_gray_whatever_its_depth(tmp_path: Path) -> None:
    Image.new("L", (20, 10), 99).save(tmp_path / "gray.png")
    Image.fromarray(np.full((10, 20), 99 * 257, np.uint16)).save(tmp_path / "deep.png")
    for name in ("gray.png", "deep.png"):
        _, frames, _, _ = drain(open_source(tmp_path / name))
        assert frames[0].picture.format.name == "gray"
        assert (frames[0].picture.to_ndarray() == 99).all()


def test_images_that_cannot_be_used_say_so(tmp_path: Path, cut: Cut) -> None:
    Image.fromarray(picture(0).to_ndarray(format="rgb24")).save(tmp_path / "whole.jpg")
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    rejected(cut(tmp_path / "whole.jpg", 0.5), "cannot be decoded")
    rejected(tmp_path / "moving.webp", "several pictures")
    rejected(tmp_path / "empty.png", "the file is empty")
    rejected(tmp_path / "text.png", "not a picture")
    rejected(tmp_path / "missing.png", "no such file")


def test_render_itself_is_sound(tmp_path: Path) -> None:
    """The other tests stand on it."""
    path = render(tmp_path / "x.mp4", frames=5)
    assert stored(path) == [512 * i for i in range(5)]


def test_sound_that_outlasts_the_pictures_is_no_cut(tmp_path: Path) -> None:
    """Matroska's reader takes the file's duration for each track's."""
    path = render(tmp_path / "brief.mkv", frames=6, size=(96, 64))  # with half a second of sound
    source = open_source(path)
    source.open()
    assert len([item for item in source.items() if isinstance(item, Frame)]) == 6  # and nothing is raised
    source.close()


def test_decoded_pictures_are_freed_without_garbage_collection() -> None:
    """Cycles would keep some hundred pictures alive until a collection: 90 MB at 720p."""
    source = open_source(str(DEMO), SourceOptions())
    source.open()
    gc.collect()
    gc.disable()
    try:
        for count, _ in enumerate(item for item in source.items() if isinstance(item, Frame)):
            if count == 40:
                break
        alive = sum(isinstance(item, av.VideoFrame) for item in gc.get_objects())
    finally:
        gc.enable()
        source.close()
    assert alive < 12


def test_a_stream_of_an_unknown_codec_is_named_in_plain_words(tmp_path: Path) -> None:
    path = render(tmp_path / "in.mp4", frames=5)
    path.write_bytes(path.read_bytes().replace(b"mp4a", b"zzzz").replace(b"esds", b"free"))
    info, frames, _, _ = drain(open_source(path))
    assert len(frames) == 5
    assert info.left_out == ("an audio stream (#1)",)
