"""Over-blur by cause: where the covers lie that cover no face, over clips with ground truth.

python benchmarks/overblur.py FOLDER [FOLDER...] [--only NAME] [--set STAGE.NAME=VALUE] [--cache DIR] [--peer yunet]

FOLDER holds NAME.truth.txt (MOT, frame from 1) beside NAME.mp4, .mkv or .avi. Each clip is processed once at the
settings; nothing is encoded. All areas are in units of the faces' area (their ellipses), and a pixel counts for the
first cause that holds:

ideal: what covers of the true boxes at `cover.scale` would cover beside the faces. observed, coasted, backfilled,
alternate: what else is covered by tracks that are on a face, by the box's state. false: covers of tracks that never
are, detected in that frame, and inferred. A track is on a face if the centre of one of its detections is inside a true
box (grown by half) whose side is a third to three times as long.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from facestream.benchmarks.baselines import load_baseline
from facestream.benchmarks.clips import clips_in
from facestream.benchmarks.leak_table import Known, cache_of, overrides
from facestream.engines.base import Detector
from facestream.engines.boxes import Array, grow_xyxy
from facestream.engines.command import finish
from facestream.engines.loader import load_detector
from facestream.pipeline.config import Config, read
from facestream.pipeline.errors import BadInput
from facestream.pipeline.evaluate.leaks import LeakMeter, drawn, read_truth
from facestream.pipeline.evaluate.tally import Leaks
from facestream.pipeline.stages.analyse.analyser import Analyser
from facestream.pipeline.stages.chain import FacePipeline, detection_for, policy_for
from facestream.pipeline.stages.types import AnalysedFrame
from facestream.pipeline.types import BoxKind, BoxState, Frame, TrackedFrame
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.source import open_source

CAUSES = ("ideal", "observed", "coasted", "backfilled", "alternate", "false, detected", "false, inferred")


@dataclass(slots=True)
class Kept:
    """An analyser that has done its work: frames as they are given again."""

    frames: Iterator[AnalysedFrame | None]
    last: AnalysedFrame | None

    def push(self, frame: Frame, backlog: bool = False) -> AnalysedFrame | None:
        return next(self.frames)

    def flush(self) -> AnalysedFrame | None:
        return self.last


class Reel:
    """A clip in memory with its truth, its analysis and all that the detector was asked so far.

    Constants of the analysis and of the detector (its threshold, its size) must be those that it is opened with.
    """

    def __init__(self, clip: Path, truth: Path, config: Config, known: Known) -> None:
        self.clip = clip
        self.truth = read_truth(truth)
        self.known = known
        waits = policy_for(known, config).looks_back
        analyser = Analyser(config.tracker.motion, waits, config.advanced)
        self.frames: list[Frame] = []
        self.analysed: list[AnalysedFrame | None] = []
        source = open_source(str(clip), SourceOptions())
        source.open()
        try:
            for item in source.items():
                if isinstance(item, Frame):
                    self.frames.append(item)
                    self.analysed.append(analyser.push(item))
        finally:
            source.close()
        self.last = analyser.flush()

    def run(self, config: Config) -> list[TrackedFrame]:
        """The clip's frames with their final boxes."""
        pipeline = FacePipeline(self.known, config, detection=detection_for(self.known, config))
        stand_in: Any = Kept(iter(self.analysed), self.last)
        pipeline.analyser = stand_in
        done = []
        for frame in self.frames:
            done += pipeline.push(frame)
        done += pipeline.flush()
        self.known.save()
        return done


def reels(
    folders: Sequence[Path], only: Sequence[str], config: Config, cache: Path | None, detector: Detector
) -> list[Reel]:
    """Every clip with truth of these folders."""
    found = []
    for folder in folders:
        for name, clip, truth in clips_in(folder):
            if only and name not in only:
                continue
            found.append(Reel(clip, truth, config, Known(detector, cache_of(clip, config, cache))))
    if not found:
        raise BadInput("no NAME.truth.txt beside a clip", ", ".join(map(str, folders)))
    return found


@dataclass(slots=True)
class Track:
    """detections: their number. best: best score of them. real: it is on a face. frames: in which it is covered.
    area: pixels of its covers, by whether it was detected in that frame."""

    detections: int = 0
    best: float = 0.0
    real: bool = False
    frames: int = 0
    area: dict[bool, int] = field(default_factory=lambda: defaultdict(int))


@dataclass(slots=True)
class Autopsy:
    """What a clip's covers cover. areas: pixels by cause; faces: pixels of the faces."""

    leaks: Leaks
    faces: int
    areas: dict[str, int]
    tracks: dict[int, Track]


def is_on(xyxy: Array, faces: Array) -> bool:
    """Whether a detection xyxy [4] is of one of the faces [N, 4]."""
    if not len(faces):
        return False
    near = grow_xyxy(faces, 1.5)
    centre = (xyxy[:2] + xyxy[2:]) / 2
    inside = ((near[:, :2] <= centre) & (centre <= near[:, 2:])).all(1)
    share = (xyxy[2:] - xyxy[:2]).max() / (faces[:, 2:] - faces[:, :2]).max(1)
    return bool((inside & (share > 1 / 3) & (share < 3)).any())


def autopsy(reel: Reel, config: Config, done: list[TrackedFrame]) -> Autopsy:
    """Attribute every covered pixel."""
    meter = LeakMeter(reel.truth, config.cover)
    tracks: dict[int, Track] = defaultdict(Track)
    for tracked in done:
        meter.write(tracked, "")
        faces = np.array(list(reel.truth.get(tracked.frame.index, {}).values())).reshape(-1, 4)
        for box in tracked.boxes:
            tracks[box.id].frames += 1
            if box.state is BoxState.OBSERVED:
                tracks[box.id].detections += 1
                tracks[box.id].best = max(tracks[box.id].best, box.score)
                tracks[box.id].real |= is_on(np.array(box.xyxy), faces)
    areas = dict.fromkeys(CAUSES, 0)
    inside = 0
    for tracked in done:
        width, height = tracked.frame.size
        truth = np.array(list(reel.truth.get(tracked.frame.index, {}).values())).reshape(-1, 4)
        free = ~drawn(truth, width, height, "ellipse")
        inside += int((~free).sum())
        layers: dict[str, list[Array]] = defaultdict(list)
        for box in tracked.boxes:
            real = tracks[box.id].real
            seen = box.state is BoxState.OBSERVED
            if not real:
                cause = CAUSES[5] if seen else CAUSES[6]
            elif box.kind is BoxKind.FACE:
                cause = box.state.value
            else:
                cause = "alternate"
            layers[cause].append(np.array(box.xyxy))
        under = drawn(_grown(layers, CAUSES[1:], config), width, height, config.cover.shape)
        ideal = drawn(grow_xyxy(truth, config.cover.scale), width, height, config.cover.shape) & under & free
        areas["ideal"] += int(ideal.sum())
        free &= ~ideal
        for cause in CAUSES[1:]:
            if layers[cause]:
                here = drawn(_grown(layers, (cause,), config), width, height, config.cover.shape) & free
                areas[cause] += int(here.sum())
                free &= ~here
        for box in tracked.boxes:
            if not tracks[box.id].real:
                left, top, right, bottom = box.xyxy
                area = (min(right, width) - max(left, 0)) * (min(bottom, height) - max(top, 0))
                tracks[box.id].area[box.state is BoxState.OBSERVED] += int(
                    max(area, 0) * np.pi / 4 * config.cover.scale**2
                )
    return Autopsy(meter.result(), inside, areas, dict(tracks))


def _grown(layers: dict[str, list[Array]], causes: Sequence[str], config: Config) -> Array:
    boxes = [box for cause in causes for box in layers[cause]]
    return grow_xyxy(np.array(boxes).reshape(-1, 4), config.cover.scale)


def line(name: str, parts: Sequence[Autopsy]) -> str:
    faces = max(1, sum(part.faces for part in parts))
    shares = [sum(part.areas[cause] for part in parts) / faces for cause in CAUSES]
    leaked = sum(part.leaks.leaked for part in parts)
    half = sum(round(part.leaks.leak_rate_tau50 * part.leaks.face_frames) for part in parts)
    total = sum(part.leaks.face_frames for part in parts)
    run = max(part.leaks.longest_exposed_run for part in parts)
    figures = " | ".join(f"{share:.2f}" for share in shares)
    return f"| {name} | {leaked} / {total} | {half} | {run} | {1 + sum(shares):.2f} | {figures} |"


HEAD = "| clip | leaked | by half | run | covered | " + " | ".join(CAUSES) + " |\n" + "|---" * (5 + len(CAUSES)) + "|"


@click.command()
@click.argument("folders", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="FOLDER...")
@click.option("--only", multiple=True, metavar="NAME", help="only this clip")
@click.option("--set", "assignments", multiple=True, metavar="STAGE.NAME=VALUE", help="as leak_table's")
@click.option("--cache", type=click.Path(path_type=Path), help="folder that keeps what the detector found")
@click.option("--peer", help="yunet or centerface in place of our detector")
@click.option("--tracks", is_flag=True, help="list the false tracks too")
def table(
    folders: tuple[Path, ...],
    only: tuple[str, ...],
    assignments: tuple[str, ...],
    cache: Path | None,
    peer: str | None,
    tracks: bool,
) -> None:
    """Over-blur of clips with truth, by cause, as a markdown table."""
    config = read(None, overrides(assignments))
    options = config.detector.options()
    detector = load_baseline(peer, options) if peer else load_detector(config.detector.model, options)
    cache = cache and cache / (peer or "own")
    print(HEAD, flush=True)
    parts = []
    for reel in reels(folders, only, config, cache, detector):
        parts.append(autopsy(reel, config, reel.run(config)))
        print(line(reel.clip.stem, parts[-1:]), flush=True)
        if tracks:
            _list(parts[-1])
    print(line("**all**", parts))


def _list(part: Autopsy) -> None:
    rows = [(sum(t.area.values()) / max(1, part.faces), number, t) for number, t in part.tracks.items() if not t.real]
    for share, number, t in sorted(rows, key=lambda row: -row[0])[:12]:
        print(f"  track {number}: {t.detections} detections, best {t.best:.2f}, {t.frames} frames, area {share:.2f}")


if __name__ == "__main__":
    finish(table, "overblur")
