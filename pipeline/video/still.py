"""Still images as a source of one frame and as a sink of one: JPEG, PNG, WebP, BMP and TIFF, through Pillow."""

from __future__ import annotations

import warnings as _warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange
from facestream.pipeline.errors import BadInput, SinkLost
from facestream.pipeline.types import CoveredFrame, Frame, SidePacket, StreamInfo
from facestream.pipeline.video.output import Temporary
from facestream.pipeline.video.uri import Uri, check_file
from PIL import Image, ImageOps, UnidentifiedImageError

_TIME_BASE = Fraction(1, 1000)
FORMATS = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}


class ImageSource:
    """One picture. Turned as its EXIF says, then gray for gray pictures and gbrp for all others.

    alpha and icc_profile are what a frame cannot carry; an ImageSink that is given this source puts them back.
    """

    def __init__(self, uri: Uri) -> None:
        self.uri = uri
        self.alpha: Image.Image | None = None
        self.icc_profile: bytes | None = None
        self._frame: Frame | None = None

    def open(self) -> StreamInfo:
        check_file(Path(self.uri.text), self.uri.shown)
        picture = to_frame(self._read())
        picture.pts, picture.time_base = 0, _TIME_BASE
        self._frame = Frame(0, 0, _TIME_BASE, picture)
        return StreamInfo(self.uri.shown, *self._frame.size, 0, _TIME_BASE, rate=None, frames=1, live=False, still=self)

    def items(self) -> Iterator[Frame | SidePacket]:
        if self._frame is not None:
            yield self._frame
        self._frame = None

    def close(self) -> None:
        self._frame = None

    def _read(self) -> Image.Image:
        """The picture, upright, as L or RGB."""
        try:
            with _warnings.catch_warnings():
                _warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(self.uri.text) as image:
                    return self._decode(image)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise BadInput("the picture is too large to open safely", self.uri.shown, "scale it down first") from None
        except UnidentifiedImageError:
            raise BadInput("it is not a picture, or damaged", self.uri.shown) from None
        except (OSError, ValueError, SyntaxError) as error:  # Pillow's decoders raise all three for broken data
            raise BadInput(f"the picture cannot be decoded ({error})", self.uri.shown) from None

    def _decode(self, image: Image.Image) -> Image.Image:
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a phone's JPEG with a preview behind it
            raise BadInput("it holds several pictures", self.uri.shown, "convert it to a video, or to single pictures")
        self.icc_profile = image.info.get("icc_profile")
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
            rgba = upright.convert("RGBA")
            self.alpha = rgba.getchannel("A")
            return rgba.convert("L" if upright.mode == "LA" else "RGB")
        if upright.mode.startswith("I;16") or upright.mode in ("I", "F"):  # scanners: 16-bit gray
            values = np.asarray(upright, dtype=np.float64)
            return Image.fromarray(np.clip(values / 257, 0, 255).round().astype(np.uint8))
        if upright.mode == "CMYK":  # the profile describes inks: it would be wrong for what is written
            self.icc_profile = None
        return upright.convert("L" if upright.mode in ("1", "L") else "RGB")


class ImageSink:
    """Writes one picture in the format of its suffix, with its colour profile and alpha and with no other metadata.

    EXIF holds where the picture was taken and a thumbnail of it, with the faces uncovered: none of it is written.
    """

    def __init__(self, temporary: Temporary, info: StreamInfo) -> None:
        self.warnings: list[str] = []
        self._path, self._temporary = temporary.target, temporary
        self._still = info.still
        self._done = False

    def write(self, covered: CoveredFrame) -> None:
        """Write the picture. Raises SinkLost, also for a second one."""
        if self._done:
            raise SinkLost("a picture holds one frame", str(self._path), "name a video as the output")
        image = to_image(covered.picture)
        kind = FORMATS[self._path.suffix.lower()]
        if self._still is not None and self._still.alpha is not None and kind in ("PNG", "WEBP", "TIFF"):
            image.putalpha(self._still.alpha)
        options: dict[str, object] = {"icc_profile": self._still.icc_profile} if self._still is not None else {}
        if kind in ("JPEG", "WEBP"):
            options["quality"] = 95
        if kind == "JPEG":
            options["subsampling"] = "4:4:4"
        if kind == "TIFF":
            options["compression"] = "tiff_lzw"
        try:
            image.save(self._temporary.path, format=kind, **options)
        except OSError as error:
            raise SinkLost(error.strerror or str(error), str(self._path)) from None
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
    if image.mode == "L":
        gray = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="gray")
        gray.color_range = ColorRange.JPEG
        return gray
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(format="gbrp")


def to_image(picture: av.VideoFrame) -> Image.Image:
    """A picture as an L (gray) or RGB image, as stored."""
    if picture.format.name == "gray":
        return Image.fromarray(picture.to_ndarray())
    return Image.fromarray(picture.to_ndarray(format="rgb24"))
