"""Nothing but covered pictures, sound and subtitles gets out: a marker picture and marker words in every side channel
that we can fill, searched for in the output's bytes, as they are and decoded."""

from __future__ import annotations

import base64
import os
import re
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
from facestream.pipeline.cli.app import main
from facestream.pipeline.video.codec_headers import rebuilt
from facestream.pipeline.video.container_metadata import font_kind, text_metadata, without_pictures
from facestream.pipeline.video.telemetry import has_place, is_telemetry
from PIL import Image, PngImagePlugin

from tests.conftest import render
from tests.markers import MARK, PLACE, WORD, leftovers

CASES = Path(os.environ.get("FACESTREAM_CASES", "../shared/cases")) / "files"


def xiph(*packets: bytes) -> bytes:
    lacing = b"".join(b"\xff" * (len(p) // 255) + bytes([len(p) % 255]) for p in packets[:-1])
    return bytes([len(packets) - 1]) + lacing + b"".join(packets)


def comments(kind: bytes, end: bytes = b"") -> bytes:
    lines = [f"TITLE={WORD}", f"LOCATION={PLACE}", "METADATA_BLOCK_PICTURE=" + base64.b64encode(MARK).decode()]
    out = kind + struct.pack("<I", len(WORD)) + WORD.encode() + struct.pack("<I", len(lines))
    return out + b"".join(struct.pack("<I", len(line)) + line.encode() for line in lines) + end


HEADERS = {
    "vorbis": xiph(b"\x01vorbis" + bytes(23), comments(b"\x03vorbis", b"\x01"), b"\x05vorbis" + b"setup" * 20),
    "theora": xiph(b"\x80theora" + bytes(35), comments(b"\x81theora"), b"\x82theora" + b"setup" * 20),
    "opus": b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0" + comments(b"OpusTags"),
    "flac": b"fLaC\0\0\0\x22" + bytes(34) + b"\x86" + struct.pack(">I", len(MARK))[1:] + MARK,
    "speex": xiph(b"Speex   " + bytes(72), comments(b"")),
    "ass": (
        f"[Script Info]\r\nTitle: {WORD}\r\n; {PLACE}\r\nPlayResX: 640\r\n[Aegisub Project Garbage]\r\n"
        f"Audio File: {WORD}\r\n"
        f"[V4+ Styles]\r\nFormat: Name, Fontname\r\nStyle: Default,Arial\r\n[Graphics]\r\nfilename: {WORD}\r\n"
        "[Events]\r\nFormat: Layer, Start, End, Text\r\n"
    ).encode()
    + MARK,
    "dvd_subtitle": f"# {WORD}\nsize: 720x576\nid: {WORD}, index: 0\npalette: 000000, ffffff\n".encode(),
    "webvtt": f"NOTE {WORD} {PLACE}".encode(),
}  # fmt: skip


@pytest.mark.parametrize("codec", HEADERS)
def test_codec_headers_are_made_anew(codec: str) -> None:
    header = HEADERS[codec]
    assert leftovers(header)
    made = rebuilt(codec, header)
    assert leftovers(made) == []
    if codec in ("vorbis", "theora"):
        assert b"setup" * 20 in made
    if codec == "ass":
        assert b"PlayResX: 640" in made
        assert b"Style: Default,Arial" in made
    if codec == "flac":
        assert len(made) == 34
    assert made == rebuilt(codec, made), "and once more changes nothing"


@pytest.mark.parametrize("codec", ["vorbis", "theora", "opus", "speex", "ass"])
@pytest.mark.parametrize("header", [b"\x02", b"\x02\xff\xff", b"\x00\x10", WORD.encode(), MARK])
def test_headers_that_make_no_sense_are_not_copied(codec: str, header: bytes) -> None:
    with pytest.raises(ValueError):
        rebuilt(codec, header)


def font(extra: bytes = b"", table: bytes = b"glyph data") -> bytes:
    head = b"\0\1\0\0" + struct.pack(">HHHH", 1, 16, 0, 0) + struct.pack(">4sIII", b"glyf", 0, 28, len(table))
    return head + table + extra


def test_fonts_are_fonts_from_the_first_byte_to_the_last() -> None:
    assert font_kind(font()) == "ttf"
    for data in (
        MARK,
        font(extra=MARK),
        font(table=MARK),
        b"OTTO" + MARK,
        b"wOFF" + bytes(60),
        b"",
        font()[:20],
        b"ttcf" + MARK,
    ):
        assert font_kind(data) is None


def test_tags_that_are_pictures_are_none() -> None:
    packed = base64.b64encode(MARK).decode()
    tags = [
        ("title", WORD),
        ("METADATA_BLOCK_PICTURE", packed),
        ("XMP", f"<x:img>{packed}</x:img>"),
        ("com.apple.artwork", "x"),
    ]
    wrapped = "\n".join(packed[i : i + 76] for i in range(0, len(packed), 76))
    assert text_metadata([*tags, ("note", wrapped), ("description", "A long text. " * 300)]).keys() == {
        "title",
        "description",
    }


def id3(version: int) -> bytes:
    def frame(name: bytes, data: bytes) -> bytes:
        if version == 2:
            return name + len(data).to_bytes(3, "big") + data
        size = len(data)
        coded = bytes(size >> s & 0x7F for s in (21, 14, 7, 0)) if version == 4 else size.to_bytes(4, "big")
        return name + coded + b"\0\0" + data

    names = (b"TT2", b"PIC", b"GEO") if version == 2 else (b"TIT2", b"APIC", b"GEOB")
    body = (
        frame(names[0], b"\0" + WORD.encode()) + frame(names[1], b"\0image/jpeg\0\3\0" + MARK) + frame(names[2], MARK)
    )
    size = len(body)
    return b"ID3" + bytes([version, 0, 0]) + bytes(size >> s & 0x7F for s in (21, 14, 7, 0)) + body


@pytest.mark.parametrize("version", [2, 3, 4])
def test_timed_id3_keeps_its_words_and_loses_its_pictures(version: int) -> None:
    kept = without_pictures(id3(version))
    assert kept is not None
    assert WORD.encode() in kept
    assert MARK[-300:-240] not in kept
    assert without_pictures(b"gpmd" + MARK) is None
    assert without_pictures(b"gpmd" + WORD.encode()) == b"gpmd" + WORD.encode()


@pytest.mark.parametrize(
    "text",
    [
        "F/2.8, SS 206.14, ISO 110, EV 0, GPS (-122.1699, 37.4275, 15), D 0.00m, H 0.00m",
        "[iso : 110] [latitude: 48.137430] [longitude: 11.575490] [rel_alt: 1.300 abs_alt: 520.1]",
        "HOME(149.0251,-20.2532) 2017.08.05 14:11:51\nGPS(149.0251,-20.2533,16) BAROMETER:1.9",
        "48.13743, 11.57549",
        "N48.1374 E11.5755",
        "48\N{DEGREE SIGN}08'14.9\"N 11\N{DEGREE SIGN}34'31.8\"E",
        PLACE,
        "$GPRMC,123519,A,4807.038,N,01131.000,E",
    ],
)
def test_places_are_recognised(text: str) -> None:
    assert has_place(text)
    assert is_telemetry([], [text] * 5)


def test_what_people_say_is_no_place() -> None:
    said = [
        "It costs 12.50, or 13.75 with milk.",
        "At 10.30 we leave.",
        "Pi is 3.14159, more or less",
        "Version 1.2.3",
        "It is long: 1800 words.",
    ]
    assert not any(map(has_place, said))
    assert not is_telemetry(["SubtitleHandler"], said)
    assert is_telemetry(["DJI.Subtitle"], said)


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(data), kind) + data


def element(name: bytes, data: bytes) -> bytes:
    return name + b"\x01" + len(data).to_bytes(7, "big") + data


def planted_mp4(folder: Path) -> Path:
    path = render(folder / "in.mp4", frames=6, metadata={"title": WORD, "comment": WORD, "location": PLACE})
    for kind in (b"free", b"skip", b"uuid", b"udta", b"meta", b"mdat"):
        extra = bytes(16) if kind == b"uuid" else bytes(4) if kind == b"meta" else b""
        with path.open("ab") as file:
            file.write(box(kind, extra + WORD.encode() + MARK))
    return path


def planted_mkv(folder: Path) -> Path:
    path = folder / "in.mkv"
    render(
        path,
        frames=6,
        metadata={"title": WORD, "comment": WORD, "GPS": PLACE, "COVER": base64.b64encode(MARK).decode()},
    )
    with av.open(str(path)) as source, av.open(str(folder / "more.mkv"), "w") as out:
        out.metadata.update(source.metadata)
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        out.add_attachment("a.ttf", "application/x-truetype-font", MARK)
        out.add_attachment(f"{WORD}.jpg", "image/jpeg", MARK)
        out.set_chapters(
            [{"id": 1, "start": 0, "end": 100, "time_base": Fraction(1, 1000), "metadata": {"title": WORD}}]
        )
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    data = (folder / "more.mkv").read_bytes()
    path.write_bytes(data + element(b"\xec", WORD.encode() + MARK) + WORD.encode() + MARK)  # Void, and what lies behind
    return path


def planted_avi(folder: Path) -> Path:
    path = render(
        folder / "in.avi", frames=6, codec="mpeg4", audio_codec="mp3", metadata={"title": WORD, "comment": WORD}
    )
    data = path.read_bytes()
    for name in (b"JUNK", b"IART", b"IDIT"):
        part = WORD.encode() + MARK
        data += name + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2)
    path.write_bytes(data)
    return path


def planted_ts(folder: Path) -> Path:
    path = render(folder / "in.ts", frames=20, metadata={"service_name": WORD, "service_provider": WORD})
    section = (WORD.encode() + MARK[-330:-200]).ljust(183, b"\xff")[:183]
    private = b"\x47\x41\x23\x10\0" + section
    null = b"\x47\x1f\xff\x10" + (WORD.encode() + MARK[-330:-200]).ljust(184, b"\xff")[:184]
    data = path.read_bytes()
    path.write_bytes(private + null + data + private + null)
    return path


def planted_flv(folder: Path) -> Path:
    return render(folder / "in.flv", frames=6, metadata={"title": WORD, "comment": WORD, "artist": PLACE})


PLANTED = [planted_mp4, planted_mkv, planted_avi, planted_ts, planted_flv]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("plant", PLANTED)
def test_videos_leave_nothing_behind(tmp_path: Path, plant: Callable[[Path], Path], suffix: str) -> None:
    path = plant(tmp_path)
    assert leftovers(path.read_bytes()), "it was planted"
    out = tmp_path / f"out{suffix}"
    assert main(["anonymize", str(path), "-o", str(out)]) in (0, 1)
    assert leftovers(out.read_bytes()) == []
    kept = tmp_path / f"kept{suffix}"
    assert main(["anonymize", str(path), "-o", str(kept), "--keep-metadata"]) in (0, 1)
    assert "the picture" not in leftovers(kept.read_bytes())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".heic", ".avif"])
def test_stills_leave_nothing_behind(tmp_path: Path, suffix: str) -> None:
    from facestream.pipeline.video.still import FORMATS

    exif = Image.Exif()
    exif[0x010E] = WORD
    exif[0x9C9B] = WORD.encode("utf-16-le")
    profile = b"".join(
        [
            bytes(36),
            b"acsp",
            bytes(88),
            struct.pack(">I", 1),
            b"desc",
            struct.pack(">II", 144, 60),
            WORD.encode().ljust(60, b"\0"),
        ]
    )
    more: dict[str, object] = {"exif": exif, "icc_profile": profile}
    if suffix == ".png":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", WORD, zip=True)
        text.add_itxt("XML:com.adobe.xmp", f"<x>{WORD}{base64.b64encode(MARK).decode()}</x>")
        more["pnginfo"] = text
    if suffix == ".jpg":
        more |= {"comment": WORD.encode(), "xmp": f"<x>{WORD}</x>".encode()}
    if suffix in (".webp", ".avif", ".heic"):
        more["xmp"] = f"<x>{WORD}{base64.b64encode(MARK).decode()}</x>".encode()
    path = tmp_path / f"in{suffix}"
    Image.new("RGB", (96, 64), (90, 90, 90)).save(path, format=FORMATS[suffix], **more)
    if suffix == ".jpg":  # a preview in an APP2 (MPF), one in the thumbnail's place
        data = path.read_bytes()
        segment = b"\xff\xe2" + struct.pack(">H", 2 + 4 + len(MARK)) + b"MPF\0" + MARK
        path.write_bytes(data[:2] + segment + data[2:])
    with path.open("ab") as file:
        file.write(WORD.encode() + MARK)
    for target in (suffix, ".jpg", ".png"):
        for words in ([], ["--keep-metadata"]):
            out = tmp_path / f"out{target}"
            assert main(["anonymize", str(path), "-o", str(out), "--overwrite", *words]) == 0
            assert leftovers(out.read_bytes()) == []


@pytest.mark.parametrize("name", ["vorbis_raw.mkv", "fontface.mkv", "id3.ts", "dji.mp4"])
@pytest.mark.parametrize("words", [[], ["--keep-metadata"]])
def test_cases_from_the_field(tmp_path: Path, name: str, words: list[str]) -> None:
    if not (CASES / name).exists():
        pytest.skip(f"{CASES}/{name} is not there: set FACESTREAM_CASES")
    out = tmp_path / f"out{Path(name).suffix}"
    assert main(["anonymize", str(CASES / name), "-o", str(out), "--detect-every", "8", *words]) == 0
    data = out.read_bytes()
    assert re.search(rb"\xff\xd8\xff[\xe0-\xef]..(?:JFIF|Exif)", data, re.DOTALL) is None
    assert b"image/jpeg" not in data
    if not words:
        assert b"48.1374" not in data
        assert b"GPS" not in data


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mov"])
def test_chapters_keep_their_times_and_lose_their_titles(tmp_path: Path, suffix: str) -> None:
    path = planted_mkv(tmp_path)
    for words, title in (([], "1"), (["--keep-metadata"], WORD)):
        out = tmp_path / f"out{suffix}"
        assert main(["anonymize", str(path), "-o", str(out), "--overwrite", *words]) == 0
        with av.open(str(out)) as file:
            (chapter,) = file.chapters()
            assert (chapter["start"], chapter["end"] * chapter["time_base"]) == (0, Fraction(1, 10))
            assert chapter["metadata"].get("title", "") == title
