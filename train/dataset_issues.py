"""Issues of a data set, by file and line: they are counted and left out, or the first one ends the run."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from pathlib import Path

import numpy as np
from facestream.engines.boxes import Array, Bool
from facestream.engines.errors import BadInput
from PIL import Image

log = logging.getLogger(__name__)

LOGGED = 3  # of each kind; further ones are only counted


class DatasetIssues:
    """Counts issues by kind; the first few of each kind are logged. stop: the first one raises
    BadInput instead. Thread-safe."""

    def __init__(self, stop: bool = False) -> None:
        self.stop = stop
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, kind: str, where: str, what: str) -> None:
        """kind: the count's name; where: `file` or `file:line`; what: the issue itself."""
        if self.stop:
            raise BadInput(what, where, "mend it, or leave such things out with: --set on_bad=skip")
        with self._lock:
            self.counts[kind] += 1
            if self.counts[kind] <= LOGGED:
                more = " (further ones are only counted)" if self.counts[kind] == LOGGED else ""
                log.warning("%s: %s%s", where, what, more)

    def summary(self) -> str:
        """`left out: 3 box outside the image, 1 unreadable image`, or nothing."""
        return "left out: " + ", ".join(f"{n} {kind}" for kind, n in self.counts.items()) if self.counts else ""


def check_image_file(path: Path) -> tuple[int, int]:
    """(width, height) of a picture whose file is complete. BadInput when it is missing, cut short or no picture.

    A file with its format's end mark is believed; one without is decoded to the end, because OpenCV fills what is
    missing with grey and says nothing.
    """
    if not path.is_file():
        raise BadInput("not found", str(path))
    try:
        with Image.open(path) as image:
            size = image.size
            if not _ends(path):
                image.load()
    except Exception as e:  # Pillow raises OSError, SyntaxError, ValueError and more for broken files
        raise BadInput(f"cannot read the image ({str(e).splitlines()[0][:120] if str(e) else type(e).__name__})",
                       str(path)) from None  # fmt: skip
    return size


def _ends(path: Path) -> bool:
    """Whether the file's own marks say that it is whole; False for formats without, which have to be decoded."""
    with path.open("rb") as file:
        head = file.read(12)
        length = file.seek(0, 2)
        file.seek(max(0, length - 64))
        tail = file.read()
    if head[:2] == b"\xff\xd8":
        return tail.rstrip(b"\0\n\r").endswith(b"\xff\xd9")
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return length >= int.from_bytes(head[4:8], "little") + 8
    return head[:4] == b"\x89PNG" and b"IEND" in tail


def clip_boxes(
    xyxy: Array, ignore: Bool, size: tuple[int, int], where: str, line: int, issues: DatasetIssues
) -> tuple[Array, Bool]:
    """Boxes [N, 4] cut to a picture of `size` (width, height); those that lie outside it become ignored.

    line: of the first box in the file `where`. Ignored boxes are cut without a word.
    """
    limit = np.array([*size, *size], np.float32)
    cut = np.clip(xyxy, 0, limit).astype(np.float32)
    empty = np.asarray((cut[:, 2:] <= cut[:, :2]).any(1))
    over = np.asarray((np.abs(cut - xyxy) > 1).any(1))  # a pixel is rounding
    for i in np.flatnonzero(~ignore & (over | empty)):
        x0, y0, x1, y1 = (float(v) for v in xyxy[i])
        box = f"{x0:g} {y0:g} {x1 - x0:g} {y1 - y0:g}"
        inside = "outside" if empty[i] else "partly outside"
        issues.add(f"box {inside} the image", f"{where}:{line + i}",
                   f"box {box} is {inside} the {size[0]}x{size[1]} image")  # fmt: skip
    return cut, ignore | empty
