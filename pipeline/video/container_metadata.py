"""What a video file holds beside its streams: chapters, attached fonts, words about it, and how bright HDR can get.

Words (metadata) and data streams say who, where and with what device; they are taken along only when asked for.
Pictures are never taken along: a cover picture shows faces uncovered.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.container
import av.stream
from av.sidedata.sidedata import Type as SideDataType

HOLD_ATTACHMENTS = ("matroska",)
HOLD_CHAPTERS = ("matroska", "webm", "mp4", "mov")
# What muxers write by themselves, of their own.
_CONTAINERS_OWN = frozenset(("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "software"))
_CHANGING = {"DYNAMIC_HDR_PLUS": "HDR10+ metadata", "DOVI_RPU_BUFFER": "Dolby Vision metadata"}


@dataclass(frozen=True, slots=True)
class Chapter:
    """start, end: seconds. title may be empty."""

    start: Fraction
    end: Fraction
    title: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file inside a Matroska file, as a rule a font that its subtitles need."""

    name: str
    mimetype: str
    data: bytes


@dataclass(frozen=True, slots=True)
class HdrMetadata:
    """SMPTE ST 2086 and CTA-861.3: the display that the film was graded on and how bright its pictures get.

    primaries: x, y of red, green, blue and white (CIE 1931). luminance: least and greatest, cd/m2.
    content: greatest and greatest frame-average light level, cd/m2. None where the source does not say.
    """

    primaries: tuple[float, ...] | None
    luminance: tuple[float, float] | None
    content: tuple[int, int] | None

    def params(self, encoder: str) -> dict[str, str]:
        """The parameters that make an encoder write this, empty for an encoder that cannot."""
        out: dict[str, str] = {}
        names = {"libx264": ("mastering-display", "cll"), "libx265": ("master-display", "max-cll")}
        names["libsvtav1"] = ("mastering-display", "content-light")
        if encoder not in names:
            return out
        mastering, content = names[encoder]
        if self.primaries is not None and self.luminance is not None:
            exact = encoder == "libsvtav1"  # it takes plain numbers, the others units of 0.00002 and 0.0001
            xy = [f"{v:.5f}" if exact else str(round(v * 50000)) for v in self.primaries]
            least, most = (f"{v:.4f}" if exact else str(round(v * 10000)) for v in self.luminance)
            red, green, blue, white = (f"({xy[i]},{xy[i + 1]})" for i in range(0, 8, 2))
            out[mastering] = f"G{green}B{blue}R{red}WP{white}L({most},{least})"
        if self.content is not None:
            out[content] = f"{self.content[0]},{self.content[1]}"
        return out


def hdr_metadata_of(picture: av.VideoFrame) -> HdrMetadata | None:
    """What a decoded picture says of its light, None where it says nothing."""
    mastering: Any = picture.side_data.get(SideDataType.MASTERING_DISPLAY_METADATA)  # type: ignore[call-overload]
    level: Any = picture.side_data.get(SideDataType.CONTENT_LIGHT_LEVEL)  # type: ignore[call-overload]
    if mastering is None and level is None:
        return None
    primaries, luminance = (None, None) if mastering is None else _mastering(bytes(mastering))
    content = None if level is None else struct.unpack("=2I", bytes(level)[:8])
    return HdrMetadata(primaries, luminance, content)


def _mastering(data: bytes) -> tuple[tuple[float, ...] | None, tuple[float, float] | None]:
    """FFmpeg's AVMasteringDisplayMetadata: ten rationals (red, green, blue, white; least, greatest), two flags."""
    *numbers, has_primaries, has_luminance = struct.unpack("=22i", data[:88])
    values = [n / d if d else 0.0 for n, d in zip(numbers[::2], numbers[1::2], strict=True)]
    return tuple(values[:8]) if has_primaries else None, (values[8], values[9]) if has_luminance else None


def lost_hdr_metadata(picture: av.VideoFrame) -> list[str]:
    """What changes from frame to frame and cannot be written again, in words."""
    held: Any = list(picture.side_data)
    return [f"the {_CHANGING[data.type.name]}" for data in held if data.type.name in _CHANGING]


def chapters_of(container: av.container.InputContainer) -> tuple[Chapter, ...]:
    found = []
    for chapter in container.chapters():
        unit = Fraction(chapter["time_base"] or 1)
        title = str(chapter["metadata"].get("title", ""))
        found.append(Chapter(chapter["start"] * unit, chapter["end"] * unit, title))
    return tuple(found)


def add_chapters(output: av.container.OutputContainer, chapters: Iterable[Chapter], shift: Fraction) -> None:
    """Write chapters, all times made earlier by `shift` seconds; those that end before zero are gone."""
    unit = Fraction(1, 1000)
    rows: list[Any] = []
    for number, chapter in enumerate(chapters, 1):
        start, end = max(Fraction(0), chapter.start - shift), chapter.end - shift
        if end <= 0:
            continue
        metadata = {"title": chapter.title} if chapter.title else {}
        row = {"id": number, "start": round(start / unit), "end": round(end / unit), "time_base": unit}
        rows.append(row | {"metadata": metadata})
    output.set_chapters(rows)


def attachment_of(stream: av.stream.Stream) -> Attachment | None:
    """An attached font; None for anything else, since what is in it cannot be known."""
    mimetype = str(stream.metadata.get("mimetype", ""))
    if stream.type != "attachment" or not ("font" in mimetype or mimetype.endswith("opentype")):
        return None
    file: Any = stream
    return Attachment(str(stream.metadata.get("filename", "font")), mimetype, bytes(file.data))


def text_metadata(metadata: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Metadata that can be written again: all but what each muxer writes by itself."""
    return {
        key: text for key, text in metadata if key.lower() not in _CONTAINERS_OWN and not key.startswith("DURATION")
    }
