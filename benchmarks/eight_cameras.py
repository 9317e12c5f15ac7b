"""Eight odd cameras from one settings file for half an hour: connections, memory, recordings, reload.

    python benchmarks/eight_cameras.py OUT --cases CASES [--minutes 30] [--segment 60] [--fps 10] [--plot memory.png]

CASES/live holds the cameras' players (cam.py, mjpegd.py). Each camera has the way of one that was reported: full-range
H.264, HTTP MJPEG of another rate than FFmpeg takes it for, SHA-256 alone with a password of odd letters, UDP alone, an
RTP clock that jumps, a picture every five seconds, HEVC that answers late and falls every two minutes, sound. All go to
the page, to segments, to records and to an RTSP mount; a player stays at the mount of the camera that falls. A ninth
camera is added by SIGHUP, and removed again: once in the first third, and once in the middle, when it must leave
nothing that it has not left before.

Prints one JSON object and exits with 1 where something does not hold: other reconnects than the provoked ones, memory
that grows after the first third of the run by more than 0.1 MB a minute, a recording that does not decode to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

ROOT = Path(__file__).parent.parent
PASSWORD = "#se/cr?et 1"
FALLS_S = 120  # seconds after which one camera closes each of its connections
MOST_GROWTH = 0.1  # MB a minute
SETTLED_S = 60  # in which a camera may be lost once, until it is known how slow it is
SIZE = (320, 192)
CLIP_S = 30  # mjpegd.py shows 148 pictures in a loop


@dataclass(frozen=True)
class Player:
    """How a camera is played. how: options of cam.py; codec and pixels of its clip; {port} in source is its own."""

    source: str
    how: dict[str, Any] = field(default_factory=dict)
    codec: str = "libx264"
    pixels: str = "yuv420p"
    falls: bool = False


PLAYERS = {
    "full_range": Player("rtsp://127.0.0.1:{port}/x", pixels="yuvj420p"),
    "mjpeg": Player("http://127.0.0.1:{port}/normal", {"mjpeg": True}),
    "sha256": Player("rtsp://admin:${EIGHT_PASSWORD}@127.0.0.1:{port}/x", {"auth": "sha256", "password": PASSWORD}),
    "udp": Player("rtsp://127.0.0.1:{port}/x", {"udp_only": 1}),
    "clock": Player("rtsp://127.0.0.1:{port}/x", {"ts": "ts - 225000 * (k // 300)"}),
    "slow": Player("rtsp://127.0.0.1:{port}/x", {"real_fps": 0.2}),
    "falls": Player(
        "rtsp://127.0.0.1:{port}/x", {"describe_delay": 4, "close_after": FALLS_S}, codec="libx265", falls=True
    ),
    "sound": Player(
        "rtsp://admin:secret@127.0.0.1:{port}/x",
        {
            "auth": "md5",
            "extra": [
                {"kind": "pcma", "track": "trackID=2", "sdp": ["m=audio 0 RTP/AVP 8", "a=rtpmap:8 PCMA/8000"]},
            ],
        },
    ),
}
NINTH_AT = ((0.15, 0.2), (0.5, 0.55))  # shares of the run at which it comes and goes
NINTH = '[[camera]]\nname = "ninth"\nsource = "lavfi:testsrc2=size=160x120:rate=5,realtime"\n'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_clip(path: Path, codec: str, pixels: str, fps: int) -> None:
    """The demo clip's people, small."""
    lines = {"g": "20", "bf": "0", "preset": "veryfast", "x265-params": "log-level=none:bframes=0:keyint=20"}
    options = {name: value for name, value in lines.items() if codec == "libx265" or name != "x265-params"}
    with av.open(str(ROOT / "tools" / "demo.mp4")) as source, av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=fps, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pixels
        frames = list(source.decode(video=0))[:: 30 // fps]
        pictures = [frame.reformat(*SIZE, format=pixels) for frame in frames]
        for n in range(CLIP_S * fps):
            picture = av.VideoFrame.from_ndarray(pictures[n % len(pictures)].to_ndarray(), format=pixels)
            picture.pts = n
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


def start_player(folder: Path, cases: Path, name: str, player: Player, port: int, fps: int) -> subprocess.Popen[bytes]:
    """Start a camera in a folder of its own; its log is there too."""
    own = folder / name
    (own / "out").mkdir(parents=True)
    (own / "m").mkdir()
    clip = own / ("m/small.mkv" if "mjpeg" in player.how else "clip.mp4")
    make_clip(clip, player.codec, player.pixels, fps)
    if "mjpeg" in player.how:
        words = [str(cases / "live" / "mjpegd.py"), str(port), str(fps)]
    else:
        how = {"real_fps": fps, **player.how}
        words = [str(cases / "live" / "cam.py"), str(port), str(clip), json.dumps(how)]
    with (own / "log").open("w") as log:
        return subprocess.Popen([sys.executable, *words], cwd=own, stdout=log, stderr=subprocess.STDOUT)


def settings(out: Path, ports: dict[str, int], page: int, mounts: int, segment_s: float, every: int) -> str:
    rows = [
        "[run]",
        f'sinks = ["http://127.0.0.1:{page}", "{out}/{{name}}.mkv", "{out}/{{name}}.jsonl",'
        f' "serve:rtsp://127.0.0.1:{mounts}/{{name}}"]',
        f"segment_s = {segment_s}",
        f'events = "{out}/events.json"',
        "read_timeout_s = 10",  # other programs may keep this machine busy for seconds: that is no camera's fault
        "deadline_s = 5",
        "[detector]",
        "size = [320, 192]",
        f"every = {every}",
    ]
    for name, player in PLAYERS.items():
        rows += ["[[camera]]", f'name = "{name}"', f'source = "{player.source.replace("{port}", str(ports[name]))}"']
        rows += ["audio = true"] * (name == "sound") + ["detect_every = 1"] * (name == "slow")
    return "\n".join(rows) + "\n"


def fetch(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=20) as answer:
        text: str = answer.read().decode()
        return text


def cameras_of(port: int) -> dict[str, dict[str, Any]]:
    return {camera["name"]: camera for camera in json.loads(fetch(port, "status"))["cameras"]}


class Viewer:
    """A player at an RTSP mount that never connects again: what it has seen when its stream ends is all."""

    def __init__(self, url: str) -> None:
        self.pictures = 0
        self.ended = ""
        self._url = url
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with av.open(self._url, options={"rtsp_transport": "tcp"}, timeout=30.0) as stream:
                for _ in stream.decode(video=0):
                    self.pictures += 1
            self.ended = "end of stream"
        except av.FFmpegError as error:
            self.ended = str(error)


@dataclass
class Sample:
    """The run's process at a moment: resident MB, threads, open files, seconds of CPU so far."""

    at_s: float
    mb: float
    threads: int
    files: int
    cpu_s: float

    @staticmethod
    def of(pid: int, began_s: float) -> Sample:
        lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        files = len(os.listdir(f"/proc/{pid}/fd"))
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        cpu_s = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
        mb = int(lines["VmRSS"].split()[0]) / 1024
        return Sample(time.monotonic() - began_s, mb, int(lines["Threads"]), files, cpu_s)


def decode(path: Path) -> tuple[int, str]:
    """Decode a recording whole; returns its pictures and what is wrong with it."""
    pictures = 0
    try:
        with av.open(str(path)) as container:
            for packet in container.demux():
                if packet.stream.type == "video":
                    pictures += len(packet.decode())
                else:
                    packet.decode()
    except av.FFmpegError as error:
        return pictures, f"{path.name}: {error}"
    return pictures, "" if pictures else f"{path.name}: no picture"


def judge(figures: dict[str, Any]) -> list[str]:
    """What does not hold."""
    wrong = [f"{name} reconnected {n} times" for name, n in figures["unprovoked_reconnects"].items() if n]
    if figures["mb_per_minute"] > MOST_GROWTH:
        wrong.append(f"memory grew by {figures['mb_per_minute']} MB a minute")
    wrong += figures["recordings_wrong"]
    wrong += [f"unfinished: {name}" for name in figures["unfinished"]]
    wrong += [f"the viewer's stream ended: {figures['viewer_ended']}"] if figures["viewer_ended"] else []
    if figures["ninth"] != len(NINTH_AT):
        wrong.append(f"the ninth camera came and went {figures['ninth']} times")
    wrong += [] if figures["exit_code"] == 130 else [f"exit code {figures['exit_code']}"]
    return wrong + (["a traceback"] if figures["tracebacks"] else [])


def draw(path: Path, samples: list[Sample], slope: float) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3), dpi=90)
    axes.plot([s.at_s / 60 for s in samples], [s.mb for s in samples], lw=0.8, label=f"{slope:+.3f} MB a minute")
    axes.set(xlabel="minutes", ylabel="resident MB", ylim=(0, None))
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", type=Path, default=Path(os.environ.get("FACESTREAM_CASES", "cases")))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--segment", type=float, default=60.0, help="seconds of a segment")
    parser.add_argument("--fps", type=int, default=10, help="pictures a second of each camera but the slow one")
    parser.add_argument("--every", type=int, default=4, help="pictures between two detections")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    out = options.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    (out / "recordings").mkdir(parents=True)
    ports = {name: free_port() for name in PLAYERS}
    page = free_port()
    mounts = free_port()
    file = out / "cameras.toml"
    text = settings(out / "recordings", ports, page, mounts, options.segment, options.every)
    tomllib.loads(text)
    file.write_text(text)
    players = [
        start_player(out, options.cases, name, player, ports[name], options.fps) for name, player in PLAYERS.items()
    ]
    try:
        figures = watch(options, out, file, page, mounts)
    finally:
        for process in players:
            process.kill()
    wrong = judge(figures)
    print(json.dumps({**figures, "wrong": wrong}, indent=1))
    return 1 if wrong else 0


def watch(options: argparse.Namespace, out: Path, file: Path, page: int, mounts: int) -> dict[str, Any]:
    """Run facestream on the cameras and note what happens."""
    text = file.read_text()
    seconds = options.minutes * 60
    words = [sys.executable, "-m", "facestream", "run", "--config", str(file)]
    samples: list[Sample] = []
    status: dict[str, dict[str, Any]] = {}
    with (out / "log").open("w") as log:
        environment = {**os.environ, "EIGHT_PASSWORD": PASSWORD}
        run = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            began = time.monotonic()
            viewer: Viewer | None = None
            visits = 0  # of the ninth camera, so far
            there = False
            learned: dict[str, int] = {}  # connections lost before the run has settled
            while (at_s := time.monotonic() - began) < seconds and run.poll() is None:
                time.sleep(1.0)
                try:
                    samples.append(Sample.of(run.pid, began))
                    status = cameras_of(page)
                except (OSError, KeyError):  # not there yet, or no longer
                    continue
                if at_s < min(SETTLED_S, seconds / 3):
                    learned = {name: int(camera["connections_lost"]) for name, camera in status.items()}
                if viewer is None and status.get("falls", {}).get("state") == "live":
                    viewer = Viewer(f"rtsp://127.0.0.1:{mounts}/falls")
                share = at_s / seconds
                if visits < len(NINTH_AT):
                    comes, goes = NINTH_AT[visits]
                    state = status.get("ninth", {}).get("state")
                    if not there and share > comes and state is None:
                        file.write_text(text + NINTH)
                        run.send_signal(signal.SIGHUP)
                        there = True
                    elif there and share > goes and state == "live":
                        file.write_text(text)
                        run.send_signal(signal.SIGHUP)
                        there = False
                        visits += 1
            if "ninth" in status:
                visits -= 1
            ended = viewer.ended if viewer else "it never began"
            run.terminate()
            code = run.wait(30)
        finally:
            run.kill()
    return figures_of(out, samples, status, learned, visits, viewer, ended, code, options.plot)


def figures_of(
    out: Path, samples: list[Sample], status: dict[str, dict[str, Any]], learned: dict[str, int], ninth: int,
    viewer: Viewer | None, ended: str, code: int, plot: Path | None,
) -> dict[str, Any]:  # fmt: skip
    late = [sample for sample in samples if sample.at_s > samples[-1].at_s / 3]
    minutes = np.array([sample.at_s for sample in late]) / 60
    slope = float(np.polyfit(minutes, [sample.mb for sample in late], 1)[0])
    (out / "samples.json").write_text(json.dumps([asdict(sample) for sample in samples]))
    if plot:
        draw(plot, samples, slope)
    files = sorted((out / "recordings").glob("*.mkv"))
    decoded = {path.name: decode(path) for path in files}
    lost = {name: int(camera["connections_lost"]) - learned.get(name, 0) for name, camera in status.items()}
    log = (out / "log").read_text()
    return {
        "minutes": round(samples[-1].at_s / 60, 1),
        "mb_start_of_fit": round(late[0].mb, 1),
        "mb_end": round(late[-1].mb, 1),
        "mb_per_minute": round(slope, 3),
        "cpu_s": round(samples[-1].cpu_s, 1),
        "threads": sorted({late[0].threads, late[-1].threads}),
        "open_files": sorted({late[0].files, late[-1].files}),
        "emitted": {name: camera["frames_emitted"] for name, camera in status.items()},
        "dropped": {name: camera.get("frames_dropped", 0) for name, camera in status.items()},
        "losses_while_learning": {name: n for name, n in learned.items() if n},
        "provoked_losses": {name: n for name, n in lost.items() if PLAYERS[name].falls},
        "unprovoked_reconnects": {
            name: n for name, n in lost.items() if name in PLAYERS and not PLAYERS[name].falls
        },
        "recordings": len(files),
        "pictures": sum(pictures for pictures, _ in decoded.values()),
        "recordings_wrong": [what for _, what in decoded.values() if what],
        "unfinished": sorted(path.name for path in (out / "recordings").glob("*.unfinished*")),
        "viewer_pictures": viewer.pictures if viewer else 0,
        "viewer_ended": ended,
        "ninth": ninth,
        "exit_code": code,
        "tracebacks": log.count("Traceback"),
        "password_in_log": PASSWORD in log,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
