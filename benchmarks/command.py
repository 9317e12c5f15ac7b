"""`facestream bench`: time a whole job beside its lower limit and its baselines, or the detectors alone."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import click
from facestream.benchmarks import detector_bench
from facestream.benchmarks.deface import TOOLS
from facestream.benchmarks.goals import chart, goals
from facestream.benchmarks.job_bench import bench as bench_job
from facestream.pipeline.cli.options import config_of, covering, shared
from facestream.pipeline.errors import BadConfig, BadInput
from facestream.pipeline.video.encode import x264_options

log = logging.getLogger(__name__)

_DEMO = Path(__file__).parent.parent / "tools" / "demo.mp4"


@click.command()
@click.argument("videos", nargs=-1, metavar="[INPUT...]")
@click.option("--detector", "detectors", is_flag=True, help="time the detectors alone, beside YuNet and CenterFace")
@click.option(
    "--against", metavar="NAME", help="deface: time it on the same clip; with --detector: the detector of the ratios"
)
@click.option("--command", metavar="PATH", help="deface's executable, preferably in an environment of its own")
@click.option("--rounds", type=click.IntRange(1, 1000), help="repetitions; prints medians  [default: 1, detectors 15]")
@click.option("--baseline-frames", type=click.IntRange(0, 100_000), default=0,
              help="time deface and ours on the first N frames only; 0: all")  # fmt: skip
@click.option("--threads", default=1, show_default=True, help="CPU threads of each detector")
@click.option("--engine", "engines", multiple=True, metavar="FILE", help="with --detector: time this .onnx or .xml too")
@click.option("--chart", "chart_file", type=click.Path(path_type=Path), metavar="PNG", help="draw the results")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object on the last line")
@covering
@shared
def bench(
    videos: tuple[str, ...], detectors: bool, against: str | None, command: str | None, rounds: int | None,
    baseline_frames: int, threads: int, engines: tuple[str, ...], chart_file: Path | None, as_json: bool, **flags: Any,
) -> int:  # fmt: skip
    """Time a whole job (CPU by stage, frames/s, peak memory) beside decoding and encoding alone, and beside deface.

    All passes run one after the other on this machine, each in its own process; their outputs are deleted. Prints a
    table per video, then one that compares all videos with the goals.
    """
    if detectors:
        return _detectors(rounds or 15, threads, against or "yunet", engines, as_json)
    if against is not None and against not in TOOLS:
        raise BadConfig(f"there is no {against} to run", "--against", "known: " + ", ".join(TOOLS))
    if not videos and not _DEMO.is_file():
        raise BadInput("no video is given", do="name one")
    config = config_of(flags)
    baselines = _deface_runs(config.encode.preset, config.encode.crf) if against else {}
    results = {}
    for video in map(Path, videos or (_DEMO,)):
        progress = partial(_progress, video.name, bool(flags["quiet"]))
        results[video.name] = bench_job(video, config, baselines, command, rounds or 1, progress, baseline_frames)
        print(f"{video.name}\n{results[video.name].table()}\n")
    print(goals(results))
    if chart_file is not None:
        chart(results, chart_file)
    if as_json:
        figures = [result.as_dict() for result in results.values()]
        print(json.dumps(figures[0] if len(figures) == 1 else {"clips": dict(zip(results, figures, strict=True))}))
    return 0


def _progress(video: str, quiet: bool, what: str) -> None:
    if not quiet:
        log.info("%s: %s", video, what)


def _deface_runs(preset: str, crf: float) -> dict[str, tuple[str, ...]]:
    """deface's options for each of its runs, by name: defaults, the scale that its README suggests for speed, and that
    scale with our encoder options."""
    options = [option for key, value in x264_options(preset, crf).items() for option in (f"-{key}", value)]
    encoder = {"codec": "libx264", "output_params": options}
    same = ("--ffmpeg-config", json.dumps(encoder))
    small = ("--scale", "640x360")
    return {"deface": (), "deface 640x360": small, f"deface 640x360, {preset}": (*small, *same)}


def _detectors(rounds: int, threads: int, against: str, engines: tuple[str, ...], as_json: bool) -> int:
    timings, absent = detector_bench.time_detectors(rounds, threads, against, engines, progress=True)
    for line in absent:
        log.warning("%s", line)
    print(detector_bench.table(timings, against if against in timings else next(iter(timings))))
    if as_json:
        print(json.dumps({"detectors": detector_bench.as_json(timings)}))
    return 0
