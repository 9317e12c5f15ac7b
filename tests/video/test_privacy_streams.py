"""Nothing but covered pictures, sound and subtitles gets out: markers inside the streams themselves, in further
streams, and in the boxes of an MP4's description."""

from __future__ import annotations

import base64
import io
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type as SideDataType
from facestream.pipeline.cli.app import main
from facestream.pipeline.video.codec_headers import without_tags
from facestream.pipeline.video.picture import side_data
from facestream.pipeline.video.source import open_source
from PIL import Image

from tests.conftest import picture, render
from tests.markers import MARK, PLACE, WORD, leftovers

MARKED = WORD.encode() + MARK
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def sei(codec: str, kind: int, data: bytes) -> bytes:
    """A NAL unit with one SEI message (H.264, 7.3.2.3.1; HEVC, 7.3.5), with its start code."""
    body = b"\xff" * (kind // 255) + bytes([kind % 255]) + b"\xff" * (len(data) // 255) + bytes([len(data) % 255])
    unit = (b"\x06" if codec == "h264" else b"\x4e\x01") + body + data + b"\x80"
    return b"\0\0\0\1" + re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\0\0\3", unit)


def captions(text: bytes) -> bytes:
    """CEA-608 characters with parity as ATSC A/53 captions in a T.35 message."""
    odd = bytes(value | 0x80 * (value.bit_count() % 2 == 0) for value in text.ljust(len(text) + len(text) % 2))
    pairs = b"".join(b"\xfc" + odd[i : i + 2] for i in range(0, len(odd), 2))
    return b"\xb5\x00\x31GA94\x03" + bytes([0x40 | len(pairs) // 3, 0xFF]) + pairs + b"\xff"


def with_units(path: Path, codec: str, units: bytes, turn: int = 0) -> Path:
    """A raw H.264 or HEVC stream with these NAL units in front of each slice, as a file of the path's suffix. turn:
    degrees by which a player rotates it."""
    options = {"preset": "ultrafast", "bf": "0"} | ({"x265-params": "log-level=none"} if codec == "hevc" else {})
    raw = path.with_suffix(f".{codec}")
    encoder = {"h264": "libx264", "hevc": "libx265"}[codec]
    render(raw, frames=8, codec=encoder, audio=(), options=options)
    made = b""
    for unit in re.split(rb"\x00?\x00\x00\x01", raw.read_bytes())[1:]:
        is_slice = unit[0] & 31 in range(1, 6) if codec == "h264" else unit[0] >> 1 & 63 < 32
        made += (units if is_slice else b"") + b"\0\0\0\1" + unit
    raw.write_bytes(made)
    if path.suffix == raw.suffix:
        return raw
    with av.open(str(raw)) as source, av.open(str(path), "w") as out:
        film = out.add_stream_from_template(source.streams.video[0])
        if turn:
            film.set_display_rotation(turn)
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size:
                packet.stream = film
                packet.pts = packet.dts = number
                packet.time_base = Fraction(1, 30)
                out.mux(packet)
    return path


def planted_units(codec: str, suffix: str, folder: Path) -> Path:
    """Unregistered user data, a T.35 message of an unknown maker, filler, and a kind of unit that is nobody's."""
    words = bytes(range(16)) + MARKED
    units = sei(codec, 5, words) + sei(codec, 4, b"\xb5\x77\x77" + MARKED) + sei(codec, 200, MARKED)
    odd = b"\x1f" if codec == "h264" else b"\x7e\x01"
    units += b"\0\0\0\1" + odd + re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\0\0\3", MARKED) + b"\x80"
    return with_units(folder / f"in{suffix}", codec, units)


def planted_user_data(codec: str, suffix: str, folder: Path) -> Path:
    """User data of MPEG-1, 2 and 4: behind each picture's header."""
    path = folder / f"plain{suffix}"
    render(path, frames=8, codec=codec, audio=(), options={"bf": "0", "b": "300000"})
    target = folder / f"in{suffix}"
    start = b"\0\0\1\xb6" if codec == "mpeg4" else b"\0\0\1\0"
    user = b"\0\0\1\xb2" + WORD.encode() + MARK.replace(b"\0\0", b"\1\1")
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        film = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                data = bytes(packet).replace(start, user + start)
                made = av.Packet(data)
                made.stream, made.time_base = film, packet.time_base
                made.pts, made.dts, made.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
                out.mux(made)
    return target


def motion_jpeg(path: Path, exif: Image.Exif, comment: bytes = b"") -> Path:
    """Each frame a JPEG with this EXIF and comment."""
    with av.open(str(path), "w") as out:
        film = out.add_stream("mjpeg", rate=30)
        assert isinstance(film, av.VideoStream)
        film.width, film.height, film.pix_fmt = 160, 120, "yuvj420p"
        for number in range(6):
            file = io.BytesIO()
            picture(number).to_image().save(file, "JPEG", exif=exif, comment=comment)
            made: Any = av.Packet(file.getvalue())
            made.stream, made.time_base = film, Fraction(1, 30)
            made.pts = made.dts = number
            made.is_keyframe = True
            out.mux(made)
    return path


def planted_motion_jpeg(suffix: str, folder: Path) -> Path:
    exif = Image.Exif()
    exif[0x010E] = WORD + PLACE
    return motion_jpeg(folder / f"in{suffix}", exif, MARKED)


def planted_gif(folder: Path) -> Path:
    path = render(folder / "in.gif", frames=4, codec="gif", pix_fmt="rgb8", audio=())
    data = path.read_bytes()
    blocks = b"".join(bytes([len(MARKED[i : i + 255])]) + MARKED[i : i + 255] for i in range(0, len(MARKED), 255))
    comment = b"\x21\xfe" + blocks + b"\0"
    xmp = b"\x21\xff\x0bXMP DataXMP" + MARKED.replace(b"\0", b"\1") + bytes([1, *range(255, -1, -1), 0])
    at = data.index(b"\x21\xf9")
    path.write_bytes(data[:at] + comment + xmp + data[at:-1] + comment + b"\x3b" + MARKED)
    return path


def planted_second_film(suffix: str, folder: Path) -> Path:
    """A second video stream whose pictures are the marker picture, and a third, encoded one that says who it shows."""
    path = folder / f"in{suffix}"
    with av.open(str(path), "w") as out:
        film, more = (out.add_stream("libx264", rate=30, options={"preset": "ultrafast"}) for _ in range(2))
        stills = out.add_stream("mjpeg", rate=30)
        for stream in (film, more, stills):
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height = (320, 240) if stream is film else (160, 120)
            stream.pix_fmt = "yuvj420p" if stream is stills else "yuv420p"
        stills.width = stills.height = 40
        more.metadata.update({"title": WORD, "comment": WORD, "handler_name": WORD})
        for number in range(8):
            for stream, size in ((film, (320, 240)), (more, (160, 120))):
                frame = picture(number, size)
                frame.pts, frame.time_base = number, Fraction(1, 30)
                out.mux(stream.encode(frame))
            still = av.Packet(MARK)
            still.stream, still.time_base = stills, Fraction(1, 30)
            still.pts = still.dts = number
            still.is_keyframe = True
            out.mux(still)
        out.mux(film.encode(None))
        out.mux(more.encode(None))
    return path


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(data), kind) + data


def planted_description(suffix: str, folder: Path) -> Path:
    """All boxes of an MP4's description that hold words and pictures: user data of the file and of its tracks, iTunes'
    list, QuickTime's keys, XMP, chapters, free space."""
    path = render(folder / f"in{suffix}", frames=6)
    data = path.read_bytes()
    at = data.index(b"moov") - 4
    size = struct.unpack(">I", data[at : at + 4])[0]
    assert at + size == len(data), "the description stands behind the pictures, whose places stay"
    words = WORD.encode() + PLACE.encode()
    short = struct.pack(">HH", len(words), 0x15C7) + words
    name = box(b"data", struct.pack(">II", 1, 0) + words)
    cover = box(b"data", struct.pack(">II", 13, 0) + MARK)
    meta_head = box(b"hdlr", bytes(8) + b"mdir" + bytes(13))
    items = meta_head + box(b"ilst", box(b"\xa9nam", name) + box(b"covr", cover))
    listed = box(b"meta", bytes(4) + items)
    key = b"com.apple.quicktime.location.ISO6709"
    keys = box(b"keys", struct.pack(">II", 0, 1) + box(b"mdta", key))
    quicktime = box(b"meta", box(b"hdlr", bytes(8) + b"mdta" + bytes(13)) + keys + box(b"ilst", box(b"\0\0\0\1", name)))
    nero = box(b"chpl", bytes([1, 0, 0, 0, 0, 0, 0, 0, 1]) + bytes(8) + bytes([len(words)]) + words)
    xmp = box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + b"<x>" + MARKED + b"</x>")
    user = b"".join(box(kind, short) for kind in (b"\xa9xyz", b"\xa9nam", b"\xa9cmt", b"\xa9mak", b"\xa9day"))
    user += box(b"loci", bytes(4) + b"\x15\xc7" + words + bytes(20)) + box(b"GoPr", MARKED) + box(b"name", words)
    user += box(b"thmb", MARK) + box(b"XMP_", MARKED) + box(b"Xtra", MARKED)
    user = box(b"udta", user + listed + nero)
    body = data[at + 8 :]
    track = body.index(b"trak") - 4
    track_size = struct.unpack(">I", body[track : track + 4])[0]
    grown = box(b"trak", body[track + 8 : track + track_size] + user + box(b"meta", bytes(4) + items))
    body = body[:track] + grown + body[track + track_size :]
    extra = user + quicktime + xmp + box(b"free", MARKED) + box(b"skip", MARKED) + box(b"iods", bytes(4) + MARKED)
    top = xmp + box(b"free", MARKED) + box(b"pdin", MARKED) + box(b"udta", user)
    path.write_bytes(data[:at] + box(b"moov", body + extra) + top)
    return path


def planted_flight_log(suffix: str, folder: Path) -> Path:
    """Subtitles from the first to the last second, each of which says where the camera was."""
    path = folder / f"in{suffix}"
    codec = {".mp4": "mov_text", ".mov": "mov_text", ".mkv": "subrip"}[suffix]
    film = render(folder / f"film{suffix}", frames=60)
    with av.open(str(film)) as source, av.open(str(path), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        texts = out.add_mux_stream(codec)
        texts.time_base = Fraction(1, 1000)
        for at in range(0, 2000, 33):
            text = f"{WORD} [latitude: 48.1374{at:04d}] [longitude: 11.5755{at:04d}] {PLACE}".encode()
            line: Any = av.Packet(struct.pack(">H", len(text)) + text if codec == "mov_text" else text)
            line.stream, line.time_base = texts, Fraction(1, 1000)
            line.pts = line.dts = at
            line.duration = 33
            out.mux(line)
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return path


def sound_tag() -> bytes:
    frames = b"APIC" + struct.pack(">IH", len(MARK) + 14, 0) + b"\0image/jpeg\0\3\0" + MARK
    frames += b"TIT2" + struct.pack(">IH", 1 + len(WORD), 0) + b"\0" + WORD.encode()
    return b"ID3\3\0\0" + bytes(len(frames) >> shift & 127 for shift in (21, 14, 7, 0)) + frames


def planted_sound_tags(suffix: str, folder: Path) -> Path:
    """MP3 sound whose packets have an ID3 tag with a cover before their frames and one behind them."""
    film = render(folder / f"film{suffix}", frames=20, audio_codec="mp3")
    path = folder / f"in{suffix}"
    last = b"TAG" + WORD.encode().ljust(125, b"\0")
    with av.open(str(film)) as source, av.open(str(path), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            made = packet
            if packet.stream.type == "audio":
                made = av.Packet(sound_tag() + bytes(packet) + last)
                made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
                made.duration, made.is_keyframe = packet.duration, True
            made.stream = streams[packet.stream.index]
            out.mux(made)
    return path


PLANTED: dict[str, Callable[[Path], Path]] = {}
for _codec, _suffixes in (("h264", (".h264", ".mp4", ".ts", ".avi")), ("hevc", (".hevc", ".mov", ".mkv"))):
    for _suffix in _suffixes:
        PLANTED[f"SEI{_suffix}"] = lambda folder, c=_codec, s=_suffix: planted_units(c, s, folder)  # type: ignore[misc]
for _codec, _suffix in (("mpeg2video", ".mpg"), ("mpeg1video", ".ts"), ("mpeg4", ".avi"), ("mpeg2video", ".mkv")):
    PLANTED[f"user data {_codec}{_suffix}"] = lambda folder, c=_codec, s=_suffix: planted_user_data(c, s, folder)  # type: ignore[misc]
for _suffix in (".avi", ".mov", ".mkv"):
    PLANTED[f"JPEG frames{_suffix}"] = lambda folder, s=_suffix: planted_motion_jpeg(s, folder)  # type: ignore[misc]
for _suffix in (".mkv", ".mp4", ".mov", ".avi"):
    PLANTED[f"second film{_suffix}"] = lambda folder, s=_suffix: planted_second_film(s, folder)  # type: ignore[misc]
for _suffix in (".mp4", ".mov"):
    PLANTED[f"description{_suffix}"] = lambda folder, s=_suffix: planted_description(s, folder)  # type: ignore[misc]
for _suffix in (".mp4", ".mov", ".mkv"):
    PLANTED[f"flight log{_suffix}"] = lambda folder, s=_suffix: planted_flight_log(s, folder)  # type: ignore[misc]
for _suffix in (".mp4", ".avi", ".mkv"):
    PLANTED[f"sound tags{_suffix}"] = lambda folder, s=_suffix: planted_sound_tags(s, folder)  # type: ignore[misc]
PLANTED["GIF"] = planted_gif


def swept(path: Path, *suffixes: str) -> None:
    """Nothing is left in outputs of these kinds; with --keep-metadata, no picture."""
    assert leftovers(path.read_bytes()), "it was planted"
    for suffix in suffixes:
        for words in ([], ["--keep-metadata"]):
            out = path.with_name(f"out{suffix}")
            assert main(["anonymize", str(path), "-o", str(out), "--overwrite", *words]) in (0, 1)
            found = leftovers(out.read_bytes())
            assert found == [] if not words else "the picture" not in found


@pytest.mark.parametrize("name", PLANTED)
def test_streams_and_boxes_leave_nothing_behind(tmp_path: Path, name: str) -> None:
    swept(PLANTED[name](tmp_path), ".gif" if name == "GIF" else ".mkv")


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".ts", ".avi", ".flv", ".webm", ".gif"])
def test_streams_and_boxes_leave_nothing_behind_in_any_container(tmp_path: Path, name: str, suffix: str) -> None:
    swept(PLANTED[name](tmp_path), suffix)


def commented(codec: str, header: bytes) -> bytes:
    """A codec's private data with comments and a cover in it, as programs write it that copy Ogg's header packets."""
    block = struct.pack(">II", 3, 10) + b"image/jpeg" + struct.pack(">6I", 0, 40, 40, 24, 0, len(MARK)) + MARK
    packed = base64.b64encode(block).decode()
    lines = [f"TITLE={WORD}", f"LOCATION={PLACE}", f"METADATA_BLOCK_PICTURE={packed}"]
    words = struct.pack("<II", 0, len(lines)) + b"".join(struct.pack("<I", len(line)) + line.encode() for line in lines)
    if codec == "opus":
        return header + b"OpusTags" + words
    ends = [0]
    at = 1
    for _ in range(header[0]):
        ends.append(ends[-1])
        while header[at] == 255:
            ends[-1] += 255
            at += 1
        ends[-1] += header[at]
        at += 1
    first = header[at : at + ends[1]]
    setup = header[at + ends[2] :]
    comments = b"\x03vorbis" + words + b"\x01"
    lacing = b"".join(b"\xff" * (len(part) // 255) + bytes([len(part) % 255]) for part in (first, comments))
    return b"\x02" + lacing + first + comments + setup


@needs_ffmpeg
@pytest.mark.parametrize("sound", ["libvorbis", "libspeex", "flac", "libopus"])
@pytest.mark.parametrize("suffix", [".ogv", ".mkv"])
def test_real_files_with_xiphs_codecs_leave_nothing_behind(tmp_path: Path, suffix: str, sound: str) -> None:
    """Real sound, whose tags, and in Matroska also the codec's private data, hold words, a place and a cover."""
    path = tmp_path / f"in{suffix}"
    tags = [f"title={WORD}", f"LOCATION={PLACE}", f"METADATA_BLOCK_PICTURE={base64.b64encode(MARK).decode()}"]
    words = [part for tag in tags for part in ("-metadata", tag, "-metadata:s:a", tag)]
    films = ["-c:v", "libtheora"] if suffix == ".ogv" else ["-c:v", "libx264", "-preset", "ultrafast"]
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=s=160x120:d=1:r=15", "-f", "lavfi"]
    command += ["-i", "sine=frequency=300:duration=1", *films, "-ar", "16000", "-c:a", sound, *words, str(path)]
    subprocess.run(command, check=True)
    if suffix == ".mkv" and sound in ("libvorbis", "libopus"):  # of the others FFmpeg reads what it needs
        plain = path.rename(tmp_path / "plain.mkv")
        with av.open(str(plain)) as source, av.open(str(path), "w") as out:
            streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
            context = source.streams.audio[0].codec_context
            made: Any = streams[source.streams.audio[0].index].codec_context
            made.extradata = commented(sound.removeprefix("lib"), context.extradata or b"")
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
    swept(path, ".mkv", ".webm")
    with av.open(str(path.with_name("out.mkv"))) as file:
        samples: Any = [frame.to_ndarray() for frame in file.decode(audio=0)]
    waves = np.concatenate([part.reshape(-1) for part in samples])
    assert len(waves) > 14000
    assert np.abs(waves).max() > 0.01


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_closed_captions_are_subtitles(tmp_path: Path, codec: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Kept where the encoder writes them, also with covered frames; else it is said."""
    spoken = sei(codec, 4, captions(b"hello"))
    plain = with_units(tmp_path / "in.mp4", codec, spoken)
    turned = with_units(tmp_path / "turned.mp4", codec, spoken, turn=90)
    records = tmp_path / "records.jsonl"
    records.write_text('{"frame": 0, "faces": [{"id": 1, "xyxy": [20, 20, 80, 80]}]}\n')
    for path, made, suffix, kept in (
        (plain, "h264", ".mp4", True),
        (plain, "h264", ".ts", True),
        (turned, "h264", ".mkv", True),
        (turned, "h264", ".ts", False),
        (plain, "hevc", ".mp4", False),
        (plain, "av1", ".mkv", False),
    ):
        out = tmp_path / f"out{suffix}"
        assert main(["apply", str(path), str(records), "-o", str(out), "--codec", made, "--overwrite"]) == 0
        with av.open(str(out)) as file:
            found = side_data(next(file.decode(video=0))).get(SideDataType.A53_CC, b"")
        assert found[1:3] == (bytes((0x68, 0xE5)) if kept else b""), "he, with parity"
        assert ("the closed captions are left out" in capfd.readouterr().err) is not kept


def test_side_data_that_pyav_does_not_know(tmp_path: Path) -> None:
    """FFmpeg gives Motion JPEG's EXIF a kind of side data of its own; the orientation in it is still read."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "in.mov"
    motion_jpeg(path, exif)
    source = open_source(path)
    info = source.open()
    source.close()
    assert (info.width, info.height, info.rotation) == (120, 160, 270)


def test_tags_between_frames_of_sound_are_cut_out(tmp_path: Path) -> None:
    """Of a packet only whole frames remain, byte for byte; MP2 and low rates too."""
    for codec, rate in (
        ("mp2", 48000),
        ("mp2", 22050),
        ("libmp3lame", 44100),
        ("libmp3lame", 16000),
        ("libmp3lame", 8000),
    ):
        stream = io.BytesIO()
        with av.open(stream, "w", format="mp2" if codec == "mp2" else "mp3", options={"write_xing": "0"}) as out:
            track = out.add_stream(codec, rate=rate, layout="stereo")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * rate), np.int16), format="s16", layout="stereo")
            frame.sample_rate = rate
            resampler = av.AudioResampler(format=track.codec_context.format, layout="stereo", rate=rate)
            for part in resampler.resample(frame):
                for piece in (part,):
                    out.mux(track.encode(piece))
            out.mux(track.encode(None))
        with av.open(io.BytesIO(stream.getvalue())) as file:
            frames = [bytes(packet) for packet in file.demux(audio=0) if packet.size]
        assert len(frames) > 10
        name = "mp2" if codec == "mp2" else "mp3"
        ape = b"APETAGEX" + struct.pack("<4I", 2000, len(MARKED), 1, 1 << 29) + bytes(8) + MARKED
        old = b"TAG" + WORD.encode().ljust(125, b"\0")
        for whole in frames:
            assert without_tags(name, whole) == whole
            assert without_tags(name, old + sound_tag() + whole + whole + ape + old + b"rest") == whole + whole
            assert without_tags("aac", sound_tag() + whole) == sound_tag() + whole
        assert without_tags(name, sound_tag()) == b""
