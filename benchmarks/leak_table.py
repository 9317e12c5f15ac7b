"""How much leaks in which mode: a table over a folder of clips with truth.

python benchmarks/render_truth.py --data FACES -o /tmp/truth
python benchmarks/render_truth.py --data FACES -o /tmp/report --seed 101
python benchmarks/leak_table.py /tmp/truth /tmp/report [--set STAGE.NAME=VALUE] [--beside CLIP.mp4] [--cache DIR]

`--set` gives a constant another value (docs/heuristics.md): choose it on the clips of a tuned seed (/tmp/truth), report
the figures of fresh ones (/tmp/report). Each table says which seeds its clips have.

Each clip NAME.mp4 has NAME.truth.txt beside it (MOT, frame from 1). The detector runs on every frame once, or not
at all where a cache knows what this model finds in this clip at this size; the modes go over what it found, and
nothing is encoded. `--thin` removes that share of the detections at random, and bursts of eight frames, as a bad
detector would (seeded). Only for deface, which writes videos, and for our own beside it, the pixels are judged.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
from facestream.benchmarks.deface import cover_with
from facestream.engines.base import Detector
from facestream.engines.boxes import Array
from facestream.engines.command import finish
from facestream.engines.letterbox import ImageView
from facestream.engines.loader import WEIGHTS, load_detector
from facestream.engines.types import Detections
from facestream.pipeline.config import Config, changed, read
from facestream.pipeline.errors import BadInput
from facestream.pipeline.evaluate.leaks import LeakMeter, read_truth
from facestream.pipeline.evaluate.pixels import measure
from facestream.pipeline.evaluate.tally import Leaks, Tally
from facestream.pipeline.jobs.two_pass import run_twice
from facestream.pipeline.run import Job, Recorder, run, run_stages
from facestream.pipeline.stages.chain import FacePipeline, detection_for
from facestream.pipeline.stages.detect import DetectionStage
from facestream.pipeline.stages.policy import reduced_size
from facestream.pipeline.stages.settings import DEFAULTS
from facestream.pipeline.stages.types import AnalysedFrame, DetectionPlan, Observation
from facestream.pipeline.types import Frame
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.planes import Viewer
from facestream.pipeline.video.source import open_source

PIXELS = "defaults with blur, by their pixels"  # deface blurs; what a mosaic leaves of small faces' detail is no face


class Known(Detector):
    """Looks at each picture once and remembers.

    cache: a file that knows what was found already, and is told what is new by `save`.
    """

    def __init__(self, detector: Detector, cache: Path | None = None) -> None:
        super().__init__(detector.options)
        self.detector = detector
        self.cache = cache
        self.any_size = detector.any_size
        self.raw: dict[int, Detections] = {}
        self.lost: dict[int, Detections] = {}  # what is left where some are lost
        self.share = 0.0  # of what is lost
        self.bursts: set[int] = set()  # frames in which all is lost
        self.frame = -1  # that is being looked at, where that is known
        self.saved = 0
        if cache is not None and cache.is_file():
            with np.load(cache) as table:
                rows = table["rows"]
                ends = np.cumsum(table["counts"])
                for key, end, count in zip(table["keys"].tolist(), ends, table["counts"], strict=True):
                    part = rows[end - count : end]
                    self.raw[key] = Detections(part[:, :4], part[:, 4])
            self.saved = len(self.raw)

    def infer(self, images: Array) -> Any:
        return self.detector.infer(images)

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        return [self._one(image) for image in images]

    def lose(self, clip: Path, size: tuple[int, int], share: float) -> None:
        """Lose a share of all that is in the clip's frames, and all that is in bursts of eight frames, at random but
        always the same, whichever of the frames will be looked at, and how."""
        random = np.random.default_rng(0)
        other = np.random.default_rng(1)
        self.share = share
        burst = 0
        viewer = Viewer()
        small = Viewer()
        reader = open_source(str(clip), SourceOptions())
        reader.open()
        try:
            for frame in reader.items():
                if not isinstance(frame, Frame):
                    continue
                view = viewer.view(frame, size)
                found = self._one(view)
                burst = 8 if not burst and random.random() < 0.01 else max(0, burst - 1)
                if burst:
                    self.bursts.add(frame.index)
                self._lose_of(view, found, (random.random(len(found)) >= share) & (not burst))
                view = small.view(frame, reduced_size(size))
                if _key(view) in self.lost:  # the picture is as small as that
                    continue
                found = self._one(view)
                self._lose_of(view, found, (other.random(len(found)) >= share) & (not burst))
        finally:
            reader.close()

    def _lose_of(self, view: ImageView, found: Detections, kept: Array) -> None:
        self.lost[_key(view)] = found.select(kept)

    def save(self) -> None:
        if self.cache is None or len(self.raw) == self.saved:
            return
        rows = [np.concatenate([found.xyxy, found.scores[:, None]], 1) for found in self.raw.values()]
        part = self.cache.with_suffix(".part.npz")
        np.savez(
            part, keys=np.array(list(self.raw), np.int64), counts=np.array([len(r) for r in rows]),
            rows=np.concatenate(rows).astype(np.float32),
        )  # fmt: skip
        part.replace(self.cache)
        self.saved = len(self.raw)

    def _one(self, image: ImageView) -> Detections:
        key = _key(image)
        if key not in self.raw:
            self.raw[key] = self.detector.detect([image])[0]
        if self.share and key not in self.lost:  # a sheet, of which there is one for each way to get there
            kept = np.random.default_rng(key).random(len(self.raw[key])) >= self.share
            return self.raw[key].select(kept & (self.frame not in self.bursts))
        return self.lost.get(key, self.raw[key])


def _key(image: ImageView) -> int:
    return zlib.crc32(image.rgb.tobytes())


def cache_of(clip: Path, config: Config, folder: Path | None) -> Path | None:
    """The file for what this model finds in this clip at this size, these scores and this suppression."""
    if folder is None:
        return None
    name = config.detector.model
    options = config.detector.options()
    model = Path(name) if Path(name).suffix else WEIGHTS / f"{name}.onnx"
    digest = hashlib.sha256()
    for file in (model, model.with_suffix(".bin"), clip):
        if file.is_file():
            digest.update(file.read_bytes())
    digest.update(repr((config.detector.size, options.threshold, options.nms_iou)).encode())
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{clip.stem}-{digest.hexdigest()[:16]}.npz"


def truth_of(clip: Path) -> dict[int, dict[int, Array]]:
    return read_truth(clip.with_name(f"{clip.stem}.truth.txt"))


class Noting:
    """A detection stage that tells `known` which frame it is given."""

    def __init__(self, stage: DetectionStage, known: Known) -> None:
        self.stage = stage
        self.known = known

    def run(self, frame: AnalysedFrame, plan: DetectionPlan) -> Observation:
        self.known.frame = frame.frame.index
        return self.stage.run(frame, plan)


def run_noting(job: Job, config: Config, known: Known, records: Recorder, progress: bool) -> None:
    """As `run`, and `known` is told which frame is detected on."""
    detection = Noting(detection_for(known, config), known)
    run_stages(job, config, FacePipeline(known, config, detection=detection), records, progress)


MODES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "detector alone": (run_noting, {"detector.every": 1, "tracker.coast_s": 0.0, "tracker.lookahead": 0}),
    "tracker, lag 0": (run_noting, {"tracker.lookahead": 0}),
    "lag 5": (run_noting, {"tracker.lookahead": 5}),
    "defaults": (run_noting, {}),
    "two passes": (run_twice, {}),
    "every frame": (run_noting, {"detector.every": 1}),
    "every 3rd": (run_noting, {"detector.every": 3}),
    "every 5th": (run_noting, {"detector.every": 5}),
    "auto": (run_noting, {"detector.every": "auto"}),
}


def leaks_of(clip: Path, mode: str, config: Config, detector: Known, smallest: float) -> Tally:
    meter = LeakMeter(truth_of(clip), config.cover, smallest)
    MODES[mode][0](Job(str(clip), None), config, detector, meter, False)
    detector.save()
    return meter.tally


def pixels_of(clip: Path, config: Config, detector: Known, smallest: float) -> Tally:
    """Our own work with a blur, judged as another tool's is."""
    config = changed(config, {"cover.hide": "blur"}, "leak_table")
    with TemporaryDirectory() as folder:
        out = Path(folder, "ours.mp4")
        run(Job(str(clip), out), config, detector, None, False)
        return measure(clip, out, truth_of(clip), smallest)


def deface_of(clip: Path, command: str, scale: str | None, smallest: float, cache: Path | None) -> Tally | None:
    """deface at its defaults, but for its --scale, by the pixels; its videos are kept in the cache. None where it
    loses frames."""
    with TemporaryDirectory() as folder:
        name = f"deface{'' if scale is None else '-' + scale}-{hashlib.sha256(clip.read_bytes()).hexdigest()[:16]}.mp4"
        kept = None if cache is None else cache / name
        out = kept or Path(folder, "theirs.mp4")
        if not out.is_file():
            part = out.with_name(f"part-{out.name}")
            cover_with("deface", command, clip, part, ("--scale", scale) if scale else ())
            part.replace(out)
        try:
            return measure(clip, out, truth_of(clip), smallest)
        except BadInput as e:
            print(f"deface, {clip.stem}: {e}", flush=True)
            return None


def together(tallies: list[Tally]) -> Leaks:
    """The metrics of several clips combined; tracks of different clips stay separate."""
    combined = Tally()
    for n, tally in enumerate(tallies):
        combined.outside += tally.outside
        combined.inside += tally.inside
        for track, rows in tally.face_frames.items():
            combined.face_frames[1_000_000 * n + track] = rows
    return combined.result()


def row(name: str, r: Leaks, beside: Sequence[Leaks | None] = ()) -> str:
    more = [
        f" {b.leaked} / {b.face_frames}, {b.longest_exposed_run}, {b.overblur:.2f} |" if b else " |" for b in beside
    ]
    return (
        f"| {name} | {r.leaked} / {r.face_frames} | {r.leak_rate:.2%} | {r.leak_rate_tau50:.2%} | {r.leaked_area:.2%} "
        f"| {r.longest_exposed_run} | {r.leaky_tracks} / {r.exposed_5} of {r.tracks} | {r.overblur:.2f} |"
    ) + "".join(more)


def overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """{"advanced.policy.eager_frames": 8} of `policy.eager_frames=8`; names of settings (`tracker.coast_s=1`) go as
    they are."""
    values: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        stage = name.split(".")[0]
        key = f"advanced.{name}" if stage in DEFAULTS.every() and name.count(".") == 1 else name
        try:
            values[key] = json.loads(value)
        except json.JSONDecodeError:
            values[key] = value
        if not equals or "." not in name:
            raise BadInput("not STAGE.NAME=VALUE", f"--set {text}")
    return values


def seeds_of(folder: Path) -> str:
    """With which seeds a folder's clips were rendered, and what these are for, in words."""
    listing = folder / "clips.json"
    entries = json.loads(listing.read_text()) if listing.is_file() else []
    seeds = sorted({(entry.get("seed"), entry.get("set", "other")) for entry in entries if "seed" in entry})
    return ", ".join(f"seed {seed} ({purpose})" for seed, purpose in seeds) or "seed unknown"


@click.command()
@click.argument("folders", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="FOLDER...")
@click.option("--beside", type=click.Path(path_type=Path), multiple=True, metavar="CLIP", help="a column for this clip")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="settings, see config.toml")
@click.option(
    "--set", "assignments", multiple=True, metavar="STAGE.NAME=VALUE", help="a constant, see docs/heuristics.md"
)
@click.option("--model", help="shipped model's name or file")
@click.option("--smallest", default=0.0, help="leave out faces with a shorter longer side, pixels")
@click.option("--thin", default=0.0, help="share of detections to lose at random")
@click.option("--mode", "modes", multiple=True, type=click.Choice(list(MODES)), help="only these modes")
@click.option("--clips", is_flag=True, help="a row a clip too")
@click.option("--cache", type=click.Path(path_type=Path), help="folder that keeps what the detector and deface did")
@click.option("--deface", metavar="PATH", help="deface's executable: a row for it, and one for ours by pixels")
@click.option("--deface-scale", metavar="WxH", help="its --scale, in place of the picture's own size")
def table(folders: tuple[Path, ...], **options: Any) -> None:
    """Leaks of every mode over all clips of each folder, as a markdown table a folder.

    Give a folder of clips that constants are tuned on and one of fresh seeds: a constant is chosen on the first, and
    the figures of the second are reported. The clips `--beside` have a column each: face-frames that leak, longest run,
    over-blur.
    """
    for folder in folders:
        print(f"{folder.name}: {seeds_of(folder)}\n")
        _table(folder, **options)
        print()


def _table(
    folder: Path, beside: tuple[Path, ...], config_file: Path | None, assignments: tuple[str, ...], model: str | None,
    smallest: float, thin: float, modes: tuple[str, ...], clips: bool, cache: Path | None, deface: str | None,
    deface_scale: str | None,
) -> None:  # fmt: skip
    films = sorted(p for p in folder.glob("*.mp4") if p.with_name(f"{p.stem}.truth.txt").is_file())
    if not films:
        raise BadInput("holds no NAME.mp4 with NAME.truth.txt", str(folder))
    every = [*films, *beside]
    own = {"detector.model": model, **overrides(assignments)}
    base = read(config_file, own)
    detector = load_detector(base.detector.model, base.detector.options())
    known = {film: Known(detector, cache_of(film, base, cache)) for film in every}
    if thin:
        for film, detections in known.items():
            detections.lose(film, base.detector.size, thin)
    more = "".join(f" {film.stem}: leaked, run, over-blur |" for film in beside)
    print("| mode | leaked | rate | tau 0.5 | area | longest run | tracks exposed >= 1 / >= 5 | over-blur |" + more)
    print("|---|---|---|---|---|---|---|---|" + "---|" * len(beside), flush=True)

    def show(name: str, tallies: list[Tally | None]) -> None:
        inside = [tally for tally in tallies[: len(films)] if tally is not None]
        singly = [tally and tally.result() for tally in tallies[len(films) :]]
        print(row(f"**{name}**" if clips else name, together(inside), singly), flush=True)
        if clips:
            for film, tally in zip(every, tallies, strict=True):
                if tally is not None:
                    print(row(film.stem, tally.result()), flush=True)

    for mode in modes or MODES:
        config = read(config_file, {**MODES[mode][1], **own})
        show(mode, [leaks_of(film, mode, config, known[film], smallest) for film in every])
    if deface:
        show(PIXELS, [pixels_of(film, base, known[film], smallest) for film in every])
        name = f"deface{' --scale ' + deface_scale if deface_scale else ''}, by its pixels"
        show(name, [deface_of(film, deface, deface_scale, smallest, cache) for film in every])


if __name__ == "__main__":
    finish(table, "leak_table")
