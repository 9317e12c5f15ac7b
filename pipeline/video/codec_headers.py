"""Rewrites headers of codecs whose packets are copied, and tags between them: what a decoder needs, without comments,
images and names.

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

# MPEG audio (ISO/IEC 11172-3, 2.4.2.3; 13818-3): kbit/s by index, for MPEG-1's layers I to III, and for MPEG-2's I and
# the other two; Hz by index for MPEG-1, of which MPEG-2 has half and MPEG-2.5 a quarter.
_LAYER_1 = (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
_LAYER_2 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_LAYER_3 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_LOW_LAYER_1 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_LOW_LAYERS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = (44100, 48000, 32000)


def without_tags(codec: str, packet: bytes) -> bytes:
    """A sound packet without what is no sound in it: MP3's tags (ID3, APE), which may hold a cover, and what lies
    behind its last frame. Empty if it holds no frame.

    codec: FFmpeg's name. Packets of codecs that have no such tags come back as they are.
    """
    if codec not in ("mp1", "mp2", "mp3"):
        return packet
    frames = []
    at = 0
    while at < len(packet):
        skipped = _tag_size(packet, at)
        if skipped:
            at += skipped
            continue
        size = _frame_size(packet[at : at + 4])
        if size is None:
            break
        end = at + size if size else len(packet)
        frames.append(packet[at:end])
        at = end
    return b"".join(frames)


def _tag_size(data: bytes, at: int) -> int:
    """Bytes of the tag that begins here, 0 if none does: ID3v1, ID3v2, APE."""
    if data.startswith(b"ID3", at) and len(data) >= at + 10:
        size = 0
        for byte in data[at + 6 : at + 10]:
            size = size << 7 | byte & 0x7F
        has_footer = data[at + 5] & 0x10
        return size + (20 if has_footer else 10)
    if data.startswith(b"TAG", at):
        return 128
    if data.startswith(b"APETAGEX", at) and len(data) >= at + 32:
        size = struct.unpack_from("<I", data, at + 12)[0]
        is_header = data[at + 23] & 0x20
        return size + 32 if is_header else 32
    return 0


def _frame_size(header: bytes) -> int | None:
    """Bytes of the MPEG audio frame with this header; 0 where its bit rate is free; None if it is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version = header[1] >> 3 & 3  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    layer = 4 - (header[1] >> 1 & 3)
    index = header[2] >> 4
    rate_index = header[2] >> 2 & 3
    if version == 1 or layer == 4 or index == 15 or rate_index == 3:
        return None
    if index == 0:
        return 0
    is_full = version == 3
    rate = _RATES[rate_index] >> (0 if is_full else 1 if version == 2 else 2)
    high = (_LAYER_1, _LAYER_2, _LAYER_3)[layer - 1]
    bits = 1000 * (high if is_full else _LOW_LAYER_1 if layer == 1 else _LOW_LAYERS)[index]
    padding = header[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // rate + padding) * 4
    return (72 if layer == 3 and not is_full else 144) * bits // rate + padding


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
