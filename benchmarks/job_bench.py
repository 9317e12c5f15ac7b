"""A whole job timed: stage by stage, beside the least that decoding and encoding cost, and beside other tools.

Each pass is a process of its own, timed by the system from its start to its end: CPU seconds of all its threads and
children, wall-clock seconds, peak memory. Whatever else the machine does slows the wall clock, and hardly the rest.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import av
from facestream.benchmarks.deface import executable
from facestream.engines.loader import load_detector
from facestream.pipeline.config import Config
from facestream.pipeline.errors import BadInput, UserError
from facestream.pipeline.run import Job, run_stages
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.stages.chain import FacePipeline
from facestream.pipeline.types import Frame, TrackedFrame
from msgspec import to_builtins
from msgspec.json import decode, encode

# stage -> the calls that make it up: the line's part and its method.
CALLS = {
    "analyse": (("analyser", "push"),),
    "detect": (("policy", "plan"), ("detection", "run")),
    "track": (("tracking", "summary"), ("tracking", "update")),
    "look-ahead": (("lookahead", "push"), ("lookahead", "flush")),
}


# Starts the command from a small process: one that is started from a large one begins with that one's peak memory.
_LAUNCH = """
import json, os, sys, time
began = time.perf_counter()
_, status, usage = os.wait4(os.spawnvp(os.P_NOWAIT, sys.argv[2], sys.argv[2:]), 0)
took = time.perf_counter() - began
cpu = usage.ru_utime + usage.ru_stime
with open(sys.argv[1], "w") as file:
    json.dump([cpu, took, usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status)], file)
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """Of one process: seconds of CPU and by the clock, and peak memory in MB."""

    cpu_s: float
    wall_s: float
    rss_mb: float


@dataclass(slots=True)
class Bench:
    """ours, baselines: of whole commands. stages_ms: CPU milliseconds a frame. limit_s: CPU seconds of decoding and
    encoding alone. cut: frames that the baselines were given where that was not all, and ours of just these. height: of
    the video's pictures, in pixels."""

    frames: int
    ours: Spent
    stages_ms: dict[str, float]
    limit_s: float
    baselines: dict[str, Spent] = field(default_factory=dict)
    cut: tuple[int, Spent] | None = None
    height: int = 0

    def as_dict(self) -> dict[str, Any]:
        frames, ours = self.cut or (self.frames, self.ours)
        return {
            "frames": self.frames,
            "height": self.height,
            **_row(self.ours, self.frames),
            "limit_cpu_s_per_frame": round(self.limit_s / self.frames, 5),
            "times_limit": round(self.ours.cpu_s / self.limit_s, 3),
            "stages_ms": self.stages_ms,
            "peers": {
                name: _row(spent, frames) | {"cpu_ratio": round(spent.cpu_s / ours.cpu_s, 3)}
                for name, spent in self.baselines.items()
            },
        } | ({"baseline_frames": frames, "same_frames": _row(ours, frames)} if self.cut else {})

    def table(self) -> str:
        """The figures as text, a line a stage and a line a tool."""
        figures = self.as_dict()
        lines = [f"{'stage':<34}{'CPU ms a frame':>16}"]
        lines += [f"{name:<34}{ms:>16.2f}" for name, ms in self.stages_ms.items()]
        lines += ["", f"{'command, ' + str(self.frames) + ' frames':<34}{'CPU s a frame':>16}{'frames/s':>10}"
                  f"{'peak MB':>9}{'x our CPU':>11}"]  # fmt: skip
        alone = f"{self.limit_s / self.frames:>16.4f}{'':>19}{1 / figures['times_limit']:>11.2f}"
        lines += [f"{'decode and encode alone':<34}{alone}", _line("facestream", self.ours, self.frames, self.ours)]
        frames, ours = self.cut or (self.frames, self.ours)
        if self.cut:
            lines += ["", _line(f"facestream, {frames} frames", ours, frames, ours)]
        lines += [_line(name, spent, frames, ours) for name, spent in self.baselines.items()]
        return "\n".join(lines)


def _row(spent: Spent, frames: int) -> dict[str, float]:
    return {
        "cpu_s_per_frame": round(spent.cpu_s / frames, 5),
        "fps": round(frames / spent.wall_s, 2),
        "peak_rss_mb": round(spent.rss_mb, 1),
    }


def _line(name: str, spent: Spent, frames: int, ours: Spent) -> str:
    row = _row(spent, frames)
    figures = f"{row['cpu_s_per_frame']:>16.4f}{row['fps']:>10.1f}{row['peak_rss_mb']:>9.0f}"
    return f"{name:<34}{figures}{spent.cpu_s / ours.cpu_s:>11.2f}"


def cut_to(video: Path, frames: int, out: Path) -> None:
    """The first `frames` packets of a file's video, as they are and without its sound, into another file."""
    with av.open(str(video)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in islice((p for p in source.demux(video=0) if p.dts is not None), frames):
            packet.stream = stream
            target.mux(packet)


class Nobody:
    """Stages that find no one: what is left is decoding and encoding."""

    def push(self, frame: Frame) -> list[TrackedFrame]:
        return [TrackedFrame(frame, ())]

    def flush(self) -> list[TrackedFrame]:
        return []


def bench(
    video: Path, config: Config, against: dict[str, tuple[str, ...]], command: str | None, rounds: int,
    progress: Callable[[str], None], baseline_frames: int = 0,
) -> Bench:  # fmt: skip
    """Time the job that `anonymize` does with these settings, `rounds` times, in turn with the others; medians.

    against: a name for each run of deface, and its arguments; command: its executable. baseline_frames: it is given
    only so many frames, and ours runs on these as well (0: all). BadInput where a pass fails.
    """
    tool = executable("deface", command) if against else ""
    spent: dict[str, list[Spent]] = defaultdict(list)
    passes: dict[str, list[Any]] = defaultdict(list)
    frames: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "config.json")
        ours = Path(folder, "config.toml")
        settings.write_text(encode(config).decode())
        ours.write_text(_toml(config), encoding="utf-8")
        out = Path(folder, f"out{video.suffix}")
        short = video
        if against and baseline_frames:
            short = Path(folder, f"cut{video.suffix}")
            cut_to(video, baseline_frames, short)
        jobs = {"whole": video} | ({"cut": short} if short != video else {})
        for turn in range(1, rounds + 1):
            for name in ("decode", "copy", "stages"):
                progress(f"{turn} of {rounds}: {name}")
                call = [
                    sys.executable,
                    "-m",
                    __spec__.name,
                    name,
                    str(video),
                    str(settings),
                    str(out),
                ]
                passes[name].append(json.loads(timed(call)[1].splitlines()[-1]))
                out.unlink(missing_ok=True)
            for name, file in jobs.items():
                progress(f"{turn} of {rounds}: {name}")
                call = [sys.executable, "-m", "facestream", "anonymize", str(file), "-o", str(out), "--quiet"]
                spent[name].append(timed([*call, "--config", str(ours)])[0])
                frames[name] = _frames(out)
                out.unlink()
            for name, arguments in against.items():
                progress(f"{turn} of {rounds}: {name}")
                took, _ = timed([tool, str(short), "--output", str(out), *arguments])
                spent[name].append(took)
                out.unlink(missing_ok=True)
    stages = _stages(passes, frames["whole"])
    limit = median(t["cpu_s"] for t in passes["copy"])
    baselines = {name: _middle(spent[name]) for name in against}
    cut = (frames["cut"], _middle(spent["cut"])) if "cut" in frames else None
    return Bench(frames["whole"], _middle(spent["whole"]), stages, limit, baselines, cut, _height(video))


def _toml(config: Config) -> str:
    """The settings as a file for --config: TOML writes such values as JSON does."""
    lines = []
    tables = to_builtins(config)
    advanced = tables.pop("advanced")
    for name, table in [*tables.items(), *((f"advanced.{stage}", values) for stage, values in advanced.items())]:
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
    return "\n".join(lines)


def _frames(video: Path) -> int:
    with av.open(str(video)) as source:
        return sum(packet.size > 0 for packet in source.demux(video=0))


def _height(video: Path) -> int:
    with av.open(str(video)) as source:
        return source.streams.video[0].codec_context.height


def _stages(passes: dict[str, list[Any]], frames: int) -> dict[str, float]:
    decode = median(t["cpu_s"] for t in passes["decode"])
    encode = max(0.0, median(t["cpu_s"] for t in passes["copy"]) - decode)
    inside = {name: median(t["stages"].get(name, 0.0) for t in passes["stages"]) for name in (*CALLS, "cover")}
    total = median(t["cpu_s"] for t in passes["stages"])
    parts = {"decode": decode, **inside, "encode": encode}
    parts["rest"] = max(0.0, total - sum(parts.values()))
    return {name: round(1000 * seconds / frames, 3) for name, seconds in parts.items()}


def _middle(runs: list[Spent]) -> Spent:
    return Spent(median(r.cpu_s for r in runs), median(r.wall_s for r in runs), max(r.rss_mb for r in runs))


def timed(command: list[str]) -> tuple[Spent, str]:
    """Run a command; what it took, and its standard output. BadInput with its last words where it fails."""
    with (
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
        tempfile.NamedTemporaryFile() as took,
    ):
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, took.name, *command]
        process = subprocess.Popen(launch, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        try:
            process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        out.seek(0)
        err.seek(0)
        usage = took.read()
        cpu_s, wall_s, rss_mb, code = json.loads(usage) if usage else (0, 0, 0, process.returncode)
        if code:
            last = (err.read().strip() or out.read().strip() or "no message").splitlines()[-1]
            file = command[4] if command[0] == sys.executable else Path(command[0]).name
            raise BadInput(f"failed: {last}", file)
        return Spent(cpu_s, wall_s, rss_mb), out.read()


def _timing(call: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    def timed_call(*arguments: Any, **more: Any) -> Any:
        began = time.thread_time()
        try:
            return call(*arguments, **more)
        finally:
            spent[name] += time.thread_time() - began

    return timed_call


def _instrumented(video: str, config: Config, out: Path) -> dict[str, Any]:
    """The job with a clock around each stage's calls: they all run on one thread, whose CPU time is taken."""
    spent: dict[str, float] = defaultdict(float)
    line: Any = FacePipeline(load_detector(config.detector.model, config.detector.options()), config)
    for name, calls in CALLS.items():
        for part, method in calls:
            owner = getattr(line, part)
            setattr(owner, method, _timing(getattr(owner, method), spent, name))
    anonymizer: Any = Anonymizer
    anonymizer.cover = _timing(anonymizer.cover, spent, "cover")
    report = run_stages(Job(video, out), config, line, progress=False)
    return {"frames": report.frames, "cpu_s": report.cpu_s, "stages": spent}


def _pass(name: str, video: str, config: Config, out: Path) -> dict[str, Any]:
    """One pass, in this process. Its own start is no part of cpu_s."""
    if name == "stages":
        return _instrumented(video, config, out)
    report = run_stages(Job(video, out if name == "copy" else None), config, Nobody(), progress=False)
    return {"frames": report.frames, "cpu_s": report.cpu_s}


def main() -> None:
    name, video, settings, out = sys.argv[1:]
    config = decode(Path(settings).read_bytes(), type=Config)
    try:
        print(json.dumps(_pass(name, video, config, Path(out))))
    except UserError as e:
        sys.exit(str(e))


if __name__ == "__main__":
    main()
