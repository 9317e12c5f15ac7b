"""Our tracker beside others on the same detections: HOTA, MOTA, IDF1, id switches, and time.

    python -m venv /tmp/baselines && /tmp/baselines/bin/pip install pyxtrackers==2026.3.3 trackers==2.6.1
    python benchmarks/compare_trackers.py MOT17 --baselines /tmp/baselines/bin/python

DATA is a folder like that of `facestream evaluate tracks`: SEQ/det/det.txt, SEQ/gt/gt.txt, SEQ/seqinfo.ini, and for
the rows with camera motion SEQ/gmc.txt. The baselines run in an environment of their own (see baseline_trackers.py),
since they want another OpenCV; without --baselines only ours run. Every tracker gets the detections with a score of
0.1 or more, and scores are trackeval's. What of ours is scored: see pipeline/evaluate/mot.py. "filled": gaps of up to
a second are interpolated, the baselines' too.

Sequences with truth but no detections are tracked by us alone, with the truth's boxes as detections: on every frame and
on every fifth, and with a camera that shakes (a seeded random walk); the tracker is given its motion with the error of
our estimate (ERROR).

Times are those of one update with `--boxes` boxes, which move, come and go; the trackers take turns, round by round, so
a busy machine is equally unfair to each; of every frame the fastest round counts, and of the frames the median.
"""

import argparse
import subprocess
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from facestream.benchmarks.baseline_trackers import BASELINES
from facestream.engines.boxes import Array
from facestream.engines.types import Detections
from facestream.pipeline.config import TrackerConfig, read
from facestream.pipeline.evaluate import mot
from facestream.pipeline.stages.track import Tracker
from msgspec import structs

FILLED_S = 1.0
# pixels by which the camera jumps each frame (standard deviation), and what is left of them
SHAKE = 10.0
RETURN = 0.9
ERROR = 0.14  # pixels by which its measured motion is wrong


def main() -> None:
    options = parsed()
    config = structs.replace(read(options.config).tracker, high_score=mot.HIGH, new_track_score=mot.BIRTH)
    moving, alone = mot.read_sequences(options.data, options.data, cmc=True)
    still = [replace(s, affines=None) for s in moving]
    columns = [*(s.name for s in still), "all"]
    print("HOTA / IDF1 (and of all: MOTA, IDSW)\n| tracker | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, sequences in (("facestream", still), ("facestream, camera motion", moving)):
        tell(name, {s.name: mot.track(s, config) for s in sequences}, still, options.data)
    with tempfile.TemporaryDirectory() as folder:
        rounds = {"facestream": [timed(crowd(options.boxes, 300), config)]}
        for name in BASELINES if options.baselines else ():
            out = baseline(name, options.baselines, Path(folder), {s.name: given(s) for s in still})
            tell(name, {s.name: out[f"{s.name}/rows"] for s in still}, still, options.data)
            rounds[name] = []
        for _ in range(options.rounds):
            take_turns(rounds, options, Path(folder), config)
    ours = typical(rounds["facestream"])
    print(f"\n| tracker | ms an update, {options.boxes} boxes | ours over it |\n|---|---|---|")
    for name, times in rounds.items():
        print(f"| {name} | {typical(times):.3f} | {ours / typical(times):.2f} |")
    for name in alone:
        if (options.data / name / "gt/gt.txt").exists():
            heads(options.data, name, config)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--baselines", type=Path, help="a Python that has pyxtrackers and trackers")
    parser.add_argument("--config", type=Path, help="our settings, see config.toml")
    parser.add_argument("--boxes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def tell(name: str, rows: dict[str, Array], sequences: list[mot.Sequence], truth: Path) -> None:
    """Print two rows: as it is, and with gaps filled."""
    frames = {s.name: s.frames for s in sequences}
    filled = {s.name: mot.interpolated(rows[s.name], mot.frames_in(FILLED_S, s.rate)) for s in sequences}
    for label, tracks in ((name, rows), (f"{name}, filled", filled)):
        scores = mot.score(tracks, frames, truth)
        cells = [f"{s.HOTA:.1f} / {s.IDF1:.1f}" for s in scores.values()]
        cells[-1] = (
            f"{scores['all'].HOTA:.2f} / {scores['all'].IDF1:.2f}, {scores['all'].MOTA:.1f}, {scores['all'].IDSW}"
        )
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def given(sequence: mot.Sequence) -> tuple[Array, Array]:
    """What the baselines get of a sequence, see baseline_trackers.py."""
    return sequence.found[sequence.found[:, 5] >= mot.FLOOR], np.array([sequence.frames, sequence.rate])


def baseline(name: str, python: Path, folder: Path, sequences: dict[str, tuple[Array, Array]]) -> dict[str, Array]:
    """Run a baseline in its own Python; see baseline_trackers.py for what comes back."""
    source = folder / "in.npz"
    target = folder / "out.npz"
    np.savez(source, **{f"{k}/{part}": v[i] for k, v in sequences.items() for i, part in enumerate(("found", "info"))})
    script = Path(__file__).with_name("baseline_trackers.py")
    subprocess.run([python, script, name, source, target], check=True)
    return dict(np.load(target))


def take_turns(
    rounds: dict[str, list[Array]], options: argparse.Namespace, folder: Path, config: TrackerConfig
) -> None:
    """Time each tracker once more."""
    scene = crowd(options.boxes, 300)
    for name, times in rounds.items():
        if name == "facestream":
            times.append(timed(scene, config))
        else:
            out = baseline(name, options.baselines, folder, {"crowd": (scene, np.array([300, 30.0]))})
            times.append(out["crowd/ms"])


def crowd(boxes: int, frames: int) -> Array:
    """Boxes of 30 to 90 pixels that walk about a 1080p picture, one in twenty missed: found rows [N, 6]."""
    rng = np.random.default_rng(0)
    start = rng.uniform(100, 900, (boxes, 2))
    speed = rng.normal(0, 2, (boxes, 2))
    side = rng.uniform(30, 90, (boxes, 1))
    rows = []
    for frame in range(frames):
        at = (start + speed * frame + rng.normal(0, 1, (boxes, 2))) % 1000
        score = rng.uniform(0.3, 0.99, (boxes, 1))
        table = np.concatenate([np.full((boxes, 1), frame), at, at + side, score], 1)
        rows.append(table[rng.random(boxes) > 0.05])
    return np.concatenate(rows)


def timed(scene: Array, config: TrackerConfig) -> Array:
    """Milliseconds of each of our updates."""
    tracker = Tracker(config)
    ms = []
    starts = np.searchsorted(scene[:, 0], np.arange(scene[-1, 0] + 2))
    for frame, (start, end) in enumerate(pairwise(starts)):
        rows = scene[start:end].astype(np.float32)
        began = time.perf_counter()
        tracker.update(Detections(rows[:, 1:5], rows[:, 5]), frame / 30, (1920, 1080))
        ms.append(1000 * (time.perf_counter() - began))
    return np.array(ms)


def typical(rounds: list[Array]) -> float:
    return float(np.median(np.min(rounds, axis=0)))


def heads(data: Path, name: str, config: TrackerConfig) -> None:
    """Track the ground-truth boxes, with sparse detections and a camera that shakes."""
    frames, rate, size = mot.read_info(data / name / "seqinfo.ini")
    truth = np.loadtxt(data / name / "gt/gt.txt", delimiter=",")
    print(f"\n| {name} | HOTA | IDF1 | IDSW |\n|---|---|---|---|")
    for every in (1, 5):
        for how in ("still", "shaken", "shaken, motion known"):
            seen, affines = shaken(truth, frames, 0.0 if how == "still" else SHAKE)
            if how == "shaken":
                affines[:] = np.eye(2, 3)
            score = score_sparse(seen, affines, every, (frames, rate, size), config)
            print(f"| every {every}, {how} | {score.HOTA:.1f} | {score.IDF1:.1f} | {score.IDSW} |", flush=True)


def shaken(truth: Array, frames: int, jump: float) -> tuple[Array, Array]:
    """The truth's rows as a shaking camera sees them, and its motion, as measured: [frames, 2, 3]."""
    rng = np.random.default_rng(0)
    place = np.zeros((frames, 2))
    for frame in range(1, frames):
        place[frame] = RETURN * place[frame - 1] + rng.normal(0, jump, 2)
    moved = truth.copy()
    moved[:, 2:4] += place[truth[:, 0].astype(int) - 1]
    affines = np.tile(np.eye(2, 3), (frames, 1, 1))
    if jump:
        affines[1:, :, 2] = np.diff(place, axis=0) + rng.normal(0, ERROR, (frames - 1, 2))
    return moved, affines


def score_sparse(
    seen: Array, affines: Array, every: int, info: tuple[int, float, tuple[int, int]], config: TrackerConfig
) -> mot.Score:
    """Score only the frames with detections; the tracker gets all frames."""
    frames, rate, size = info
    tracker = Tracker(config)
    rows = []
    truth = []
    for frame in range(frames):
        found = None
        if frame % every == 0:
            labels = seen[seen[:, 0] == frame + 1]
            corners = np.concatenate([labels[:, 2:4], labels[:, 2:4] + labels[:, 4:6]], 1).astype(np.float32)
            found = Detections(corners, np.full(len(labels), 0.9, np.float32))
            truth += [(frame // every + 1, *row) for row in labels[:, 1:9].tolist()]
        boxes = tracker.update(found, frame / rate, size, affines[frame])
        rows += [(frame // every, b.id, *b.xyxy, b.score) for b in boxes if b.association is not None]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "SEQ/gt").mkdir(parents=True)
        np.savetxt(Path(folder) / "SEQ/gt/gt.txt", truth, fmt="%d,%d,%.2f,%.2f,%.2f,%.2f,%d,%d,%d")
        return mot.score({"SEQ": np.array(rows)}, {"SEQ": -(-frames // every)}, Path(folder))["all"]


if __name__ == "__main__":
    main()
