"""Detects truncated files (Matroska and AVI declare their length in the header) and files that are still written."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISREG

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


def missing_bytes(path: Path) -> int:
    """Number of bytes missing at the end; 0 if none or unknown.

    AVI: the RIFF chunk's size, 32 bits, little-endian. Matroska (RFC 8794): the segment's size, of 1 to 8 bytes, which
    a recorder leaves unknown (all ones) until it is stopped.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return 0
    if head[:4] == b"RIFF" and len(head) >= 12:
        return max(0, 8 + int.from_bytes(head[4:8], "little") - size)
    if head[:4] != _EBML:
        return 0
    at = head.find(_SEGMENT) + 4
    length, value = _number(head[at : at + 8]) if at > 4 else (0, None)
    return 0 if value is None else max(0, at + length + value - size)


def gif_loops(path: Path) -> int:
    """How often a GIF is repeated: 0 for ever, -1 never (it says nothing). The extension stands before the pictures."""
    try:
        with path.open("rb") as file:
            head = file.read(65536)
    except OSError:
        return 0
    at = head.find(b"NETSCAPE2.0\x03\x01")
    return -1 if at < 0 else int.from_bytes(head[at + 13 : at + 15], "little")


def file_state(path: Path) -> tuple[int, int] | None:
    """Size in bytes and modification time in ns; if these change, somebody writes to the file. None if unknown."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if S_ISREG(status.st_mode) else None  # a pipe changes all the time


def _number(data: bytes) -> tuple[int, int | None]:
    """Decode EBML's variable-size integer: its length in bytes, and its value, None for "unknown"."""
    length = 9 - data[0].bit_length() if data and data[0] else 0
    if not 0 < length <= len(data):
        return 0, None
    value = int.from_bytes(data[:length], "big") & ((1 << 7 * length) - 1)
    return length, None if value == (1 << 7 * length) - 1 else value
