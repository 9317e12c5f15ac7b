"""How much leaks in which mode: a table over a folder of clips with truth.

python tools/render_truth.py --data ../shared/data/face-pack -o /tmp/truth
python tools/leak_table.py /tmp/truth [--smallest 16] [--model plainS] [--thin 0.2]

Each clip NAME.mp4 has NAME.truth.txt beside it (MOT, frame from 1). The detector looks at every frame once;
the modes go over what it found. `--thin` removes that share of the detections at random, and bursts of
eight frames, as a bad detector would (seeded).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from engines.boxes import Array
from engines.command import finish
from engines.detector import Detector, load
from engines.letterbox import ImageView
from engines.types import Detections
from pipeline.config import Config, read
from pipeline.errors import BadInput
from pipeline.leaks import LeakMeter, read_truth
from pipeline.run import Job, run
from pipeline.tally import Leaks, Tally
from pipeline.twopass import run_twice

MODES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "detector alone": (run, {"tracker.coast_s": 0.0, "tracker.lookahead": 0}),
    "tracker, lag 0": (run, {"tracker.lookahead": 0}),
    "lag 5": (run, {"tracker.lookahead": 5}),
    "lag 15 (default)": (run, {}),
    "two passes": (run_twice, {}),
    "every 2nd, lag 15": (run, {"detector.every": 2}),
    "every 3rd, lag 15": (run, {"detector.every": 3}),
    "every 5th, lag 15": (run, {"detector.every": 5}),
    "auto, lag 15": (run, {"detector.every": "auto"}),
}


class Known(Detector):
    """Looks at each picture once and remembers; leaves out what `lose` says."""

    def __init__(self, detector: Detector, thin: float) -> None:
        super().__init__(detector.options)
        self.detector, self.thin = detector, thin
        self.found: dict[int, Detections] = {}
        self.random = np.random.default_rng(0)
        self.burst = 0

    def infer(self, images: Array) -> Any:
        return self.detector.infer(images)

    def detect(self, images: Sequence[ImageView]) -> list[Detections]:
        return [self._one(image) for image in images]

    def _one(self, image: ImageView) -> Detections:
        key = zlib.crc32(image.rgb.tobytes())
        if key not in self.found:
            found = self.detector.detect([image])[0]
            if self.thin:
                kept = self.random.random(len(found)) >= self.thin
                self.burst = 8 if not self.burst and self.random.random() < 0.01 else max(0, self.burst - 1)
                kept &= not self.burst
                found = Detections(found.xyxy[kept], found.scores[kept])
            self.found[key] = found
        return self.found[key]


def leaks_of(clip: Path, mode: str, config: Config, detector: Detector, smallest: float) -> LeakMeter:
    meter = LeakMeter(read_truth(clip.with_name(f"{clip.stem}.truth.txt")), config.cover, smallest)
    MODES[mode][0](Job(str(clip), None), config, detector, meter, False)
    return meter


def together(meters: list[LeakMeter]) -> Leaks:
    """The figures of several clips as if they were one; tracks stay apart."""
    tally = Tally()
    for n, meter in enumerate(meters):
        tally.outside += meter.tally.outside
        tally.inside += meter.tally.inside
        for track, sights in meter.tally.sights.items():
            tally.sights[1_000_000 * n + track] = sights
    return tally.result()


def row(name: str, r: Leaks) -> str:
    return (
        f"| {name} | {r.leaked} / {r.face_frames} | {r.leak_rate:.2%} | {r.leak_rate_tau50:.2%} | {r.leaked_area:.2%} "
        f"| {r.longest_exposed_run} | {r.leaky_tracks} / {r.exposed_5} of {r.tracks} | {r.overblur:.2f} |"
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="settings, see config.toml")
@click.option("--model", help="shipped model's name or file")
@click.option("--smallest", default=0.0, help="leave out faces with a shorter longer side, pixels")
@click.option("--thin", default=0.0, help="share of detections to lose at random")
@click.option("--mode", "modes", multiple=True, type=click.Choice(list(MODES)), help="only these modes")
@click.option("--clips", is_flag=True, help="a row a clip too")
def table(
    folder: Path, config_file: Path | None, model: str | None, smallest: float, thin: float,
    modes: tuple[str, ...], clips: bool,
) -> None:  # fmt: skip
    """Leaks of every mode over all clips of a folder, as a markdown table."""
    films = sorted(p for p in folder.glob("*.mp4") if p.with_name(f"{p.stem}.truth.txt").is_file())
    if not films:
        raise BadInput("holds no NAME.mp4 with NAME.truth.txt", str(folder))
    base = read(config_file, {"detector.model": model})
    detectors = {film: Known(load(base.detector.model, base.detector.options()), thin) for film in films}
    print("| mode | leaked | rate | tau 0.5 | area | longest run | tracks exposed >= 1 / >= 5 | over-blur |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for mode in modes or MODES:
        config = read(config_file, {"detector.model": model, **MODES[mode][1]})
        meters = [leaks_of(film, mode, config, detectors[film], smallest) for film in films]
        print(row(f"**{mode}**" if clips else mode, together(meters)), flush=True)
        if clips:
            for film, meter in zip(films, meters, strict=True):
                print(row(film.stem, meter.result()), flush=True)


if __name__ == "__main__":
    finish(table, "leak_table")
