"""Marks that say how a picture is to be shown, written into a finished file: the shape of its pixels into Matroska and
WebM, whose muxer takes it from no encoder but x264's and x265's, and that it is a sphere or stereoscopic into these and
into MP4 and MOV.

Sources: Matroska (RFC 9559, sections 5.1.4.1.28 and 18), Google's Spherical Video V2 (boxes st3d, sv3d).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.sidedata.sidedata import Type as SideDataType
from facestream.pipeline.video.picture import is_subsampled_both_ways, side_data

_HEAD = 1 << 20  # bytes in which a Matroska file's description of its tracks is looked for
_SEGMENT = b"\x18\x53\x80\x67"
_SEEK_HEAD = b"\x11\x4d\x9b\x74"
_VOID = b"\xec"
_TRACKS = b"\x16\x54\xae\x6b"
_TRACK = b"\xae"
_TYPE = b"\x83"
_VIDEO = b"\xe0"
_PROJECTION = b"\x76\x70"
_CRC = b"\xbf"
_VIDEO_TYPE = 1
_WIDTH = b"\x54\xb0"
_HEIGHT = b"\x54\xba"
_STEREO = b"\x53\xb8"
_DISPLAY = (_WIDTH, _HEIGHT, b"\x54\xb2")
# A Matroska video track's colours, and in them where the chroma samples lie: 1 left or top, 2 in the middle.
_COLOURS = (_SEGMENT, _TRACKS, _TRACK, _VIDEO, b"\x55\xb0")
_SITING = (b"\x55\xb7", b"\x55\xb8")
_LOCATIONS = {(1, 1): "topleft", (1, 2): "left", (2, 1): "top", (2, 2): "center"}
_SEEK = b"\x4d\xbb"
_SEEK_POSITION = b"\x53\xac"
# FFmpeg's numbers of projections.
_EQUIRECTANGULAR = 0
_CUBE = 1
_TILE = 2
_SIDE_BY_SIDE = 1
_TOP_BOTTOM = 2
_INVERTED = 1


@dataclass(frozen=True, slots=True)
class Sphere:
    """A picture of all directions. projection: FFmpeg's number. yaw, pitch, roll: degrees in 1/65536. bounds: what an
    equirectangular picture lacks at the left, top, right and bottom, in 1/2**32. padding: of a cube's faces, pixels."""

    projection: int
    yaw: int
    pitch: int
    roll: int
    bounds: tuple[int, int, int, int]
    padding: int


@dataclass(frozen=True, slots=True)
class Marks:
    """How a picture is to be shown. stereo: FFmpeg's number of where the two eyes' pictures are, and whether the right
    eye's comes first."""

    sphere: Sphere | None = None
    stereo: tuple[int, bool] | None = None

    def __bool__(self) -> bool:
        return self.sphere is not None or self.stereo is not None


def marks_of(picture: av.VideoFrame) -> Marks:
    """What a decoded picture says of itself; what we cannot write again is left out."""
    attached = side_data(picture)
    sphere = attached.get(SideDataType.SPHERICAL)
    stereo = attached.get(SideDataType.STEREO3D)
    found = None
    if sphere is not None and len(sphere) >= 36:
        kind, yaw, pitch, roll, *rest = struct.unpack("=i3i5I", sphere[:36])
        if kind in (_EQUIRECTANGULAR, _CUBE, _TILE):
            left, top, right, bottom, padding = rest
            found = Sphere(kind, yaw, pitch, roll, (left, top, right, bottom), padding)
    eyes = None
    if stereo is not None and len(stereo) >= 8:
        kind, flags = struct.unpack("=2i", stereo[:8])
        if kind in (_SIDE_BY_SIDE, _TOP_BOTTOM):
            eyes = kind, bool(flags & _INVERTED)
    return Marks(found, eyes)


def chroma_location_of(video: av.VideoStream) -> str | None:
    """Where a 4:2:0 stream's chroma samples lie, by FFmpeg's name; None if it is unknown, or below the luma samples.

    PyAV does not tell, but FFmpeg writes it into the description of a Matroska track.
    """
    name = video.codec_context.pix_fmt
    if name is None or not is_subsampled_both_ways(name):
        return None
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="matroska") as description:
            description.add_stream_from_template(video, opaque=True)
            description.start_encoding()
        data = file.getvalue()
        for part in _COLOURS:
            data = _content(data, part)
        across, down = (int.from_bytes(_content(data, part), "big") for part in _SITING)
    except (av.FFmpegError, ValueError, IndexError):  # Matroska holds no such codec
        return None
    return _LOCATIONS.get((across, down))


def mark(path: Path, kind: str, aspect: Fraction | None, marks: Marks) -> bool:
    """Write the marks into a finished file; kind: its container. False where it is not built as we know it: then it is
    left as it was."""
    try:
        if kind in ("matroska", "webm"):
            return _mark_matroska(path, aspect, marks)
        return _mark_mp4(path, marks)
    except (struct.error, ValueError, IndexError):
        return False


def _mark_matroska(path: Path, aspect: Fraction | None, marks: Marks) -> bool:
    """The description of the tracks grows into the empty space that the muxer left in front of it."""
    with path.open("r+b") as file:
        head = file.read(_HEAD)
        segment = next((body for name, _, body, _ in _elements(head, 0, len(head)) if name == _SEGMENT), None)
        if segment is None:
            return False
        parts: dict[bytes, tuple[int, int, int]] = {}
        for name, start, body, end in _elements(head, segment, len(head)):
            if name in (_SEEK_HEAD, _VOID, _TRACKS):
                parts.setdefault(name, (start, body, end))
            if name == _TRACKS:
                break
        if len(parts) < 3 or not parts[_SEEK_HEAD][0] < parts[_VOID][0] < parts[_TRACKS][0]:
            return False
        start, body, end = parts[_TRACKS]
        if end > len(head):
            return False
        tracks = _element(_TRACKS, _with_crc(_marked_tracks(head[body:end], aspect, marks)))
        grown = len(tracks) - (end - start)
        at, _, until = parts[_VOID]
        space = until - at - grown
        if space < 2:
            return False
        length = 1 if space < 100 else 8
        rest = space - 1 - length
        void = _VOID + (1 << 7 * length | rest).to_bytes(length, "big") + bytes(rest)
        seek, seek_body, seek_end = parts[_SEEK_HEAD]
        moved = range(until - segment, start - segment + 1)
        index = _with_crc(_moved_index(bytearray(head[seek_body:seek_end]), moved, grown))
        made = head[seek:seek_body] + index + head[seek_end:at] + void + head[until:start] + tracks
        if len(made) != end - seek:
            return False
        file.seek(seek)
        file.write(made)
        return True


def _marked_tracks(data: bytes, aspect: Fraction | None, marks: Marks) -> bytes:
    out = b""
    for name, start, body, end in _elements(data, 0, len(data)):
        track = data[body:end] if name == _TRACK else b""
        fields = {key: track[first:last] for key, _, first, last in _elements(track, 0, len(track))}
        if int.from_bytes(fields.get(_TYPE, b""), "big") != _VIDEO_TYPE:
            out += data[start:end]
            continue
        made = b""
        for key, first, inner, last in _elements(track, 0, len(track)):
            whole = track[first:last]
            if key == _VOID:
                continue
            made += _element(_VIDEO, _marked_video(track[inner:last], aspect, marks)) if key == _VIDEO else whole
        out += _element(_TRACK, made)
    return out


def _marked_video(data: bytes, aspect: Fraction | None, marks: Marks) -> bytes:
    fields = {key: data[body:end] for key, _, body, end in _elements(data, 0, len(data))}
    replaced = _DISPLAY if aspect is not None else ()
    out = b"".join(data[start:end] for key, start, _, end in _elements(data, 0, len(data)) if key not in replaced)
    if aspect is not None:
        width, height = (int.from_bytes(fields[key], "big") for key in (b"\xb0", b"\xba"))
        out += _number(_WIDTH, round(width * max(aspect, Fraction(1)))) + _number(
            _HEIGHT, round(height / min(aspect, Fraction(1)))
        )
    if marks.stereo is not None and _STEREO not in fields:
        kind, right_first = marks.stereo
        modes = {_SIDE_BY_SIDE: (1, 11), _TOP_BOTTOM: (3, 2)}
        out += _number(_STEREO, modes[kind][right_first])
    if marks.sphere is not None:
        if _PROJECTION in fields:
            raise ValueError("the projection is taken by a rotation")
        out += _element(_PROJECTION, _projection(marks.sphere))
    return out


def _projection(sphere: Sphere) -> bytes:
    left, top, right, bottom = sphere.bounds
    if sphere.projection == _CUBE:
        private = struct.pack(">III", 0, 0, sphere.padding)
    else:
        private = struct.pack(">I4I", 0, top, bottom, left, right) if any(sphere.bounds) else b""
    out = _number(b"\x76\x71", 2 if sphere.projection == _CUBE else 1)
    if private:
        out += _element(b"\x76\x72", private)
    for name, angle in ((b"\x76\x73", sphere.yaw), (b"\x76\x74", sphere.pitch), (b"\x76\x75", sphere.roll)):
        if angle:
            out += _element(name, struct.pack(">f", angle / 65536))
    return out


def _moved_index(data: bytearray, moved: range, by: int) -> bytes:
    """The index of the top elements, after those at `moved` have come nearer by so many bytes."""
    for entry, _, body, end in list(_elements(bytes(data), 0, len(data))):
        if entry != _SEEK:
            continue
        for name, _, first, last in list(_elements(bytes(data), body, end)):
            position = int.from_bytes(data[first:last], "big")
            if name == _SEEK_POSITION and position in moved:
                data[first:last] = (position - by).to_bytes(last - first, "big")
    return bytes(data)


def _with_crc(data: bytes) -> bytes:
    """A master element's content, with its checksum anew where it has one."""
    if data[:2] != _CRC + b"\x84":
        return data
    return data[:2] + struct.pack("<I", zlib.crc32(data[6:])) + data[6:]


def _elements(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """EBML elements: identifier, start, start and end of the content."""
    while at < end:
        letters = 9 - data[at].bit_length()
        length = 9 - data[at + letters].bit_length()
        if letters > 4 or length > 8:
            raise ValueError("not an element")
        size = int.from_bytes(data[at + letters : at + letters + length], "big") & ((1 << 7 * length) - 1)
        body = at + letters + length
        yield data[at : at + letters], at, body, body + size
        at = body + size


def _content(data: bytes, wanted: bytes) -> bytes:
    """Of the first element with this identifier; empty if there is none."""
    found = (data[body:end] for name, _, body, end in _elements(data, 0, len(data)) if name == wanted)
    return next(found, b"")


def _element(name: bytes, data: bytes) -> bytes:
    length = next(length for length in (1, 2, 3, 4) if len(data) < (1 << 7 * length) - 1)
    return name + (1 << 7 * length | len(data)).to_bytes(length, "big") + data


def _number(name: bytes, value: int) -> bytes:
    return _element(name, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def _mark_mp4(path: Path, marks: Marks) -> bool:
    """The description grows; it stands behind the pictures, whose places stay, or is moved there."""
    with path.open("r+b") as file:
        found = {name: (start, size) for name, start, size in _top_boxes(file)}
        if b"moov" not in found or b"moof" in found:
            return False
        start, size = found[b"moov"]
        file.seek(start)
        moov = file.read(size)
        grown = _grown(moov, (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"), _boxes(marks))
        if grown == moov:
            return False
        file.seek(0, 2)
        if start + size == file.tell():
            file.seek(start)
        else:
            file.seek(start + 4)
            file.write(b"free")
            file.seek(0, 2)
        file.write(grown)
        return True


def _top_boxes(file: Any) -> Iterator[tuple[bytes, int, int]]:
    at = 0
    while True:
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return
        size, name = struct.unpack(">I4s", head[:8])
        if size == 1:
            size = struct.unpack(">Q", head[8:16])[0]
        if size < 8:
            raise ValueError("not a box")
        yield name, at, size
        at += size


def _grown(box: bytes, way: tuple[bytes, ...], more: bytes) -> bytes:
    """A box with more bytes at the end of the video's sample description, which lies on this way."""
    name = box[4:8]
    inner = box[8:]
    if name != way[0]:
        return box
    if name == b"stsd":
        entry = struct.unpack(">I", inner[8:12])[0]
        first = inner[8 : 8 + entry]
        others = inner[8 + entry :]
        made = inner[:8] + struct.pack(">I", entry + len(more)) + first[4:] + more + others
        return struct.pack(">I", 8 + len(made)) + name + made
    parts = []
    while inner:
        size = struct.unpack(">I", inner[:4])[0]
        if size < 8:
            raise ValueError("not a box")
        parts.append(inner[:size])
        inner = inner[size:]
    if name == b"mdia" and not any(part[4:8] == b"hdlr" and part[16:20] == b"vide" for part in parts):
        return box
    made = b"".join(_grown(part, way[1:], more) for part in parts)
    return struct.pack(">I", 8 + len(made)) + name + made


def _boxes(marks: Marks) -> bytes:
    out = b""
    if marks.stereo is not None:
        out += _box(b"st3d", bytes(4) + bytes([{_SIDE_BY_SIDE: 2, _TOP_BOTTOM: 1}[marks.stereo[0]]]))
    if marks.sphere is not None:
        sphere = marks.sphere
        left, top, right, bottom = sphere.bounds
        if sphere.projection == _CUBE:
            shape = _box(b"cbmp", struct.pack(">III", 0, 0, sphere.padding))
        else:
            shape = _box(b"equi", struct.pack(">I4I", 0, top, bottom, left, right))
        pose = _box(b"prhd", struct.pack(">I3i", 0, sphere.yaw, sphere.pitch, sphere.roll))
        out += _box(b"sv3d", _box(b"svhd", bytes(5)) + _box(b"proj", pose + shape))
    return out


def _box(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(data), name) + data
