"""Milliseconds per image at the paper's four sizes, on this machine's device (table 2)."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import mean, median

import numpy as np
from facestream.engines.base import Detector
from facestream.engines.boxes import Array
from facestream.train.test_scales import InputSize

# size, and the paper's ms on a Quadro P6000
TABLE_2 = {"400x800": 48, "600x1000": 74, "800x1200": 107, "1200x1600": 182}


def pictures(paths: list[Path], count: int) -> list[Array]:
    """The first `count` images of a data set; where there is none, one random picture of 1024x768."""
    from facestream.train.data import read_image

    existing = [p for p in paths if p.is_file()][:count]
    if existing:
        return [read_image(p) for p in existing]
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return [noise.repeat(16, 0).repeat(16, 1)]


def timed(detector: Detector, images: list[Array], repeats: int = 3) -> dict[str, dict[str, float]]:
    """size -> {"ms": mean over images, of each the median of `repeats`, "paper_ms"}: network, decoding and NMS, without
    reading and scaling the picture; each size is run once before it is timed."""
    out = {}
    for name, paper in TABLE_2.items():
        first, second = (int(v) for v in name.split("x"))
        views = [InputSize(first, second).view(rgb) for rgb in images]
        detector.detect(views[:1])
        each = []
        for view in views:
            runs = []
            for _ in range(repeats):
                start = time.perf_counter()
                detector.detect([view])
                runs.append(time.perf_counter() - start)
            each.append(median(runs))
        out[name] = {"ms": round(1000 * mean(each), 1), "paper_ms": paper}
    return out
