"""Still images as a source of one frame and as a sink of one: JPEG, PNG, WebP, BMP, TIFF, HEIC, AVIF, through Pillow.

Nothing but pixels, transparency and colours goes from one to the other: EXIF, XMP, comments, previews and further
pictures in the same file stay behind. Of the EXIF only the orientation is read, and never fatally.
"""

from __future__ import annotations

import threading
import warnings as _warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange
from facestream.engines.boxes import Array
from facestream.pipeline.errors import BadInput, SinkLost
from facestream.pipeline.images import open_image, register_heif
from facestream.pipeline.types import CoveredFrame, Frame, SidePacket, StreamInfo
from facestream.pipeline.video.icc import colours_of
from facestream.pipeline.video.output import Temporary
from facestream.pipeline.video.uri import Uri, check_file
from PIL import Image, PngImagePlugin, UnidentifiedImageError

_TIME_BASE = Fraction(1, 1000)
FORMATS = {
    ".avif": "AVIF",
    ".bmp": "BMP",
    ".heic": "HEIF",
    ".heif": "HEIF",
    ".hif": "HEIF",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
_HOLD_ALPHA = ("AVIF", "HEIF", "PNG", "TIFF", "WEBP")
BACKGROUND = 255  # white: what is seen through transparent pixels where the output holds none
_PIXEL_BYTES = 13  # of memory for a pixel, at the moment when most is held
_TEXT_BYTES = 64 << 20  # of a PNG's text, which is read past
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_limits = threading.Lock()


class ImageSource:
    """One picture. Turned as its EXIF says, then gray for gray pictures and gbrp for all others.

    alpha and icc_profile are what a frame cannot carry; an ImageSink that is given this source puts them back. Pixels
    that are wholly transparent are white: what they hide may be a face.
    """

    def __init__(self, uri: Uri, max_memory_mb: int = 4096) -> None:
        """max_memory_mb: pictures that need more to be worked on are refused."""
        self.uri = uri
        self.alpha: Image.Image | None = None
        self.icc_profile: bytes | None = None
        self.warnings: list[str] = []
        self._max_memory_mb = max_memory_mb
        self._frame: Frame | None = None

    def open(self) -> StreamInfo:
        check_file(Path(self.uri.text), self.uri.redacted)
        picture = to_frame(self._read())
        picture.pts = 0
        picture.time_base = _TIME_BASE
        self._frame = Frame(0, 0, _TIME_BASE, picture)
        return StreamInfo(
            self.uri.redacted, *self._frame.size, 0, _TIME_BASE, rate=None, frames=1, live=False, still=self
        )

    def items(self) -> Iterator[Frame | SidePacket]:
        if self._frame is not None:
            frame = self._frame
            self._frame = None
            yield frame

    def cancel(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        self._frame = None

    def _read(self) -> Image.Image:
        """The picture, upright, as L or RGB."""
        try:
            with _own_limits(), _warnings.catch_warnings():
                _warnings.simplefilter("ignore")
                with open_image(Path(self.uri.text)) as image:
                    self._check_size(image)
                    return self._decode(image)
        except BadInput:
            raise
        except UnidentifiedImageError:
            raise BadInput("it is not a picture, or damaged", self.uri.redacted) from None
        except MemoryError:
            raise BadInput(
                "there is not enough memory for the picture", self.uri.redacted, "scale it down first"
            ) from None
        except Exception as error:  # decoders raise anything for broken data: struct.error, KeyError, ZeroDivisionError
            reason = " ".join(str(error).split())[:100] or type(error).__name__
            raise BadInput(f"the picture cannot be decoded ({reason})", self.uri.redacted) from None

    def _check_size(self, image: Image.Image) -> None:
        needed = image.width * image.height * _PIXEL_BYTES / 1e6
        if needed > self._max_memory_mb:
            what = f"the picture is {image.width}x{image.height} and needs {needed:.0f} MB of memory"
            raise BadInput(
                what, self.uri.redacted, f"scale it down, or raise decode.max_picture_mb ({self._max_memory_mb})"
            )

    def _decode(self, image: Image.Image) -> Image.Image:
        # MPO is a phone's JPEG with a preview behind it, HEIF may hold a burst: the first, or primary, one is meant.
        if getattr(image, "n_frames", 1) > 1 and image.format not in ("MPO", "HEIF"):
            raise BadInput(
                "it holds several pictures", self.uri.redacted, "convert it to a video, or to single pictures"
            )
        profile = image.info.get("icc_profile")
        image.load()
        turn = _TURNS.get(_orientation(image))
        upright = image.transpose(turn) if turn is not None else image
        if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
            gray = upright.mode in ("LA", "La")
            rgba = upright.convert("RGBA")
            self.alpha = rgba.getchannel("A")
            found = rgba.convert("L" if gray else "RGB")
            found.paste(BACKGROUND if gray else (BACKGROUND,) * 3, mask=self.alpha.point(lambda v: 255 * (v == 0)))
        elif upright.mode.startswith("I") or upright.mode == "F":
            found = self._deep_gray(np.asarray(upright))
        elif upright.mode == "CMYK":
            return upright.convert("RGB")  # its profile describes inks
        else:
            found = upright.convert("L" if upright.mode in ("1", "L") else "RGB")
        self.icc_profile = colours_of(profile, found.mode == "L")
        return found

    def _deep_gray(self, values: Array) -> Image.Image:
        """Gray of 16 or 32 bits (scanners), or floating point (0..1, or 0..255)."""
        low = float(values.min())
        high = float(values.max())
        if not np.isfinite(low + high) or low < 0 or high > (255 if values.dtype.kind == "f" else 65535):
            what = f"its pixels are numbers from {low:g} to {high:g}, of which the range is not known"
            raise BadInput(what, self.uri.redacted, "convert it to 8 or 16 bits first")
        full_scale = 65535.0 if values.dtype.kind != "f" else 1.0 if high <= 1 else 255.0
        return Image.fromarray((values * (255 / full_scale)).round().clip(0, 255).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # broken EXIF: it is thrown away anyhow
        return 1


@contextmanager
def _own_limits() -> Iterator[None]:
    """Pillow's limits of pixels and of text are replaced by ours while a picture is read."""
    with _limits:
        before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
        Image.MAX_IMAGE_PIXELS = None
        PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _TEXT_BYTES
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = before


class ImageSink:
    """Writes one picture in the format of its suffix, with its colour profile and alpha and with no other metadata."""

    def __init__(self, temporary: Temporary, info: StreamInfo) -> None:
        self.warnings: list[str] = []
        self._path = temporary.target
        self._temporary = temporary
        self._still = info.still
        self._done = False

    def write(self, covered: CoveredFrame) -> None:
        """Write the picture. Raises SinkLost, also for a second one."""
        if self._done:
            raise SinkLost("a picture holds one frame", str(self._path), "name a video as the output")
        image = to_image(covered.picture)
        kind = FORMATS[self._path.suffix.lower()]
        alpha = self._still.alpha if self._still is not None else None
        if alpha is not None and kind in _HOLD_ALPHA:
            image.putalpha(alpha)
        elif alpha is not None:
            white = BACKGROUND if image.mode == "L" else (BACKGROUND,) * 3
            image = Image.composite(image, Image.new(image.mode, image.size, white), alpha)
        options: dict[str, object] = {}
        if self._still is not None and self._still.icc_profile is not None:
            options["icc_profile"] = self._still.icc_profile
        if kind in ("JPEG", "WEBP", "AVIF", "HEIF"):
            options["quality"] = 95
        if kind == "HEIF" and "x265" in register_heif():
            options["enc_params"] = {"preset": "veryfast"}  # half the time of its own choice, 7 % more bytes
        if kind == "JPEG":
            options["subsampling"] = "4:4:4"
        if kind == "TIFF":
            options["compression"] = "tiff_lzw"
        try:
            image.save(self._temporary.path, format=kind, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise SinkLost(getattr(error, "strerror", None) or str(error), str(self._path)) from None
        self._done = True

    def copy(self, packet: SidePacket) -> None:
        """A picture has no place for sound: dropped."""

    def close(self) -> None:
        """Put the picture in its place. Raises SinkLost where none was written."""
        if not self._done:
            self.abort()
            raise SinkLost("no frame arrived, nothing was written", str(self._path))
        self._temporary.commit()

    def abort(self) -> None:
        """Leave nothing behind."""
        self._temporary.discard()


def to_frame(image: Image.Image) -> av.VideoFrame:
    """An L or RGB image as a gray or gbrp picture."""
    pixels = np.asarray(image)
    if image.mode == "L":
        gray = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="gray")
        gray.color_range = ColorRange.JPEG
        return gray
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="gbrp")


def to_image(picture: av.VideoFrame) -> Image.Image:
    """A picture as an L (gray) or RGB image, as stored."""
    if picture.format.name == "gray":
        return Image.fromarray(picture.to_ndarray())
    return Image.fromarray(picture.to_ndarray(format="rgb24"))
