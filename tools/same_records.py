"""Prove that a change of the code changed no record: detect with two checkouts, compare what they write byte for byte.

    python tools/same_records.py CLIP... --model WEIGHTS.onnx --against ../other/.venv/bin/python [--cache HASHES.json]

Every clip is processed in every mode of MODES, once by this checkout and once by the one whose interpreter is named.
`--model` pins the weights for both. `--cache` keeps the other checkout's hashes, so that it runs once. The mode `live`
pushes the frames through the fail-closed stage on this process's clock-free path: load and detector faults come at
fixed frames. Exit code 1 where anything differs.

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
from pathlib import Path

DETECT = ("detect",)
MODES: dict[str, tuple[str, ...]] = {
    "default": DETECT,
    "every 1": (*DETECT, "--detect-every", "1"),
    "every 3": (*DETECT, "--detect-every", "3"),
    "every auto": (*DETECT, "--detect-every", "auto"),
    "look-ahead 0": (*DETECT, "--lookahead", "0"),
    "look-ahead 5": (*DETECT, "--lookahead", "5"),
    "two passes": ("anonymize", "--two-pass", "--preset", "ultrafast"),
    "live": ("live",),
}
FAULTS = (range(40, 44), range(95, 96), range(130, 150))  # detections that fail, counted from 0
LOAD = (range(60, 90), range(170, 185))  # frames behind which others wait already


def records_of(python: str, mode: str, clip: Path, model: Path, folder: Path) -> str:
    """SHA-256 of the records that a checkout's interpreter writes."""
    command, *flags = MODES[mode]
    out = folder / "records.jsonl"
    if command == "live":
        call = [python, __file__, "--live", str(clip), str(model), str(out)]
    elif command == "detect":
        call = [python, "-m", "facestream", command, str(clip), "-o", str(out)]
    else:
        video = str(folder / f"covered{clip.suffix}")
        call = [python, "-m", "facestream", command, str(clip), "-o", video, "--records", str(out)]
    if command != "live":
        call += ["--model", str(model), "--quiet", "--overwrite", *flags]
    done = subprocess.run(call, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        raise SystemExit(f"{mode}, {clip.name}: {' '.join(call)}\n{done.stderr}")
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    return hashlib.sha256("".join(map(with_sentinels, lines)).encode()).hexdigest()


def with_sentinels(line: str) -> str:
    """A record as it was written before boxes had a kind."""
    if '"kind"' not in line:
        return line
    row = json.loads(line)
    for face in row["faces"]:
        if face.pop("kind", "") == "alternate":
            face["id"] = -face["id"]
    return json.dumps(row, ensure_ascii=False) + "\n"


def live(clip: str, model: str, out: str) -> None:
    """The clip through the fail-closed stage, as fast as it goes."""
    from facestream.pipeline.records import lines, record
    from facestream.pipeline.types import Frame
    from facestream.pipeline.video.options import SourceOptions
    from facestream.pipeline.video.source import open_source

    stage = live_stage(model)
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


def live_stage(model: str):  # type: ignore[no-untyped-def]
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

    config = read(None, {"detector.model": model})
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
    parser.add_argument("--mode", choices=list(MODES), action="append", help="only these")
    options = parser.parse_args()
    known = json.loads(options.cache.read_text()) if options.cache and options.cache.exists() else {}
    different = 0
    for clip in options.clips:
        content = hashlib.sha256(clip.read_bytes() + options.model.read_bytes()).hexdigest()[:16]
        for mode in options.mode or MODES:
            key = f"{clip.resolve()} {content} {mode}"  # records name their source
            with tempfile.TemporaryDirectory() as folder:
                model = options.model.resolve()
                film = clip.resolve()
                if key not in known:
                    if not options.against:
                        raise SystemExit(f"no hash of {key} is kept: --against is needed")
                    known[key] = records_of(options.against, mode, film, model, Path(folder))
                    if options.cache:
                        options.cache.write_text(json.dumps(known, indent=1))
                same = records_of(sys.executable, mode, film, model, Path(folder)) == known[key]
            different += not same
            print(f"{'same' if same else 'DIFFERENT'}: {clip.name}, {mode}", flush=True)
    print(f"{different} differ" if different else "all records are the same")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
