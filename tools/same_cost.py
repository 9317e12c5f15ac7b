"""Compare the CPU time of two checkouts: no change of the code may make it slower.

    python tools/same_cost.py CLIP... --model WEIGHTS.onnx --against ../other/.venv/bin/python [--rounds 7]
        [--set SECTION.KEY=VALUE] [--set-against SECTION.KEY=VALUE]

Both checkouts run the same commands in turn, round by round, so that a busy machine slows both alike: start-up
(`--help`, and a job on one small picture), `detect` and `anonymize` of every clip. Prints the medians of user and
system time of all threads, and their ratio; exit code 1 where this checkout takes more than --limit times the other's.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np


def cpu_s(call: list[str], folder: Path) -> float:
    """CPU seconds of a command. Exits with its message if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # The first run writes byte code, as an installation has it.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(call, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(call)}\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def commands(clips: list[Path], model: Path, config: Path, folder: Path) -> dict[str, list[str]]:
    """What is measured: its name and the arguments of `facestream`."""
    still = folder / "still.png"
    cv2.imwrite(str(still), np.full((64, 64, 3), 127, np.uint8))
    shared = ["--model", str(model), "--config", str(config), "--quiet", "--overwrite"]
    found = {
        "start-up, --help": ["--help"],
        "start-up, one picture": ["anonymize", str(still), "-o", str(folder / "out.png"), *shared],
    }
    for clip in clips:
        name = clip.resolve()
        found[f"detect {clip.name}"] = ["detect", str(name), "-o", str(folder / "out.jsonl"), *shared]
        video = str(folder / f"out{clip.suffix}")
        found[f"anonymize {clip.name}"] = ["anonymize", str(name), "-o", video, "--hide", "solid", *shared]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the CPU time of two checkouts.")
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, required=True, help="an .onnx file, for both")
    parser.add_argument("--against", metavar="PYTHON", required=True, help="the other checkout's interpreter")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit", type=float, default=1.03, help="largest ratio of the medians")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="of this checkout")
    parser.add_argument("--set-against", action="append", default=[], metavar="SECTION.KEY=VALUE", help="of the other")
    options = parser.parse_args()
    slower = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = ((sys.executable, options.set), (options.against, options.set_against))
        programs: list[list[str]] = []
        measured: list[dict[str, list[str]]] = []
        for i, (python, settings) in enumerate(sides):
            config = folder / f"settings{i}.toml"
            config.write_text("".join(f"{line}\n" for line in settings), encoding="utf-8")
            programs.append([python, "-m", "facestream"])
            measured.append(commands(options.clips, options.model.resolve(), config, folder))
        for what in measured[0]:
            times: tuple[list[float], list[float]] = ([], [])
            for number in range(options.rounds + 1):
                for i in (0, 1) if number % 2 else (1, 0):
                    spent = cpu_s([*programs[i], *measured[i][what]], folder)
                    if number:  # the first round warms up
                        times[i].append(spent)
            ours = statistics.median(times[0])
            other = statistics.median(times[1])
            slower += ours > options.limit * other
            print(f"{what:32} {ours:7.3f} s, before {other:7.3f} s: {ours / other:.3f}", flush=True)
    print(f"{slower} slower" if slower else f"none takes more than {options.limit} times as long")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
