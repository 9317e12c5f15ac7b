"""Rewrites headers of codecs whose packets are copied: what a decoder needs, without comments, images and names.

Xiph's codecs carry their comments (title, place, a cover picture) in a header beside the codec's setup, and ASS
subtitles theirs in a script's first section. Containers store both as the codec's private data, which a copy would pass
on.
"""

from __future__ import annotations

import re
import struct

_NO_COMMENTS = struct.pack("<II", 0, 0)  # an empty vendor and no comment
_OPUS_HEAD = 19
# What tells a renderer how to draw; the rest of [Script Info] says who made it, and where.
_ASS_INFO = frozenset(
    ("scripttype", "playresx", "playresy", "layoutresx", "layoutresy", "wrapstyle", "scaledborderandshadow",
     "collisions", "timer", "ycbcr matrix", "playdepth", "kerning")
)  # fmt: skip
_ASS_SECTIONS = frozenset(("v4 styles", "v4+ styles", "events"))
_ASS_LINES = ("format:", "style:")
_IDX_LINES = ("size:", "palette:", "org:", "scale:", "alpha:", "smooth:", "fadein/out:", "align:", "forced subs:")


def rebuilt(codec: str, header: bytes) -> bytes:
    """The header without what a decoder does not need. Raises ValueError for one that makes no sense.

    codec: FFmpeg's name. A header of a codec whose headers hold no such things comes back as it is.
    """
    if not header:
        return header
    if codec in ("vorbis", "theora"):
        return _xiph(codec, header)
    if codec == "opus":
        return _opus(header)
    if codec == "flac":
        return _flac(header)
    if codec == "speex":
        return _speex(header)
    if codec in ("ass", "ssa"):
        return _ass(header)
    if codec == "dvd_subtitle":
        lines = header.decode("utf-8", "replace").splitlines()
        return "\n".join(line for line in lines if line.strip().lower().startswith(_IDX_LINES)).encode() + b"\n"
    if codec in ("webvtt", "subrip", "text"):
        return b""
    return header


def _xiph(codec: str, header: bytes) -> bytes:
    """Identification, comments, setup. The comments are the header whose first byte's value is 3 (Vorbis, I 4.2.1) or
    0x81 (Theora 6.1)."""
    packets, long = _split_xiph(header)
    kind = b"\x03vorbis" if codec == "vorbis" else b"\x81theora"
    if len(packets) != 3 or not packets[1].startswith(kind):
        raise ValueError(f"the {codec} header makes no sense")
    packets = [packets[0][: 30 if codec == "vorbis" else 42], kind + _NO_COMMENTS, packets[2]]
    if codec == "vorbis":
        packets[1] += b"\x01"  # the framing bit
    if long:
        return b"".join(struct.pack(">H", len(packet)) + packet for packet in packets)
    lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets[:2])
    return bytes([2]) + lacing + b"".join(packets)


def _split_xiph(header: bytes) -> tuple[list[bytes], bool]:
    """Three packets and whether each has its length (16 bits) before it, in place of Xiph lacing."""
    if header[0] == 0:
        packets: list[bytes] = []
        at = 0
        while at + 2 <= len(header) and len(packets) < 3:
            (size,) = struct.unpack_from(">H", header, at)
            packets.append(header[at + 2 : at + 2 + size])
            at += 2 + size
        return packets, True
    sizes = []
    at = 1
    for _ in range(header[0]):
        size = 0
        while at < len(header) and header[at] == 255:
            size += 255
            at += 1
        if at >= len(header):
            raise ValueError("the lacing runs past its end")
        sizes.append(size + header[at])
        at += 1
    packets = []
    for size in sizes:
        packets.append(header[at : at + size])
        at += size
    return [*packets, header[at:]], False


def _opus(header: bytes) -> bytes:
    """RFC 7845, 5.1: 19 bytes, and a channel mapping table of 2 + channels bytes where the family is not 0."""
    if not header.startswith(b"OpusHead") or len(header) < _OPUS_HEAD:
        raise ValueError("the Opus header makes no sense")
    return header[:_OPUS_HEAD] if header[18] == 0 else header[: _OPUS_HEAD + 2 + header[9]]


def _flac(header: bytes) -> bytes:
    """STREAMINFO alone, 34 bytes (RFC 9639, 8.2), bare."""
    if not header.startswith(b"fLaC"):
        if len(header) < 34:
            raise ValueError("the FLAC header makes no sense")
        return header[:34]
    if len(header) < 42 or header[4] & 0x7F:
        raise ValueError("the FLAC header makes no sense")
    return header[8:42]


def _speex(header: bytes) -> bytes:
    at = header.find(b"Speex   ")
    if at < 0 or len(header) < at + 80:
        raise ValueError("the Speex header makes no sense")
    return header[at : at + 80]


def _ass(header: bytes) -> bytes:
    """The script's geometry, its styles and the format of its events; no comments, fonts, pictures and projects."""
    kept: list[str] = []
    section = ""
    for line in header.decode("utf-8", "replace").replace("\ufeff", "").splitlines():
        text = line.strip()
        if match := re.fullmatch(r"\[(.+)\]", text):
            section = match[1].strip().lower()
            if section in _ASS_SECTIONS or section == "script info":
                kept.append(text)
        elif section == "script info":
            if text.partition(":")[0].strip().lower() in _ASS_INFO:
                kept.append(text)
        elif section in _ASS_SECTIONS and text.lower().startswith(_ASS_LINES):
            kept.append(text)
    if not kept:
        raise ValueError("the ASS header makes no sense")
    return ("\r\n".join(kept) + "\r\n").encode()
