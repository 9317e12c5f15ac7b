"""Measures a live run in real time: 720p30 RTSP camera -> face pipeline -> RTSP server -> player.

    python benchmarks/measure_live.py [--seconds 600] [--model plainXS16] [--every 2] [--size 640x384] [--lookahead 15]

Four processes: the camera (a clip that was encoded once, its frames numbered), facestream ("line"), the same transcode
without detection and covers ("plain"), and this one, which plays both. It plays facestream's stream all the time and
the plain one for a quarter of each minute; delays are compared within those quarters.

Prints frames/s, every frame that did not arrive and the reason, the latency from sending a frame to decoding it at the
player, facestream's memory and its growth, and CPU time per frame by stage; at the end whether each goal is met. The
exit code is 0 if all are. CPU time is the process's own and comparable on a busy machine; latency and frames/s need a
quiet one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
from facestream.benchmarks.live_rig import PERIOD, RATE, read_number

PLAYER = {"rtsp_transport": "tcp", "flags": "low_delay", "probesize": "500000", "analyzeduration": "500000"}
# seconds
MINUTE = 60.0
QUARTER = 15.0
WARM_S = 10.0
STAGES = (
    ("camera", "decode (camera thread)"), ("av:", "decode (FFmpeg's threads)"), ("line", "motion, track, cover"),
    ("detector", "detect"), ("sink", "encode"), ("rtsp server", "serve"),
)  # fmt: skip


class Process:
    """A process of live_rig.py, and the newest figures that it printed."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("live_rig.py")), *arguments]
        self.popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.figures: dict[str, Any] = self._read()
        self.url: str = self.figures["url"]
        threading.Thread(target=self._follow, daemon=True).start()

    def _read(self) -> dict[str, Any]:
        assert self.popen.stdout is not None
        text = self.popen.stdout.readline()
        if not text:
            raise SystemExit(f"{self.popen.args[1:3]} ended by itself")  # type: ignore[index]
        return dict(json.loads(text))

    def _follow(self) -> None:
        assert self.popen.stdout is not None
        for text in self.popen.stdout:
            self.figures = json.loads(text)

    def memory_mb(self) -> float:
        return int(Path(f"/proc/{self.popen.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu(self) -> Counter[str]:
        """CPU seconds so far, by stage."""
        spent: Counter[str] = Counter()
        for task in Path(f"/proc/{self.popen.pid}/task").iterdir():
            try:
                comm = (task / "comm").read_text().strip()
                stat = (task / "stat").read_text()
            except OSError:
                continue
            stage = next((what for start, what in STAGES if comm.startswith(start)), "others")
            fields = stat.rpartition(")")[2].split()
            spent[stage] += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return spent

    def stop(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()


class Player:
    """Decodes a stream and records each frame's arrival time, number and latency in ms (nan: unreadable)."""

    def __init__(self, url: str, moments: np.ndarray) -> None:
        self.url = url
        self.moments = moments
        self.rows: list[tuple[float, int, float]] = []
        self.over = threading.Event()
        self.error = ""
        self.cpu_s = 0.0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            with av.open(self.url, options=PLAYER, timeout=(10.0, 10.0)) as container:
                container.streams.video[0].thread_type = "SLICE"
                container.streams.video[0].codec_context.thread_count = 1
                for picture in container.decode(video=0):
                    now = time.monotonic()
                    luma = np.frombuffer(picture.planes[0], np.uint8).reshape(-1, picture.planes[0].line_size)
                    number = read_number(luma)
                    delay = (now - self.moments[number]) * 1000 if number is not None and number < PERIOD else np.nan
                    self.rows.append((now, -1 if np.isnan(delay) else int(number or 0), delay))
                    self.cpu_s = time.thread_time()
                    if self.over.is_set():
                        return
        except av.FFmpegError as error:
            self.error = str(error)

    def stop(self) -> None:
        self.over.set()
        self.thread.join(15)


def missing(rows: list[tuple[float, int, float]]) -> int:
    """The number of frames that did not arrive, from gaps in the frame numbers. Unreadable frames (fully covered ones)
    count as arrived."""
    lost = 0
    last = None
    between = 0
    for _, number, _ in rows:
        if number < 0:
            between += 1
            continue
        if last is not None:
            lost += (number - last) % PERIOD - 1 - between
        last = number
        between = 0
    return lost


def delays(rows: list[tuple[float, int, float]], windows: list[tuple[float, float]] | None = None) -> np.ndarray:
    found = [d for at, _, d in rows if not np.isnan(d) and (windows is None or any(a <= at < b for a, b in windows))]
    return np.array(found or [np.nan])


def slowest(rows: list[tuple[float, int, float]], seconds: float) -> float:
    """The lowest frame rate over any window of so many seconds, frames/s."""
    times = np.array([at for at, _, _ in rows])
    if len(times) < 2 or times[-1] - times[0] < seconds:
        return float("nan")
    starts = times[times <= times[-1] - seconds]
    return float((np.searchsorted(times, starts + seconds) - np.arange(len(starts))).min() / seconds)


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run all four processes; returns the raw data of the report."""
    moments = np.memmap(folder / "moments", np.float64, "w+", shape=(PERIOD,))
    width, height = (int(v) for v in given.size.split("x"))
    settings = {
        "detector.size": (width, height), "detector.every": given.every, "detector.model": given.model,
        "tracker.lookahead": given.lookahead,
    }  # fmt: skip
    camera = Process("camera", str(folder / "moments"))
    line = Process("line", camera.url, json.dumps(settings))
    plain = Process("plain", camera.url)
    addresses = line.url, plain.url
    while "lost" not in line.figures or not line.figures["frames"]:
        time.sleep(0.2)
    watched = Player(addresses[0], moments)
    time.sleep(WARM_S)
    watched.rows.clear()
    before = line.figures
    cpu_before = line.cpu()
    player_before = watched.cpu_s
    sent_before = camera.figures
    began = time.monotonic()
    memory: list[tuple[float, float]] = []
    windows: list[tuple[float, float]] = []
    aside: list[tuple[float, int, float]] = []
    period = min(MINUTE, given.seconds)
    quarter = QUARTER * period / MINUTE
    beside: Player | None = None
    while (passed := time.monotonic() - began) < given.seconds:
        memory.append((passed, line.memory_mb()))
        wanted = passed % period >= period - quarter
        if wanted and beside is None:
            beside = Player(addresses[1], moments)
            opened = time.monotonic()
        if beside is not None and not (wanted and passed + 1 < given.seconds):
            beside.stop()
            if beside.rows:
                windows.append((beside.rows[0][0] + 1, time.monotonic()))  # the first second is for settling
                aside += [row for row in beside.rows if row[0] >= windows[-1][0]]
            print(f"  {passed:.0f} s: plain was watched for {time.monotonic() - opened:.0f} s", flush=True)
            beside = None
        time.sleep(1.0)
    seconds = time.monotonic() - began
    rows = list(watched.rows)
    spent = line.cpu()
    spent.subtract(cpu_before)
    result = {
        "rows": rows, "aside": aside, "windows": windows, "memory": memory, "seconds": seconds, "cpu": spent,
        "player": watched.cpu_s - player_before, "before": before, "after": line.figures, "error": watched.error,
        "source": (sent_before, camera.figures),
    }  # fmt: skip
    watched.stop()
    for process in (plain, line, camera):
        process.stop()
    return result


def report(result: dict[str, Any], lookahead: int) -> bool:
    """Print the report; returns whether all goals are met."""
    rows = result["rows"]
    seconds = result["seconds"]
    before = result["before"]
    after = result["after"]
    lost = missing(rows)
    causes = {what: after["lost"][what] - before["lost"][what] for what in after["lost"]}
    causes["camera's own server"] = result["source"][1]["dropped"] - result["source"][0]["dropped"]
    known = sum(causes.values())
    rate = (len(rows) - 1) / (rows[-1][0] - rows[0][0]) if len(rows) > 1 else 0.0
    wait = lookahead / RATE * 1000
    ours = delays(rows)
    same = delays(rows, result["windows"])
    theirs = delays(result["aside"])
    print(f"\nplayed: {len(rows)} frames in {seconds:.0f} s, {rate:.2f} frames/s", end="")
    print(f" (worst ten seconds: {slowest(rows, 10):.1f}, worst second: {slowest(rows, 1):.0f})")
    unexplained = max(0, lost - known)
    print(f"missing: {lost}, unexplained: {unexplained}", end="")
    print("".join(f"; {number} {what}" for what, number in causes.items() if number))
    fully_covered = after["fully_covered"] - before["fully_covered"]
    detections = after["detections"] - before["detections"]
    print(f"fully covered: {fully_covered}; detections: {detections} of {after['frames'] - before['frames']} frames")
    print(
        f"latency: median {np.median(ours):.0f} ms, p95 {np.percentile(ours, 95):.0f} ms; less {wait:.0f} ms of", end=""
    )
    print(f" look-ahead: {np.median(ours) - wait:.0f} ms")
    added = float(np.median(same) - wait - np.median(theirs))
    print(f"plain transcode: median {np.median(theirs):.0f} ms over {len(theirs)} frames, facestream meanwhile", end="")
    print(f" {np.median(same) - wait:.0f} ms; it adds {added:.0f} ms")
    minutes, megabytes = np.array([(t / 60, m) for t, m in result["memory"]]).T
    steady = minutes >= minutes[-1] / 4
    slope = float(np.polyfit(minutes[steady], megabytes[steady], 1)[0]) if steady.sum() > 2 else float("nan")
    print(f"memory: {megabytes[0]:.1f} -> {megabytes[-1]:.1f} MB, maximum {megabytes.max():.1f}; ", end="")
    print(f"{slope:+.2f} MB per minute over the last three quarters")
    frames = max(1, after["frames"] - before["frames"])
    parts = ", ".join(f"{what} {1000 * s / frames:.1f}" for what, s in result["cpu"].most_common() if s > 0)
    total = sum(result["cpu"].values())
    print(f"CPU of facestream: {total / seconds:.2f} s/s, {1000 * total / frames:.1f} ms per frame: {parts}")
    print(f"CPU of the player: {1000 * result['player'] / max(1, len(rows)):.1f} ms per frame")
    for message in (*after["messages"], *([result["error"]] if result["error"] else [])):
        print(f"message: {message}")
    goals = {
        "30 frames/s": rate > RATE - 0.1,
        "no frame missing without a reason": unexplained == 0,
        "none missing at all": lost == 0,
        "flat memory (under 0.5 MB per minute)": slope < 0.5,
        "at most 60 ms more than plain": added <= 60,
    }
    for goal, met in goals.items():
        print(f"{'yes' if met else 'NO '}  {goal}")
    return all(goals.values())


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=600)
    arguments.add_argument("--model", default="plainXS16")
    arguments.add_argument("--every", default="2")
    arguments.add_argument("--size", default="640x384")
    arguments.add_argument("--lookahead", type=int, default=15)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return 0 if report(measure(given, Path(folder)), given.lookahead) else 1


if __name__ == "__main__":
    sys.exit(main())
