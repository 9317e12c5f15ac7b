"""A marker picture and marker words to plant beside pictures and sound, and what is left of them in an output."""

from __future__ import annotations

import base64
import io
import re
import zlib

import numpy as np
from PIL import Image

WORD = "Zaphodmarkerword"
PLACE = "+48.1374+011.5755/"


def marker() -> bytes:
    """A JPEG that no encoder makes by chance: a comment, and pixels of noise."""
    file = io.BytesIO()
    noise = np.random.default_rng(7).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(file, "JPEG", comment=WORD.encode())
    return file.getvalue()


MARK = marker()


def leftovers(data: bytes) -> list[str]:
    """What is left of the markers: as bytes, in UTF-16, in base64 and inside zlib streams."""
    found = []
    parts = [data]
    for match in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", data[: 1 << 20]):
        try:
            parts.append(zlib.decompressobj().decompress(data[match.start() :], 1 << 16))
        except zlib.error:
            continue
    for match in re.finditer(rb"[A-Za-z0-9+/]{200,}={0,2}", data):
        run = match[0][: len(match[0]) // 4 * 4]
        parts += [base64.b64decode(run[shift : len(run) - (4 - shift) % 4]) for shift in range(4)]
    for part in parts:
        for word in (WORD, PLACE):
            coded = (word.encode(), word.encode("utf-16-le"), word.encode("utf-16-be"))
            found += [word] * any(text in part for text in coded)
        if MARK[-300:-240] in part:
            found.append("the picture")
    return sorted(set(found))
