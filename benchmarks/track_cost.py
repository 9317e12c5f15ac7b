"""Tracking cost: CPU milliseconds per frame of the pipeline without its detector, with and without camera motion.

python benchmarks/track_cost.py CLIP.mp4 [--rounds 5] [--lag 15]

The detector runs once; its results are replayed in the timed rounds. Prints medians over the rounds, which alternate.
Measures the thread's CPU time (OpenCV on one thread too), so that other programs affect it little.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import click
import cv2
from facestream.benchmarks.leak_table import Known
from facestream.engines.command import finish
from facestream.engines.loader import load_detector
from facestream.pipeline.config import Config, read
from facestream.pipeline.stages import chain
from facestream.pipeline.types import Frame
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.source import open_source

PARTS = {
    "analyse": (("analyser", "push"),),
    "track": (("tracking", "summary"), ("tracking", "update")),
    "look-ahead": (("lookahead", "push"), ("lookahead", "flush")),
}


def timed(call: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    def inner(*arguments: Any, **more: Any) -> Any:
        began = time.thread_time()
        try:
            return call(*arguments, **more)
        finally:
            spent[name] += time.thread_time() - began

    return inner


def cost(clip: Path, config: Config, detector: Known) -> tuple[dict[str, float], float]:
    """CPU milliseconds per frame of each part, and boxes per frame."""
    spent: dict[str, float] = defaultdict(float)
    line: Any = chain.FacePipeline(detector, config)
    for name, calls in PARTS.items():
        for part, method in calls:
            owner = getattr(line, part)
            setattr(owner, method, timed(getattr(owner, method), spent, name))
    source = open_source(str(clip), SourceOptions())
    frames = 0
    boxes = 0
    try:
        source.open()
        for item in source.items():
            if isinstance(item, Frame):
                frames += 1
                boxes += sum(len(done.boxes) for done in line.push(item))
        boxes += sum(len(done.boxes) for done in line.flush())
    finally:
        source.close()
    return {name: 1000 * seconds / max(1, frames) for name, seconds in spent.items()}, boxes / max(1, frames)


@click.command()
@click.argument("clip", type=click.Path(path_type=Path, exists=True))
@click.option("--model", help="shipped model's name or file")
@click.option("--lag", type=int, help="as [tracker] lookahead")
@click.option("--rounds", default=5, show_default=True)
def track_cost(clip: Path, model: str | None, lag: int | None, rounds: int) -> None:
    """Print the CPU time per frame of each part of the tracking."""
    cv2.setNumThreads(1)
    flags = {"detector.model": model, "tracker.lookahead": lag}
    base = read(None, flags)
    known = Known(load_detector(base.detector.model, base.detector.options()), 0.0)
    cost(clip, base, known)
    rows: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    boxes = 0.0
    for _ in range(rounds):
        for motion, runs in rows.items():
            spent, boxes = cost(clip, read(None, {**flags, "tracker.motion": motion}), known)
            runs.append(spent)
    print(f"{clip.name}, {boxes:.1f} boxes per frame; CPU ms per frame, median of {rounds}")
    print(f"{'camera motion':<16}" + "".join(f"{name:>15}" for name in (*PARTS, "track + ahead", "all")))
    for motion, runs in rows.items():
        parts = [median(spent.get(name, 0.0) for spent in runs) for name in PARTS]
        parts += [parts[2] + parts[3], sum(parts)]
        print(f"{'with' if motion else 'without':<16}" + "".join(f"{ms:>15.2f}" for ms in parts))


if __name__ == "__main__":
    finish(track_cost, "track_cost")
