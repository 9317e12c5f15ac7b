"""Detector timings that can be repeated: the detectors alternate, and medians are reported."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from facestream.benchmarks.baselines import BASELINES, load_baseline
from facestream.engines.base import Detector
from facestream.engines.loader import load_detector, shipped
from facestream.engines.options import DetectorOptions
from facestream.pipeline.errors import UserError
from tqdm import tqdm

SIZES = ((320, 192), (640, 384), (1280, 736))


@dataclass(frozen=True, slots=True)
class Timing:
    """ms: median CPU milliseconds per image, by size. ratio: median of the per-round ratios to `against`, so that a
    busy machine slows both alike."""

    ms: dict[str, float]
    ratio: dict[str, float]


def time_detectors(
    rounds: int, threads: int, against: str, engines: tuple[str, ...], progress: bool
) -> tuple[dict[str, Timing], list[str]]:
    """Time each shipped model, each of `engines` (paths) and each baseline on the same noise images, with one runtime
    for all .onnx files: net and box decoding, no NMS.

    Returns the timings, and a message for each baseline that is not available.
    """
    options = DetectorOptions(threads=threads)
    detectors: dict[str, Detector] = {name: load_detector(name, options) for name in (*shipped(), *engines)}
    absent = []
    for name in BASELINES:
        try:
            detectors[name] = load_baseline(name, options)
        except (UserError, ModuleNotFoundError) as e:
            absent.append(f"{name} is left out: {e}")
    against = against if against in detectors else next(iter(detectors))
    spent: dict[str, dict[str, list[float]]] = {name: {} for name in detectors}
    rng = np.random.default_rng(0)
    with tqdm(total=len(SIZES) * rounds, unit="round", disable=None if progress else True) as bar:
        for width, height in SIZES:
            picture = rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
            for turn in range(rounds + 1):
                for name, detector in detectors.items():
                    began = time.process_time()
                    detector.infer(picture)
                    if turn:  # the first round warms up
                        spent[name].setdefault(f"{width}x{height}", []).append(1000 * (time.process_time() - began))
                bar.update(bool(turn))
    return {name: _timing(times, spent[against]) for name, times in spent.items()}, absent


def _timing(times: dict[str, list[float]], against: dict[str, list[float]]) -> Timing:
    ratios = {size: median(a / b for a, b in zip(values, against[size], strict=True)) for size, values in times.items()}
    return Timing(
        {size: round(median(values), 2) for size, values in times.items()},
        {size: round(ratio, 3) for size, ratio in ratios.items()},
    )


def table(timings: dict[str, Timing], against: str) -> str:
    """The timings as text, a line per detector."""
    sizes = list(next(iter(timings.values())).ms)
    wide = max(12, *(len(name) + 1 for name in timings))
    lines = [f"{'ms of CPU':<{wide}}" + "".join(f"{size:>12}" for size in sizes) + f"   x {against}"]
    for name, timing in timings.items():
        ms = "".join(f"{timing.ms[size]:>12.1f}" for size in sizes)
        lines.append(f"{name:<{wide}}{ms}   " + " / ".join(f"{timing.ratio[size]:.2f}" for size in sizes))
    return "\n".join(lines)


def as_json(timings: dict[str, Timing]) -> dict[str, Any]:
    return {name: {"ms": t.ms, "ratio": t.ratio} for name, t in timings.items()}
