"""Opening image files with Pillow."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import Image


def open_image(path: Path) -> Image.Image:
    """Image.open, for HEIC too. Raises what that raises."""
    with path.open("rb") as file:
        if file.read(8)[4:] == b"ftyp":  # ISO/IEC 14496-12, 4.3: so begin HEIC and AVIF, whatever the file's name
            register_heif()
    return Image.open(path)


@lru_cache(maxsize=1)
def register_heif() -> tuple[str, ...]:
    """Make Pillow read and write HEIC; its encoders. Not before it is needed: it takes as long to load as Pillow."""
    from pillow_heif import libheif_info, register_heif_opener

    register_heif_opener(thumbnails=False)
    return tuple(libheif_info()["encoders"])
