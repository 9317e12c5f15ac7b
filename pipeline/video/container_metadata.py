"""Container metadata of a video file: chapters, attached fonts, text tags, and HDR light levels.

Text metadata and data streams may identify people, places and devices; they are copied only on request. Images are
never copied: cover art shows uncovered faces.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.container
import av.stream
from av.sidedata.sidedata import Type as SideDataType
from facestream.pipeline.video.picture import side_data

HOLD_ATTACHMENTS = ("matroska",)
HOLD_CHAPTERS = ("matroska", "webm", "mp4", "mov")
# What muxers write by themselves, of their own.
_CONTAINERS_OWN = frozenset(("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "software"))
# JPEG (with any marker that may follow), PNG, GIF, WebP, HEIF and AVIF, JPEG XL.
_PICTURE = (
    rb"(?s)\xff\xd8\xff[\xc0-\xfe]|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|ftyp(?:hei|mif1|avif|msf1)|JXL \r\n\x87\n"
)
_PACKED = r"[A-Za-z0-9+/=_\\-]{400,}"
_CHANGING = {"DYNAMIC_HDR_PLUS": "HDR10+ metadata", "DOVI_RPU_BUFFER": "Dolby Vision metadata"}


@dataclass(frozen=True, slots=True)
class Chapter:
    """start, end: seconds. title may be empty."""

    start: Fraction
    end: Fraction
    title: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file attached to a Matroska file, usually a font that its subtitles need."""

    name: str
    mimetype: str
    data: bytes


@dataclass(frozen=True, slots=True)
class HdrMetadata:
    """SMPTE ST 2086 and CTA-861.3: the mastering display and the content's light levels.

    primaries: x, y of red, green, blue and white (CIE 1931). luminance: minimum and maximum, cd/m2.
    content: maximum and maximum frame-average light level, cd/m2. None if the source does not say.
    """

    primaries: tuple[float, ...] | None
    luminance: tuple[float, float] | None
    content: tuple[int, int] | None

    def params(self, encoder: str) -> dict[str, str]:
        """The encoder parameters that write this metadata, empty for an encoder that cannot."""
        out: dict[str, str] = {}
        names = {"libx264": ("mastering-display", "cll"), "libx265": ("master-display", "max-cll")}
        names["libsvtav1"] = ("mastering-display", "content-light")
        if encoder not in names:
            return out
        mastering, content = names[encoder]
        if self.primaries is not None and self.luminance is not None:
            exact = encoder == "libsvtav1"  # it takes plain numbers, the others units of 0.00002 and 0.0001
            xy = [f"{v:.5f}" if exact else str(round(v * 50000)) for v in self.primaries]
            darkest, brightest = (f"{v:.4f}" if exact else str(round(v * 10000)) for v in self.luminance)
            red, green, blue, white = (f"({xy[i]},{xy[i + 1]})" for i in range(0, 8, 2))
            out[mastering] = f"G{green}B{blue}R{red}WP{white}L({brightest},{darkest})"
        if self.content is not None:
            out[content] = f"{self.content[0]},{self.content[1]}"
        return out


def hdr_metadata_of(picture: av.VideoFrame) -> HdrMetadata | None:
    """A decoded frame's HDR metadata, None if it has none."""
    attached = side_data(picture)
    mastering = attached.get(SideDataType.MASTERING_DISPLAY_METADATA)
    level = attached.get(SideDataType.CONTENT_LIGHT_LEVEL)
    if mastering is None and level is None:
        return None
    primaries, luminance = (None, None) if mastering is None else _mastering(mastering)
    content = None if level is None else struct.unpack("=2I", level[:8])
    return HdrMetadata(primaries, luminance, content)


def _mastering(data: bytes) -> tuple[tuple[float, ...] | None, tuple[float, float] | None]:
    """FFmpeg's AVMasteringDisplayMetadata: ten rationals (red, green, blue, white; least, greatest), two flags."""
    *numbers, has_primaries, has_luminance = struct.unpack("=22i", data[:88])
    values = [n / d if d else 0.0 for n, d in zip(numbers[::2], numbers[1::2], strict=True)]
    return tuple(values[:8]) if has_primaries else None, (values[8], values[9]) if has_luminance else None


def lost_hdr_metadata(picture: av.VideoFrame) -> list[str]:
    """The names of per-frame metadata that cannot be written again."""
    return [f"the {_CHANGING[kind.name]}" for kind in side_data(picture) if kind.name in _CHANGING]


def has_captions(picture: av.VideoFrame) -> bool:
    """Whether closed captions (CEA-608, CEA-708) come with a decoded frame."""
    return SideDataType.A53_CC in side_data(picture)


def chapters_of(container: av.container.InputContainer) -> tuple[Chapter, ...]:
    found = []
    for chapter in container.chapters():
        unit = Fraction(chapter["time_base"] or 1)
        title = str(chapter["metadata"].get("title", ""))
        found.append(Chapter(chapter["start"] * unit, chapter["end"] * unit, title))
    return tuple(found)


def add_chapters(
    output: av.container.OutputContainer, chapters: Iterable[Chapter], shift: Fraction, titles: bool
) -> None:
    """Write chapters, with all times earlier by `shift` seconds; those that end before zero are dropped. titles: write
    them too, which are words and may say who and where; else a number, without which MP4 holds no chapter's end."""
    unit = Fraction(1, 1000)
    rows: list[Any] = []
    for number, chapter in enumerate(chapters, 1):
        start = max(Fraction(0), chapter.start - shift)
        end = chapter.end - shift
        if end <= 0:
            continue
        metadata = {"title": chapter.title if titles else str(number)} if chapter.title else {}
        row = {"id": number, "start": round(start / unit), "end": round(end / unit), "time_base": unit}
        rows.append(row | {"metadata": metadata})
    output.set_chapters(rows)


def attachment_of(stream: av.stream.Stream, number: int) -> Attachment | None:
    """An attached font, under a neutral name; None for any other attachment, whose content is unknown.

    The declared type is not trusted: the bytes must be those of a font and nothing else.
    """
    if stream.type != "attachment":
        return None
    file: Any = stream
    data = bytes(file.data or b"")
    if (kind := font_kind(data)) is None:
        return None
    return Attachment(f"font{number}.{kind}", f"font/{kind}", data)


def font_kind(data: bytes) -> str | None:
    """ttf, otf, ttc, woff or woff2 if these bytes are exactly a font and contain no image; else None."""
    if holds_picture(data):
        return None
    magic = data[:4]
    if magic in (b"wOFF", b"wOF2") and len(data) >= 44:
        return ("woff" if magic == b"wOFF" else "woff2") if struct.unpack(">I", data[8:12])[0] == len(data) else None
    kind = {b"\0\1\0\0": "ttf", b"true": "ttf", b"OTTO": "otf", b"ttcf": "ttc"}.get(magic)
    if kind is None or len(data) < 12:
        return None
    starts = [0]
    if kind == "ttc":
        count = struct.unpack(">I", data[8:12])[0]
        if not 0 < count <= 64 or len(data) < 12 + 4 * count:
            return None
        starts = list(struct.unpack(f">{count}I", data[12 : 12 + 4 * count]))
    end = 0
    for start in starts:
        if len(data) < start + 12:
            return None
        tables = struct.unpack(">H", data[start + 4 : start + 6])[0]
        if not 0 < tables <= 256 or len(data) < start + 12 + 16 * tables:
            return None
        for table in range(tables):
            at, size = struct.unpack(">II", data[start + 20 + 16 * table : start + 28 + 16 * table])
            end = max(end, at + size)
    # A DSIG table or padding may follow; a file glued to the end may not.
    return kind if end <= len(data) <= end + 8 else None


def holds_picture(data: bytes) -> bool:
    """Whether an image starts anywhere in these bytes: JPEG, PNG, GIF, WebP, HEIF, JPEG XL."""
    return re.search(_PICTURE, data) is not None


def text_metadata(metadata: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The tags to write again: without those that each muxer writes itself, and without images, which some containers
    store as text."""
    return {
        key: text
        for key, text in metadata
        if key.lower() not in _CONTAINERS_OWN and not key.startswith("DURATION") and not _is_picture(key, text)
    }


def _is_picture(key: str, text: str) -> bool:
    """Whether a text looks like encoded bytes (Base64 and others): hundreds of characters without spaces or stops."""
    if any(word in key.lower() for word in ("picture", "coverart", "thumbnail", "artwork", "apic")):
        return True
    packed = re.sub(r"\s|&#x[0-9A-Fa-f]+;", "", text)
    return re.search(_PACKED, packed) is not None or holds_picture(text.encode("utf-8", "surrogateescape"))


def without_pictures(data: bytes) -> bytes | None:
    """A packet of timed metadata that may be copied: ID3 (2.2 to 2.4) without images and objects, anything else that
    contains no image; None otherwise."""
    if data[:3] == b"ID3" and len(data) >= 10:
        data = _id3_text(data)
    return None if holds_picture(data) else data


def _id3_text(tag: bytes) -> bytes:
    """The ID3 tag with its text and link frames only, without unsynchronisation, extended header and padding."""
    version = tag[3]
    flags = tag[5]
    size = _synchsafe(tag[6:10])
    body = tag[10 : 10 + size]
    if flags & 0x80:
        body = body.replace(b"\xff\x00", b"\xff")
    at = 0
    if flags & 0x40 and len(body) >= 4:
        at = _synchsafe(body[:4]) if version == 4 else 4 + int.from_bytes(body[:4], "big")
    letters, head = (3, 6) if version == 2 else (4, 10)
    kept = b""
    while at + head <= len(body) and body[at] != 0:
        name = body[at : at + letters]
        length = body[at + letters : at + 2 * letters]
        count = _synchsafe(length) if version == 4 else int.from_bytes(length, "big")
        frame = body[at : at + head + count]
        if name[:1] in (b"T", b"W") or name in (b"COMM", b"COM", b"USLT"):
            kept += frame
        at += head + count
    count = len(kept)
    return tag[:5] + b"\0" + bytes(count >> shift & 0x7F for shift in (21, 14, 7, 0)) + kept


def _synchsafe(data: bytes) -> int:
    value = 0
    for byte in data:
        value = value << 7 | byte & 0x7F
    return value
