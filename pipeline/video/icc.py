"""ICC colour profiles made anew: the colours, without the words in which some name a device, a person or a place."""

from __future__ import annotations

import struct

_COLOUR_TAGS = frozenset(
    (b"wtpt", b"bkpt", b"chad", b"lumi", b"cicp", b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC", b"kTRC",
     b"A2B0", b"A2B1", b"A2B2", b"B2A0", b"B2A1", b"B2A2", b"D2B0", b"B2D0")
)  # fmt: skip
_DESCRIPTION = "colour profile"


def colours_of(profile: bytes | None, gray: bool) -> bytes | None:
    """The profile with its colour tags alone (ICC.1:2022, 7.2 and 7.3); None where there is none, where it makes no
    sense, and where it is not for pictures of this kind."""
    if profile is None or len(profile) < 132 or profile[36:40] != b"acsp":
        return None
    if profile[16:20] != (b"GRAY" if gray else b"RGB "):
        return None
    (count,) = struct.unpack(">I", profile[128:132])
    tags: list[tuple[bytes, bytes]] = [(b"desc", _text(_DESCRIPTION)), (b"cprt", _text("-"))]
    for index in range(min(count, 100)):
        entry = profile[132 + 12 * index : 144 + 12 * index]
        if len(entry) < 12:
            return None
        name, at, size = struct.unpack(">4sII", entry)
        if name in _COLOUR_TAGS:
            if at + size > len(profile):
                return None
            tags.append((name, profile[at : at + size]))
    table = struct.pack(">I", len(tags))
    body = b""
    start = 132 + 12 * len(tags)
    for name, data in tags:
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    head = bytearray(profile[:128])
    head[0:4] = struct.pack(">I", start + len(body))
    head[4:8] = b"\0" * 4  # who made it,
    head[8] = max(head[8], 4)  # for the kind of words below
    head[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # when,
    head[48:64] = b"\0" * 16  # for which device
    head[80:128] = b"\0" * 48
    return bytes(head) + table + body


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">III2s2sII", 0, 1, 12, b"en", b"US", len(data), 28) + data
