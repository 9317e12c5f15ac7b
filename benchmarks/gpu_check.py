"""One command for a machine with an NVIDIA GPU: do the kernels and engines work there, and how fast are they?

python benchmarks/gpu_check.py out/gpu                        writes out/gpu/gpu.json and out/gpu/gpu.md
python benchmarks/gpu_check.py out/gpu --only torch-vgg16     one part; --list names them
python benchmarks/gpu_check.py out/gpu --merge gpu.json --only none    the table of what earlier runs wrote down

Every part is a process of its own: what crashes or takes too long costs nothing but itself, and what it had measured
by then is kept. Parts for which something is not installed say what. Times are of the GPU, from uploaded pictures to
boxes, of the net alone and of the kernels alone; frames a second go from pictures in memory to faces in memory. Nets
are timed with random weights where trained ones are not at hand.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import click
from facestream.benchmarks import gpu_dry
from facestream.benchmarks import gpu_parts as parts
from facestream.engines.command import finish
from facestream.engines.cuda.devices import current_device
from facestream.engines.cuda.driver import find_gpu
from facestream.engines.errors import BadConfig, BadInput

# What matters most comes first, should the time not last for all.
# First what needs nothing carried, then torch, which such machines have, then the product, TensorRT, and RTX last.
ORDER = (
    "gpu", "kernels", "tests", "sanitizer", *(f"torch-{model}" for model in parts.MODELS), "accuracy",
    "product", "leak", "pycuda", *(f"{backend}-{model}" for backend in ("tensorrt", "rtx") for model in parts.MODELS),
)  # fmt: skip
LONGEST_S = 240.0  # of one part


def write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def one(part: str, result: Path, settings: parts.Settings) -> None:
    """The child: do a part, and leave what it found so far in `result` all the time."""
    found: dict[str, Any] = {}

    def save(more: dict[str, Any]) -> None:
        found.update(more)
        write(result, json.dumps(found))

    try:
        parts.run(part, settings, save)
    except parts.Skipped as e:
        save({"skipped": str(e).splitlines()[0]})


def call(part: str, folder: Path, arguments: list[str], limit_s: float) -> dict[str, Any]:
    """The parent: a part in a process group of its own, ended with all that it started after limit_s."""
    result, began = folder / f"{part}.json", time.monotonic()
    result.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__)), "--do", part, "--result", str(result), *arguments]
    with (folder / f"{part}.log").open("w+") as log:
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = child.wait(limit_s)
            end = "done" if code == 0 else f"ended by signal {-code}" if code < 0 else f"failed (exit {code})"
        except subprocess.TimeoutExpired:
            end = f"stopped after {limit_s:.0f} s"
        except BaseException:
            _end(child)
            raise
        finally:
            if child.poll() is None:
                _end(child)
        log.seek(0)
        lines = [line for line in log.read().splitlines() if line.strip()]
    found: dict[str, Any] = json.loads(result.read_text()) if result.is_file() else {}
    if "skipped" in found:
        end = "skipped"
    elif end != "done" and lines:
        found["last_line"] = lines[-1][:300]
    return {"end": end, "seconds": round(time.monotonic() - began, 1), **found}


def _end(child: subprocess.Popen[bytes]) -> None:
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def table(report: dict[str, Any]) -> str:
    """The report as markdown: what ran, the kernels, and a line a figure."""
    found: dict[str, Any] = report["parts"]
    if report.get("dry_run"):  # its times are a CPU's
        return "Dry run, no figures.\n\n" + "".join(f"- {name}: {_end_of(part)}\n" for name, part in found.items())
    lines = []
    if gpu := found.get("gpu", {}).get("gpu"):
        versions = ", ".join(f"{k} {v}" for k, v in found["gpu"]["versions"].items())
        lines += [f"{gpu['name']}, compute capability {gpu['capability'] / 10}, driver for CUDA {gpu['driver']}; "
                  f"{versions}.", ""]  # fmt: skip
    for name in ("tests", "sanitizer"):
        if name in found:
            lines.append(f"- {name}: {found[name].get(name) or _end_of(found[name])}")
    lines += [f"- {what}: {ms} ms" for what, ms in found.get("kernels", {}).get("kernels_ms", {}).items()]
    for name in ("accuracy", "cameras", "files", "leak", "pycuda"):
        for part in found.values():
            if name in part:
                lines.append(f"- {name}: {json.dumps(part[name])}")
    lines += ["", "| backend | model | input | batch | net ms | GPU ms | a picture | ideal | frames/s | bytes down |",
              "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for f in (figure for part in found.values() for figure in part.get("figures", [])):
        ideal = "-" if f["ideal_ms"] is None else f"{f['ideal_ms'] / f['batch']:.3f}"
        lines.append(
            f"| {f['backend']} | {f['model']} | {f['width']}x{f['height']} | {f['batch']} | {f['net_ms']:.3f} | "
            f"{f['gpu_ms']:.3f} | {f['gpu_ms'] / f['batch']:.3f} | {ideal} | {f['fps']:.0f} | {f['down_bytes']} |"
        )
    lines.append("")
    for name, part in found.items():
        if part["end"] != "done":
            lines.append(f"- {name}: {_end_of(part)}")
        lines += [f"- {problem}" for problem in part.get("problems", [])]
    return "\n".join(lines) + "\n"


def _end_of(part: dict[str, Any]) -> str:
    why = part.get("skipped") or part.get("last_line")
    return f"{part['end']}: {why}" if why else str(part["end"])


def merged(files: tuple[Path, ...]) -> dict[str, Any]:
    """The parts of earlier reports; of a part in several, the last that ended well, else the last."""
    found: dict[str, Any] = {}
    for file in files:
        try:
            earlier = json.loads(file.read_text())["parts"]
        except (OSError, ValueError, KeyError, TypeError):
            raise BadInput("not a report of this command", str(file)) from None
        for name, part in earlier.items():
            if name not in found or part["end"] == "done" or found[name]["end"] != "done":
                found[name] = part
    return {name: found[name] for name in ORDER if name in found}


def chosen(only: str) -> list[str]:
    """The parts that are asked for: all, none, or names; "torch" stands for all that begin so."""
    if only in ("", "all"):
        return list(ORDER)
    names = [] if only == "none" else only.split(",")
    for name in names:
        if not any(part == name or part.startswith(name + "-") for part in ORDER):
            raise BadConfig(f"there is no part {name!r}", "--only", "parts: " + ", ".join(ORDER))
    return [part for part in ORDER if any(part == name or part.startswith(name + "-") for name in names)]


@click.command()
@click.argument("out", type=click.Path(path_type=Path), default=Path("out/gpu"))
@click.option("--only", default="all", help="parts to do, by comma; torch stands for all torch-*; none for no part")
@click.option("--list", "show", is_flag=True, help="name the parts and end")
@click.option("--merge", multiple=True, type=click.Path(path_type=Path), help="a gpu.json whose parts to keep")
@click.option("--minutes", default=9.0, show_default=True, help="after which no more is begun, and the last is ended")
@click.option("--batches", default=",".join(map(str, parts.BATCHES)), show_default=True)
@click.option("--runs", default=50, show_default=True, help="of which the median is taken")
@click.option("--dry-run", is_flag=True, help="go through the parts without a GPU, on small stand-ins; no figures")
@click.option("--do", "part", hidden=True)
@click.option("--result", type=click.Path(path_type=Path), hidden=True)
def check(
    out: Path, only: str, show: bool, merge: tuple[Path, ...], minutes: float, batches: str, runs: int,
    dry_run: bool, part: str | None, result: Path | None,
) -> None:  # fmt: skip
    """Check and time the engines on this machine's GPU."""
    if show:
        print("\n".join(ORDER))
        return
    folder = parts.work_folder()
    if part is not None and result is not None:
        one(part, result, parts.Settings(folder, tuple(int(b) for b in batches.split(",")), runs))
        return
    began, todo = time.monotonic(), chosen(only)
    report: dict[str, Any] = {"parts": merged(merge)}
    if dry_run:
        os.environ[gpu_dry.VARIABLE] = "1"
        report["dry_run"] = True
        batches, runs = "1,2", 1
    elif todo and find_gpu() is None:
        current_device()  # says in one line what is missing
    out.mkdir(parents=True, exist_ok=True)

    def keep() -> None:
        report["parts"] = {name: report["parts"][name] for name in ORDER if name in report["parts"]}
        write(out / "gpu.json", json.dumps(report, indent=1) + "\n")
        write(out / "gpu.md", table(report))

    keep()
    for name in todo:
        left = 60 * minutes - (time.monotonic() - began)
        if left < 5:
            report["parts"].setdefault(name, {"end": "left out: no time", "seconds": 0})
            keep()
            continue
        limit_s = left if dry_run else min(left, LONGEST_S)  # a busy CPU is slow; a GPU that is, hangs
        ended = call(name, folder, ["--batches", batches, "--runs", str(runs)], limit_s)
        report["parts"][name] = ended
        keep()
        print(f"{name}: {_end_of(ended)}, {ended['seconds']} s", flush=True)
    figures = sum(len(p.get("figures", [])) for p in report["parts"].values())
    print(f"{out / 'gpu.md'}: {len(report['parts'])} parts, {figures} figures")


if __name__ == "__main__":
    finish(check, "gpu_check")
