"""Our tracker beside others on the same detections: HOTA, MOTA, IDF1, id switches, and time.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install pyxtrackers==2026.3.3 trackers==2.6.1
    python tools/compare_trackers.py DATA --peers /tmp/peers/bin/python

DATA is a folder like that of `facestream evaluate tracks`: SEQ/det/det.txt, SEQ/gt/gt.txt, SEQ/seqinfo.ini, and for the
rows with camera motion SEQ/gmc.txt. The peers run in an environment of their own (see peer_trackers.py), since they want
another OpenCV; without --peers only ours run. Every tracker gets the detections with a score of 0.1 or more, and scores
are trackeval's, all sequences combined. What of ours is scored: see pipeline/mot.py. "filled": gaps of up to a second
are interpolated, the peers' too.

Times are those of one update with `--boxes` boxes, which move, come and go; the trackers take turns, round by round, so
a busy machine is equally unfair to each; of every frame the fastest round counts, and of the frames the median.
"""

import argparse
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from peer_trackers import PEERS

from engines.boxes import Array
from engines.types import Detections
from pipeline import mot
from pipeline.config import TrackerConfig, read
from pipeline.track import Tracker

FILLED_S = 1.0


def main() -> None:
    options = parsed()
    config = read(options.config).tracker
    moving, _ = mot.read_sequences(options.data, options.data, cmc=True)
    still = [replace(s, affines=None) for s in moving]
    print(f"{'':40}   HOTA   MOTA   IDF1   IDSW")
    for name, sequences in (("facestream", still), ("facestream, camera motion", moving)):
        tell(name, {s.name: mot.scored(mot.track(s, config)) for s in sequences}, still, options.data)
    with tempfile.TemporaryDirectory() as folder:
        scene = crowd(options.boxes, 300)
        rounds: dict[str, list[Array]] = {"facestream": []}
        for name in PEERS if options.peers else ():
            out = peer(name, options.peers, Path(folder), {s.name: given(s) for s in still})
            tell(name, {s.name: out[f"{s.name}/rows"] for s in still}, still, options.data)
            rounds[name] = []
        for _ in range(options.rounds):
            for name, times in rounds.items():
                if name == "facestream":
                    times.append(timed(scene, config))
                else:
                    times.append(
                        peer(name, options.peers, Path(folder), {"crowd": (scene, np.array([300, 30.0]))})["crowd/ms"]
                    )
    ours = typical(rounds["facestream"])
    print(f"\nms an update with {options.boxes} boxes, and ours over theirs")
    for name, times in rounds.items():
        print(f"{name:40} {typical(times):6.3f} {ours / typical(times):6.2f}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--peers", type=Path, help="a Python that has pyxtrackers and trackers")
    parser.add_argument("--config", type=Path, help="our settings, see config.toml")
    parser.add_argument("--boxes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def tell(name: str, rows: dict[str, Array], sequences: list[mot.Sequence], truth: Path) -> None:
    """Print two lines: as it is, and with gaps filled."""
    frames = {s.name: s.frames for s in sequences}
    filled = {s.name: mot.interpolated(rows[s.name], int(FILLED_S * s.rate)) for s in sequences}
    for label, tracks in ((name, rows), (f"{name}, filled", filled)):
        all_ = mot.score(tracks, frames, truth)["all"]
        print(f"{label:40} {all_.HOTA:6.2f} {all_.MOTA:6.2f} {all_.IDF1:6.2f} {all_.IDSW:6d}", flush=True)


def given(sequence: mot.Sequence) -> tuple[Array, Array]:
    """What the peers get of a sequence, see peer_trackers.py."""
    return sequence.found[sequence.found[:, 5] >= mot.FLOOR], np.array([sequence.frames, sequence.rate])


def peer(name: str, python: Path, folder: Path, sequences: dict[str, tuple[Array, Array]]) -> dict[str, Array]:
    """Run a peer in its own Python; see peer_trackers.py for what comes back."""
    source, target = folder / "in.npz", folder / "out.npz"
    np.savez(source, **{f"{k}/{part}": v[i] for k, v in sequences.items() for i, part in enumerate(("found", "info"))})
    script = Path(__file__).with_name("peer_trackers.py")
    subprocess.run([python, script, name, source, target], check=True)
    return dict(np.load(target))


def crowd(boxes: int, frames: int) -> Array:
    """Boxes of 30 to 90 pixels that walk about a 1080p picture, one in twenty missed: found rows [N, 6]."""
    rng = np.random.default_rng(0)
    centre, speed, side = (
        rng.uniform(100, 900, (boxes, 2)),
        rng.normal(0, 2, (boxes, 2)),
        rng.uniform(30, 90, (boxes, 1)),
    )
    rows = []
    for frame in range(frames):
        at = (centre + speed * frame + rng.normal(0, 1, (boxes, 2))) % 1000
        score = rng.uniform(0.3, 0.99, (boxes, 1))
        table = np.concatenate([np.full((boxes, 1), frame), at, at + side, score], 1)
        rows.append(table[rng.random(boxes) > 0.05])
    return np.concatenate(rows)


def timed(scene: Array, config: TrackerConfig) -> Array:
    """Milliseconds of each of our updates."""
    tracker, ms = Tracker(config), []
    starts = np.searchsorted(scene[:, 0], np.arange(scene[-1, 0] + 2))
    for frame, (start, end) in enumerate(zip(starts, starts[1:], strict=False)):
        rows = scene[start:end].astype(np.float32)
        began = time.perf_counter()
        tracker.update(Detections(rows[:, 1:5], rows[:, 5]), frame / 30, (1920, 1080))
        ms.append(1000 * (time.perf_counter() - began))
    return np.array(ms)


def typical(rounds: list[Array]) -> float:
    return float(np.median(np.min(rounds, axis=0)))


if __name__ == "__main__":
    main()
