"""How good the review's list of moments and its estimate are, on clips with truth.

    python benchmarks/review_risk.py CLIPS... [--weak] [--cache FOLDER] [-o RESULT.json]

CLIPS are folders with NAME.truth.txt (MOT rows) beside NAME.mp4, .avi or .mkv. For each clip the faces are found with
the default settings (--weak: with a small input, every fourth frame and no look-ahead, so that more is missed), the
list is made as `facestream review --list` makes it, and held against the truth. Open is what `evaluate leaks` calls a
leak: less than 95 % of a face's ellipse is covered; faces under 10 px do not count.

--cache keeps each clip's result by the settings and both nets: an interrupted run goes on, and --cached sums
up what is there without measuring anything.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import msgspec
import numpy as np
from facestream.benchmarks.clips import clips_in
from facestream.engines.loader import WEIGHTS
from facestream.pipeline.batch import manifest
from facestream.pipeline.config import Config, read
from facestream.pipeline.detectors import detector_of
from facestream.pipeline.evaluate.leaks import LeakMeter, read_truth
from facestream.pipeline.evaluate.tally import TAU
from facestream.pipeline.review.command import Recorders, found_of
from facestream.pipeline.review.scout import Scout, SecondDetector
from facestream.pipeline.run import Job, run
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.source import open_source
from msgspec import Struct

SMALLEST = 10.0
BUDGETS = (10, 30, 60)  # seconds of the list
DRAWS = 2000  # random lists


class Listed(Struct):
    """One moment of the list: its risk, first and last frame."""

    risk: float
    start: int
    end: int


class Clip(Struct):
    """open: frame -> faces that are open there. faces: face-frames. frames, rate: of the clip. share, low, high: the
    estimate of what is open, with its interval."""

    name: str
    moments: list[Listed]
    share: float
    low: float
    high: float
    open: dict[int, int]
    faces: int
    frames: int
    rate: float

    @property
    def real(self) -> float:
        """The share that is open."""
        return sum(self.open.values()) / max(1, self.faces)

    @property
    def holds(self) -> bool:
        return self.low <= self.real <= self.high


def measure(video: Path, truth: Path, config: Config) -> Clip:
    """One clip gone through."""
    source = open_source(str(video), SourceOptions())
    info = source.open()
    source.close()
    rate = float(info.rate or 25)
    scout = Scout(config, info.frames, rate)
    meter = LeakMeter(read_truth(truth), config.cover, SMALLEST)
    keep = Recorders(scout, meter)
    run(Job(str(video), None), config, detector_of(config), keep, progress=False)
    found = found_of(keep.rows, scout.notes, scout.size, rate, config)
    sights = [sight for some in meter.tally.face_frames.values() for sight in some]
    open_: dict[int, int] = {}
    for sight in sights:
        if sight.share < TAU:
            open_[sight.frame] = open_.get(sight.frame, 0) + 1
    moments = [Listed(m.risk, m.start, m.end) for m in found.moments]
    e = found.estimate
    name = truth.name.removesuffix(".truth.txt")
    return Clip(name, moments, e.share, e.low, e.high, open_, len(sights), len(keep.rows), rate)


def key_of(config: Config) -> str:
    """Changes with the settings, the software's version and either net."""
    second = SecondDetector(config.detector).name.split(",")[0]
    parts = manifest.fingerprint(config, False), manifest.sha256(WEIGHTS / f"{second}.onnx")
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def caught(clips: list[Clip], budget: float) -> tuple[float, float, float]:
    """Share of the open face-frames of all clips in the first `budget` seconds of the one list of all; the same for
    random moments of the same lengths (mean); and the budget as a share of all the clips."""
    ranked = sorted(((m.risk, at, m) for at, clip in enumerate(clips) for m in clip.moments), key=lambda r: -r[0])
    total = sum(sum(clip.open.values()) for clip in clips)
    lengths: list[tuple[int, int]] = []  # clip and frames of each moment that is looked at
    seen: set[tuple[int, int]] = set()
    spent = 0.0
    for _, at, m in ranked:
        new = {(at, f) for f in range(m.start, m.end + 1)} - seen
        cost = len(new) / clips[at].rate
        if spent + cost > budget:
            break
        spent += cost
        seen |= new
        lengths.append((at, len(new)))
    ours = sum(clips[at].open.get(f, 0) for at, f in seen)
    rng = np.random.default_rng(0)
    weights = np.array([c.frames / c.rate for c in clips])
    flat = [np.array([c.open.get(f, 0) for f in range(c.frames)]) for c in clips]
    by_chance = []
    for _ in range(DRAWS):
        got = 0
        for at, length in lengths:
            where = int(rng.choice(len(clips), p=weights / weights.sum()))
            length = round(length * clips[where].rate / clips[at].rate)
            start = int(rng.integers(0, max(1, clips[where].frames - length + 1)))
            got += int(flat[where][start : start + length].sum())
        by_chance.append(got)
    return ours / max(1, total), float(np.mean(by_chance)) / max(1, total), spent / float(weights.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description="The review's list and estimate against truth.")
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--weak", action="store_true", help="find faces badly, so that more of them are open")
    parser.add_argument("--cache", type=Path, help="a folder for what was measured, to go on with")
    parser.add_argument("--cached", action="store_true", help="with --cache: sum up, and measure nothing")
    parser.add_argument("-o", "--output", type=Path, help="all of it as JSON")
    options = parser.parse_args()
    flags = {"detector.size": [480, 288], "detector.every": 4, "tracker.lookahead": 0} if options.weak else {}
    config = read(None, flags)
    key = key_of(config)
    clips = []
    for folder in options.clips:
        for name, video, truth in clips_in(folder):
            kept = options.cache / f"{key}-{folder.name}-{name}.json" if options.cache else None
            if kept is not None and kept.is_file():
                clip = msgspec.json.decode(kept.read_bytes(), type=Clip)
            elif options.cached:
                continue
            else:
                clip = measure(video, truth, config)
                if kept is not None:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_bytes(msgspec.json.encode(clip))
            clips.append(clip)
            print(
                f"{name:14s} {clip.faces:5d} face-frames, open {100 * clip.real:6.2f} %, estimate "
                f"{100 * clip.share:6.2f} % ({100 * clip.low:.2f} to {100 * clip.high:.2f}) "
                f"{'holds' if clip.holds else 'MISSES'}; {len(clip.moments)} moments",
                flush=True,
            )
    total = sum(sum(clip.open.values()) for clip in clips)
    print(f"{total} of {sum(clip.faces for clip in clips)} face-frames are open")
    print(f"the interval holds the truth in {sum(clip.holds for clip in clips)} of {len(clips)} clips")
    for budget in BUDGETS if clips else ():
        ours, chance, part = caught(clips, budget)
        text = f"{ours:.0%} of open face-frames, random moments {chance:.0%}"
        print(f"first {budget} s of the list ({part:.0%} of the video): {text}")
    if options.output:
        options.output.write_bytes(msgspec.json.encode(clips))


if __name__ == "__main__":
    main()
