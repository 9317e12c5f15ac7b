"""Prove that a change of the code changed no record: detect with two checkouts, compare what they write byte for byte.

    python tools/same_records.py CLIP... --model WEIGHTS.onnx --against ../other/.venv/bin/python [--cache HASHES.json]
        [--set SECTION.KEY=VALUE] [--set-against SECTION.KEY=VALUE]

Every clip is processed in every mode of MODES, once by this checkout and once by the one whose interpreter is named.
`--model` pins the weights for both. `--cache` keeps the other checkout's hashes, so that it runs once. `--set` gives
this checkout a setting, `--set-against` the other one: for settings, or defaults, that were changed on purpose.
The mode `live` pushes the frames through the fail-closed stage on this process's clock-free path: load and detector
faults come at fixed frames. `covered` and `apply` compare the pixels of the covered video. Exit code 1 where anything
differs.

A box that is no face of its own has a `kind` since the sentinel ids went (a minus for an alternate place, 0 for the
whole frame): for the comparison it is written as before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mode:
    """A command with its flags, and settings that have no flag. pixels: compare the video in place of the records."""

    command: str = "detect"
    flags: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    pixels: bool = False


FAST = ("--preset", "ultrafast")
MODES = {
    "default": Mode(),
    "every 1": Mode(flags=("--detect-every", "1")),
    "every 3": Mode(flags=("--detect-every", "3")),
    "every auto": Mode(flags=("--detect-every", "auto")),
    "look-ahead 0": Mode(flags=("--lookahead", "0")),
    "look-ahead 5": Mode(flags=("--lookahead", "5")),
    "look-ahead 60": Mode(flags=("--lookahead", "60")),
    "every 1, no look-ahead": Mode(flags=("--detect-every", "1", "--lookahead", "0")),
    "small": Mode(flags=("--size", "640x384")),
    "threshold": Mode(flags=("--threshold", "0.4")),
    "no camera motion": Mode(settings=("tracker.motion=false",)),
    "tiles": Mode(settings=("detector.tiles=2",)),  # a setting since ea2dadf
    "two passes": Mode("anonymize", ("--two-pass", *FAST)),
    "covered": Mode("anonymize", ("--hide", "solid", *FAST), pixels=True),
    "apply": Mode("apply", ("--hide", "blur", *FAST), pixels=True),
    "live": Mode("live"),
}
FAULTS = (range(40, 44), range(95, 96), range(130, 150))  # detections that fail, counted from 0
LOAD = (range(60, 90), range(170, 185))  # frames behind which others wait already


def records_of(python: str, name: str, clip: Path, model: Path, folder: Path, settings: list[str]) -> str:
    """SHA-256 of the records, or of the covered pixels, that a checkout's interpreter writes."""
    mode = MODES[name]
    records = folder / "records.jsonl"
    video = folder / f"covered{clip.suffix}"
    config = folder / "settings.toml"
    config.write_text("".join(f"{line}\n" for line in (*settings, *mode.settings)), encoding="utf-8")
    shared = ["--config", str(config), "--quiet", "--overwrite"]
    program = [python, "-m", "facestream"]
    detect = [*program, "detect", str(clip), "-o", str(records), "--model", str(model), *shared]
    if mode.command == "live":
        calls = [[python, __file__, "--live", str(clip), str(model), str(records), str(config)]]
    elif mode.command == "detect":
        calls = [[*detect, *mode.flags]]
    elif mode.command == "apply":
        calls = [detect, [*program, "apply", str(clip), str(records), "-o", str(video), *shared, *mode.flags]]
    else:
        outputs = ["-o", str(video), "--records", str(records), "--model", str(model)]
        calls = [[*program, mode.command, str(clip), *outputs, *shared, *mode.flags]]
    for call in calls:
        done = subprocess.run(call, capture_output=True, text=True, cwd=folder, check=False)
        if done.returncode:
            raise SystemExit(f"{name}, {clip.name}: {' '.join(call)}\n{done.stderr}")
    if mode.pixels:
        return pixels_of(video)
    lines = records.read_text(encoding="utf-8").splitlines(keepends=True)
    return hashlib.sha256("".join(map(with_sentinels, lines)).encode()).hexdigest()


def pixels_of(video: Path) -> str:
    """SHA-256 of a video's decoded frames and their times."""
    import av

    digest = hashlib.sha256()
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            digest.update(f"{frame.pts} {frame.width} {frame.height}".encode())
            digest.update(frame.to_ndarray().tobytes())
    return digest.hexdigest()


def with_sentinels(line: str) -> str:
    """A record as it was written before boxes had a kind."""
    if '"kind"' not in line:
        return line
    row = json.loads(line)
    for face in row["faces"]:
        if face.pop("kind", "") == "alternate":
            face["id"] = -face["id"]
    return json.dumps(row, ensure_ascii=False) + "\n"


def live(clip: str, model: str, out: str, settings: str) -> None:
    """The clip through the fail-closed stage, as fast as it goes."""
    from facestream.pipeline.records import lines, record
    from facestream.pipeline.types import Frame
    from facestream.pipeline.video.options import SourceOptions
    from facestream.pipeline.video.source import open_source

    stage = live_stage(model, Path(settings))
    source = open_source(clip, SourceOptions())
    source.open()
    with open(out, "w", encoding="utf-8") as file:

        def write(left: list) -> None:  # type: ignore[type-arg]
            for tracked in left:
                file.write(lines(record(tracked, "live"), ".jsonl"))

        for item in source.items():
            if isinstance(item, Frame) and item.index not in range(100, 110):  # a camera's frames may be dropped
                write(stage.push(item, any(item.index in part for part in LOAD)))
        write(stage.flush())
        counts = stage.counts
        failures = counts.detector_failures if hasattr(counts, "detector_failures") else counts.failed
        file.write(json.dumps({"frames": counts.frames, "failed": failures}))
    source.close()


def live_stage(model: str, settings: Path):  # type: ignore[no-untyped-def]
    """The fail-closed stage over a detector that fails at FAULTS, by today's names or by those of before."""
    from facestream.pipeline.config import read

    try:
        from facestream.engines.loader import load_detector
        from facestream.pipeline.live.batching_detector import BatchingDetector, DetectorClient
        from facestream.pipeline.live.fail_closed import FailClosedPipeline
    except ImportError:
        from facestream.engines.detector import load as load_detector
        from facestream.pipeline.live.desk import Asked as DetectorClient
        from facestream.pipeline.live.desk import Desk as BatchingDetector
        from facestream.pipeline.live.guard import Guard as FailClosedPipeline

    config = read(settings, {"detector.model": model})
    detector = load_detector(model, config.detector.options())
    detect = detector.detect
    count = -1

    def failing(images, *more):  # type: ignore[no-untyped-def]
        nonlocal count
        count += 1
        if any(count in part for part in FAULTS):
            raise RuntimeError("out of order")
        return detect(images, *more)

    detector.detect = failing  # type: ignore[method-assign]
    shared = BatchingDetector(detector)
    shared.start()
    return FailClosedPipeline(DetectorClient(shared, 60.0), config, 4)


def main() -> int:
    if sys.argv[1:2] == ["--live"]:
        live(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description="Compare the records of two checkouts.")
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, required=True, help="an .onnx file, for both")
    parser.add_argument("--against", metavar="PYTHON", help="the other checkout's interpreter")
    parser.add_argument("--cache", type=Path, help="the other checkout's hashes, kept")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="of this checkout")
    parser.add_argument("--set-against", action="append", default=[], metavar="SECTION.KEY=VALUE", help="of the other")
    parser.add_argument("--mode", choices=list(MODES), action="append", help="only these")
    options = parser.parse_args()
    known = json.loads(options.cache.read_text()) if options.cache and options.cache.exists() else {}
    different = 0
    for clip in options.clips:
        content = hashlib.sha256(clip.read_bytes() + options.model.read_bytes()).hexdigest()[:16]
        for mode in options.mode or MODES:
            key = " ".join([str(clip.resolve()), content, mode, *options.set_against])  # records name their source
            with tempfile.TemporaryDirectory() as folder:
                model = options.model.resolve()
                film = clip.resolve()
                if key not in known:
                    if not options.against:
                        raise SystemExit(f"no hash of {key} is kept: --against is needed")
                    known[key] = records_of(options.against, mode, film, model, Path(folder), options.set_against)
                    if options.cache:
                        options.cache.write_text(json.dumps(known, indent=1))
                same = records_of(sys.executable, mode, film, model, Path(folder), options.set) == known[key]
            different += not same
            print(f"{'same' if same else 'DIFFERENT'}: {clip.name}, {mode}", flush=True)
    print(f"{different} differ" if different else "all records are the same")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
