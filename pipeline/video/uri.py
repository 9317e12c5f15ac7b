"""Inputs: what a name means, which files it stands for, its redacted form, and errors on opening."""

from __future__ import annotations

import errno
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import av
from facestream.pipeline.errors import BadInput, Refused, UserError
from facestream.pipeline.url import Url, parse_url, redact, shown_text
from facestream.pipeline.url import expand as expand_secrets
from facestream.pipeline.video import webcam
from facestream.pipeline.video.pipes import STDIN, is_pipe

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".264", ".265", ".360", ".3g2", ".3gp", ".amv", ".asf", ".avc", ".avi", ".divx", ".dv", ".f4v", ".flv",
    ".gif", ".h264", ".h265", ".hevc", ".insv", ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg",
    ".mk3d", ".mkv", ".mod", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts", ".mxf", ".nut", ".obu", ".ogm",
    ".ogv", ".qt", ".rm", ".rmvb", ".tod", ".trp", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".y4m",
))
# fmt: on
# fmt: off
IMAGE_SUFFIXES = frozenset((
    ".avif", ".bmp", ".heic", ".heif", ".hif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp",
))
# Media that is not read here: pictures of other kinds, raw ones, sound alone. In a folder it is named, not passed over.
OTHER_MEDIA_SUFFIXES = frozenset((
    ".aac", ".arw", ".bpg", ".braw", ".cr2", ".cr3", ".crm", ".dng", ".eps", ".exr", ".flac", ".flif", ".hdr",
    ".ico", ".j2k", ".jng", ".jp2", ".jpx", ".jxl", ".m4a", ".m4b", ".mp3", ".nef", ".oga", ".ogg", ".opus", ".orf",
    ".pcx", ".pdf", ".pef", ".pgm", ".pnm", ".ppm", ".psd", ".qoi", ".r3d", ".raf", ".raw", ".rw2", ".sr2",
    ".srw", ".svg", ".swf", ".tga", ".wav", ".wma", ".x3f", ".xcf", ".lrv", ".insp", ".gpr",
))
# fmt: on
MEDIA_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES

_SCHEME = r"^([A-Za-z][A-Za-z0-9+.-]+)://"  # one letter alone is a drive


class Kind(StrEnum):
    """The kind of a source."""

    FILE = "file"
    IMAGE = "image"
    FOLDER = "folder"
    WEBCAM = "webcam"
    RTSP = "rtsp"
    HTTP = "http"
    LAVFI = "lavfi"
    PIPE = "pipe"


@dataclass(frozen=True, slots=True)
class Uri:
    """A source's name. text: what to open (a path, a device, a URL, a graph); redacted: what may be printed, its text
    form. url: a URL, taken apart."""

    kind: Kind
    text: str = field(repr=False)
    redacted: str
    url: Url | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return self.redacted

    @property
    def path(self) -> Path:
        """The file, folder or device. Only for the kinds that have one."""
        return Path(self.text)


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file to work on; relative: where it belongs below an output folder."""

    path: Path
    relative: Path


def parse(text: str | os.PathLike[str]) -> Uri:
    """Parse a source's name. Accesses the disk only to distinguish folders from files.

    Raises BadInput for an empty name and for a scheme that cannot be read.
    """
    name = os.fspath(text)
    if not name.strip():
        raise BadInput("the input has no name")
    if name == STDIN:
        return Uri(Kind.PIPE, name, "standard input")
    if (device := webcam.device_of(name)) is not None:
        return Uri(Kind.WEBCAM, device, device)
    if name.startswith("lavfi:"):
        # A graph may read an address, written in any of the ways in which graphs escape.
        has_address = re.search(r":\\*/\\*/|@", name) is not None
        return Uri(Kind.LAVFI, name.removeprefix("lavfi:"), f"{name.partition('=')[0]}=***" if has_address else name)
    if (scheme := re.match(_SCHEME, name)) and scheme[1].lower() != "file":
        return _parse_url(name)
    if name.startswith("${"):  # all of it comes from the environment, or from a file
        return parse(expand_secrets(name, "the source"))
    return _parse_path(name)


def _parse_url(name: str) -> Uri:
    url = parse_url(name)
    kind = {"rtsp": Kind.RTSP, "rtsps": Kind.RTSP, "http": Kind.HTTP, "https": Kind.HTTP}.get(url.scheme)
    if kind is None:
        raise BadInput(
            f"{url.scheme}:// cannot be read", url.redacted, "use a file, rtsp://, rtsps://, http:// or https://"
        )
    is_plain = not (url.user or url.password or "${" in name)
    return Uri(kind, name if is_plain else url.with_user, url.redacted, url)


def _parse_path(name: str) -> Uri:
    if name.startswith("file://"):
        from urllib.request import url2pathname  # brings HTTP and TLS along: 40 ms for an address that is rare

        name = url2pathname(urlsplit(name).path)
    if ("@" in name or "://" in name) and not os.path.lexists(name):  # an address whose scheme was forgotten
        return Uri(Kind.FILE, name, shown_text(name))
    if os.path.isdir(name):
        return Uri(Kind.FOLDER, name, name)
    if is_pipe(name):
        return Uri(Kind.PIPE, name, name)
    return Uri(Kind.IMAGE if Path(name).suffix.lower() in IMAGE_SUFFIXES else Kind.FILE, name, name)


def expand(
    inputs: Sequence[str | os.PathLike[str]], skip: Path | None = None, left_out: list[str] | None = None
) -> list[MediaFile]:
    """The media files that inputs stand for, sorted by where they belong below an output folder, none of them twice.

    An input is a file, a folder (searched to the bottom) or a glob (`**` goes deep). Files named outright are taken as
    they are; from folders and globs only those with a media suffix, hidden ones left out. A folder that must not be
    looked into, and a link that leads nowhere, come as files, since what they hide would be missed. Folders that are
    links are not entered. skip: a folder to leave out, usually the output folder, which may lie inside an input.
    left_out: gets a line for each file of a folder that is, or may be, media and is not taken.

    Raises BadInput for an input that stands for nothing, and for two files that belong in the same place.
    """
    found: dict[str, MediaFile] = {}
    for item in inputs:
        others: list[tuple[Path, str]] = []
        files = [f for f in _expand_one(os.fspath(item), others) if skip is None or not _inside(f.path, skip)]
        lines = [f"{path}: {why}" for path, why in sorted(others) if skip is None or not _inside(path, skip)]
        if left_out is not None:
            left_out += lines
        if not files:
            do = f"left out: {lines[0]}" if lines else ""
            raise BadInput("there is no video or image in it", redact(os.fspath(item)), do)
        for file in files:
            found.setdefault(os.path.abspath(file.path), file)
    places: dict[Path, MediaFile] = {}
    for file in found.values():
        other = places.setdefault(file.relative, file)
        if other is not file and not _same(file.path, other.path):
            what = f"both this and {other.path} would be written as {file.relative}"
            raise BadInput(what, str(file.path), "rename one")
    return sorted(places.values(), key=lambda file: file.relative.parts)


def _expand_one(name: str, left_out: list[tuple[Path, str]]) -> Iterator[MediaFile]:
    path = Path(name)
    if path.is_dir():
        if _is_closed(path):
            raise BadInput("no permission to look into the folder", redact(name))
        yield from _media(_walk(path, left_out), path, left_out)
    elif path.exists():  # before the glob: names may hold [ and ]
        yield MediaFile(path, Path(path.name))
    elif glob.has_magic(name):
        yield from _media(map(Path, glob.iglob(name, recursive=True)), _fixed_part(path), left_out)
    else:
        raise BadInput("no such file or folder", redact(name))


def _media(paths: Iterable[Path], root: Path, left_out: list[tuple[Path, str]]) -> Iterator[MediaFile]:
    for path in paths:
        relative = path.relative_to(root)
        hidden = any(part.startswith(".") for part in relative.parts)
        media = path.suffix.lower() in MEDIA_SUFFIXES and (path.is_file() or _leads_nowhere(path))
        if not hidden and (media or _is_closed(path)):
            yield MediaFile(path, relative)
        elif (why := _why_left_out(path, media, hidden)) is not None:
            left_out.append((path, why))


def _why_left_out(path: Path, media: bool, hidden: bool) -> str | None:
    """Why a file that may be media is not taken; None for any other file."""
    if path.name.startswith("._") or path.is_dir():  # what macOS keeps beside a file on foreign disks
        return None
    if media and hidden:
        return "it is hidden"
    suffix = path.suffix.lower()
    if suffix in MEDIA_SUFFIXES:
        return "it is no regular file"
    if suffix in OTHER_MEDIA_SUFFIXES:
        return f"{suffix} is not read here"
    if path.is_file() and _looks_like_media(path):
        return "it looks like media, but its suffix says nothing" if not suffix else f"{suffix} is not known here"
    return None


def _looks_like_media(path: Path) -> bool:
    """By the bytes that its kind begins with."""
    try:
        with path.open("rb") as file:
            head = file.read(400)
    except OSError:
        return False
    transport = len(head) > 376 and head[0] == head[188] == head[376] == 0x47
    return head.startswith(_BEGINNINGS) or head[4:8] in (b"ftyp", b"moov", b"mdat") or transport


def is_still(path: Path) -> bool:
    """Whether a file without an image's suffix is one still picture: HEIF and AVIF whatever they are called, since
    FFmpeg takes their tiles for videos; JPEG, PNG, WebP and TIFF where the suffix says nothing."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif"):
        return True
    pictures = (b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*")
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return path.suffix.lower() not in VIDEO_SUFFIXES and (head.startswith(pictures) or webp)


# Matroska, AVI and WebP, FLV, JPEG, PNG, GIF, TIFF, Ogg, ASF, MPEG.
_BEGINNINGS = (
    b"\x1a\x45\xdf\xa3", b"RIFF", b"FLV\x01", b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"OggS",
    b"\x30\x26\xb2\x75", b"\0\0\1\xba", b"\0\0\1\xb3",
)  # fmt: skip


def _walk(root: Path, left_out: list[tuple[Path, str]]) -> Iterator[Path]:
    closed: list[str] = []
    for folder, folders, names in os.walk(root, onerror=lambda error: closed.append(str(error.filename))):
        left_out += [(Path(folder, n), "it is a link to a folder") for n in folders if Path(folder, n).is_symlink()]
        yield from (Path(folder, name) for name in names)
    yield from map(Path, closed)


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _is_closed(path: Path) -> bool:
    """Whether it is a folder without read permission."""
    effective = os.access in os.supports_effective_ids
    return path.is_dir() and not path.is_symlink() and not os.access(path, os.R_OK | os.X_OK, effective_ids=effective)


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _fixed_part(pattern: Path) -> Path:
    """The folders of a glob before its first wildcard, from where its structure is kept."""
    fixed = Path()
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed /= part
    return fixed


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def check_file(path: Path, name: str) -> None:
    """Raises BadInput for a file that cannot contain video, with a clearer message than FFmpeg's."""
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise _explain_os(error, name) from None
    if empty:
        raise BadInput("the file is empty", name)


def explain(error: av.FFmpegError, uri: Uri, opened: bool = False) -> UserError:
    """An FFmpeg exception as one line about this source, without its password.

    opened: whether the source had been opened before the exception.
    """
    live = uri.kind in (Kind.RTSP, Kind.HTTP)
    for kind, (what, do) in _ANSWERS.items():
        if live and isinstance(error, kind):
            return (Refused if kind in _FINAL else BadInput)(what, uri.redacted, do)
    if uri.kind is Kind.WEBCAM and error.errno in _WEBCAM:
        asked = error.errno == 22
        do = "leave --camera-size, -fps, -format away" if asked else webcam.how_to_find()
        return BadInput(_WEBCAM[error.errno], uri.redacted, do)
    if uri.kind is Kind.PIPE:
        what = "it is not a video, or one that cannot be read from a pipe: its index is at its end"
        return BadInput(what, uri.redacted, "write it to a file first, or pipe Matroska or MPEG-TS")
    if isinstance(error, av.error.InvalidDataError):
        if live:
            return BadInput("what it sent is no video", uri.redacted, "check the address, the port and the path")
        return BadInput("it is not a video, or damaged", uri.redacted)
    if uri.kind is Kind.LAVFI:
        return BadInput("FFmpeg cannot build this graph", uri.redacted)
    if uri.kind is Kind.RTSP and error.errno == errno.EPROTONOSUPPORT:
        return BadInput(TRANSPORT_REFUSED, uri.redacted, "the other one: --rtsp-transport udp or tcp, or auto for both")
    if live and error.errno == 5:
        if opened:
            return BadInput("the connection broke off", uri.redacted)
        return BadInput("the host cannot be found or reached", uri.redacted, "check the address and the network")
    if isinstance(error, OSError):
        return _explain_os(error, uri.redacted)
    return BadInput(redact(error.strerror or type(error).__name__), uri.redacted)


TRANSPORT_REFUSED = "it refuses this transport (461)"
# In this order: FFmpeg's classes are not exclusive.
_ANSWERS: dict[type[BaseException], tuple[str, str]] = {
    ConnectionRefusedError: ("it refused the connection", "is it switched on, and the port right?"),
    av.error.HTTPUnauthorizedError: (
        "the user name or password is missing or wrong (401)",
        "give user:password@",
    ),
    av.error.HTTPForbiddenError: ("access is forbidden (403)", "check the user's rights"),
    av.error.HTTPNotFoundError: ("there is no such path on the server (404)", "check what follows the host"),
    av.error.HTTPOtherClientError: ("the server rejected the request (4xx)", "check the address"),
    av.error.HTTPServerError: ("the server failed (5xx)", "try again later"),
    av.error.ExitError: ("it did not answer in time", "check the address and the network"),
    TimeoutError: ("it did not answer in time", "check the address and the network"),
}
_FINAL = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError, av.error.HTTPNotFoundError)
_WEBCAM = {
    2: "there is no such camera",
    13: "no permission to use the camera",
    16: "another program is using the camera",
    19: "the camera has been unplugged",
    22: "the camera does not have this size, rate or format",
    25: "it is not a camera",
}


def _explain_os(error: OSError, name: str) -> UserError:
    if isinstance(error, FileNotFoundError):
        return BadInput("no such file", name)
    if isinstance(error, PermissionError):
        return BadInput("no permission to read it", name)
    if isinstance(error, IsADirectoryError):
        return BadInput("it is a folder, not a video", name, "name one file in it")
    return BadInput(redact(error.strerror or type(error).__name__), name)
