"""Live runs from end to end: cameras that connect and disconnect, a detector that fails, players."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from facestream.engines.base import Detector
from facestream.pipeline.cli.app import main
from facestream.pipeline.cli.run import EventPrinter, named
from facestream.pipeline.config import read
from facestream.pipeline.connection import State
from facestream.pipeline.errors import BadInput
from facestream.pipeline.live.builder import SinkBuilder, SinkSpec
from facestream.pipeline.live.run import CameraPipeline, Live
from facestream.pipeline.live.state import CameraOptions
from facestream.pipeline.rtsp.server import RtspServer
from facestream.pipeline.video.uri import parse

from tests.feed import Feed
from tests.live.test_fail_closed import SECRET, Moody, frame
from tests.servers import QUICK, free_port, talking, until

FAST = {"detector.size": (320, 192), "tracker.lookahead": 3}


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip whose only content is the mark that must not be seen."""
    path = tmp_path_factory.mktemp("marked") / "marked.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "10", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for n in range(25):
            shown = frame(n).picture
            shown.pts, shown.time_base = n, Fraction(1, 25)
            out.mux(stream.encode(shown))
        out.mux(stream.encode(None))
    assert spread(path) > 150
    return path


def spread(path: str | Path, most: int = 10_000, **options: str) -> float:
    """The largest difference that the mark's place shows in any picture: stripes, or one grey."""
    largest = 0.0
    given: dict[str, Any] = {"timeout": (5.0, 3.0)} if str(path).startswith("rtsp") else {}
    with av.open(str(path), options=options, **given) as container:
        for n, shown in enumerate(container.decode(video=0)):
            largest = max(largest, float(np.ptp(shown.to_ndarray(format="gray")[SECRET, SECRET].astype(int))))
            if n + 1 >= most:
                break
    return largest


class Run:
    """A live run in this process, watched over by this thread whenever it waits for something."""

    def __init__(self, sources: dict[str, str], sinks: list[str], detector: Detector, **flags: Any) -> None:
        self.said: list[tuple[str, str]] = []
        config = read(None, {**FAST, **{key.replace("__", "."): value for key, value in flags.items()}})
        self.live = Live(config, detector, lambda name, message: self.said.append((name, message)))
        builder = SinkBuilder(self.live, config, False, EventPrinter(True))
        options = CameraOptions(source=QUICK, loop=True, stall_s=0.3, max_backoff_s=0.5, refused_wait_s=0.5)
        specs = [SinkSpec.of(sink, len(sources) > 1) for sink in sinks]
        builder.open(specs)
        for name, source in sources.items():
            builder.connect(self.live.add(name, parse(source), options), specs)
        self.pages = list(builder._pages.values())
        self.window = builder.window

    def __enter__(self) -> Run:
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        began = time.monotonic()
        assert self.live.stop(), "a thread hangs"
        assert time.monotonic() - began < 15
        assert "secret" not in str(self.said)

    def __getitem__(self, name: str) -> CameraPipeline:
        return next(pipeline for pipeline in self.live.pipelines if pipeline.name == name)

    def until(self, condition: Any, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"never came true: {self.said[-5:]}"
            self.live.wait(0.05)

    def left(self, name: str) -> int:
        return self[name].counts.emitted


def test_covered_pictures_reach_players_files_and_records(marked: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"rtsp://viewer:secret@127.0.0.1:{port}/door"
    sinks = [f"serve:{url}", f"serve:rtsp://127.0.0.1:{port}/open", str(tmp_path / "o.mkv"), str(tmp_path / "o.jsonl")]
    with Run({"door": str(marked)}, sinks, Moody()) as run:
        run.until(lambda: run.left("door") > 5)
        assert spread(url, 30, rtsp_transport="tcp") < 60
        assert spread(f"rtsp://127.0.0.1:{port}/open", 10, rtsp_transport="udp") < 60
        left = run.left("door")
        assert run["door"].counts.delay_ms > 0
    assert spread(tmp_path / "o.mkv") < 60
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert len(rows) >= left
    assert rows[-1]["faces"][0]["xyxy"] == pytest.approx([38, 38, 62, 62], abs=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.jsonl", "o.mkv"]


@pytest.mark.parametrize("mood", ["raise", "hang"])
def test_a_detector_that_breaks_in_mid_stream_shows_nothing(marked: Path, tmp_path: Path, mood: str) -> None:
    moody, out = Moody(), tmp_path / "o.mkv"
    with Run({"door": str(marked)}, [str(out)], moody, run__deadline_s=0.2) as run:
        run.until(lambda: run.left("door") > 20)
        moody.mood = mood
        run.until(lambda: run["door"].counts.line.fully_covered > 20)
        moody.mood = ""
        moody.awake.set()
        run.until(lambda: ("door", "faces are detected again") in run.said)
        left = run.left("door")
        run.until(lambda: run.left("door") > left + 20)
    assert any("fully covered" in message for _, message in run.said)
    assert spread(out) < 60


def test_a_detector_that_hangs_to_the_end_does_not_stop_the_end(marked: Path, tmp_path: Path) -> None:
    moody = Moody()
    live = Run({"door": str(marked)}, [str(tmp_path / "o.mkv")], moody, run__deadline_s=0.2)
    live.live.start()
    live.until(lambda: live.left("door") > 5)
    moody.mood = "hang"
    live.until(lambda: live["door"].counts.line.fully_covered > 3)
    began = time.monotonic()
    assert not live.live.stop()  # its thread must be left
    assert time.monotonic() - began < 15
    moody.awake.set()
    assert spread(tmp_path / "o.mkv") < 60


def fair(share: dict[str, int], more: int = 2) -> bool:
    """Whether counts lie within ten per cent of each other; more: what one look at them may be off."""
    return max(share.values()) <= 1.1 * min(share.values()) + more


def test_four_looped_cameras_are_served_fairly_by_a_detector_that_is_too_slow(marked: Path) -> None:
    """They want a hundred looks a second, and there is time for about fifty."""
    moody = Moody()
    detect = moody.detect

    def slowly(images: Any) -> Any:
        time.sleep(0.02)
        return detect(images)

    moody.detect = slowly  # type: ignore[method-assign]
    with Run(dict.fromkeys("abcd", str(marked)), ["serve:rtsp://127.0.0.1:0/{name}"], moody) as run:
        run.until(lambda: all(run.left(name) > 25 for name in "abcd"))
        left = {name: run.left(name) for name in "abcd"}
        looks = {name: run[name].counts.line.detector_runs for name in "abcd"}
        run.until(lambda: run.left("a") >= left["a"] + 150)
        left = {name: run.left(name) - left[name] for name in "abcd"}
        looks = {name: run[name].counts.line.detector_runs - looks[name] for name in "abcd"}
        assert fair(left), left
        assert max(looks.values()) <= 2 * min(looks.values()), looks  # every picture, or every other, or every third
        assert sum(looks.values()) < sum(left.values())  # it is the looks that are spared


def test_a_camera_that_dies_leaves_three_others_alone_and_comes_back(marked: Path) -> None:
    port, out = free_port(), free_port()

    @contextlib.contextmanager
    def camera() -> Iterator[None]:
        server = RtspServer("127.0.0.1", port)
        mount = server.mount("live")
        server.start()
        with Feed(lambda unit: server.send(mount, unit), mount.packetizer) as feed:
            mount.request_keyframe = feed.encoder.request_keyframe
            yield
            server.stop()

    def go_on(run: Run, names: str) -> None:
        """Stretches of 75 frames, until nearly as many left of one as of another: what is unfair is so in all of them,
        while a busy machine is in some."""
        shares: list[dict[str, int]] = []
        while not shares or not fair(shares[-1]):
            assert len(shares) < 4, shares
            before = {name: run.left(name) for name in names}
            run.until(lambda before=before: run.left("a") >= before["a"] + 75)
            shares.append({name: run.left(name) - before[name] for name in names})

    sources = {name: str(marked) for name in ("a", "b", "c")} | {"d": f"rtsp://127.0.0.1:{port}/live"}
    with Run(sources, [f"serve:rtsp://127.0.0.1:{out}/{{name}}"], Moody()) as run:
        run.until(lambda: all(run.left(name) > 10 for name in "abc"))  # the missing one delays nobody's start
        assert run["d"].camera.status.state is State.RECONNECTING
        with camera():
            run.until(lambda: run.left("d") > 20)
            go_on(run, "abc")
        go_on(run, "abc")
        run.until(lambda: run["d"].camera.status.state is State.RECONNECTING)
        with camera():
            left = run.left("d")
            run.until(lambda: run.left("d") > left + 10)
            assert run["d"].camera.status.losses >= 1  # more on a machine that is too busy to read in time
            go_on(run, "abc")
        assert [run[name].camera.status.losses for name in "abc"] == [0, 0, 0]
        assert spread(f"rtsp://127.0.0.1:{out}/b", 10, rtsp_transport="tcp") < 60


def test_a_pushed_stream_arrives_covered(marked: Path, tmp_path: Path) -> None:
    from tests.live.test_rtsp_push import grown, listening

    port, out = free_port(), tmp_path / "pushed.h264"
    with listening(port, out), Run({"door": str(marked)}, [f"rtsp://127.0.0.1:{port}/live"], Moody()) as run:
        run.until(grown(out, 3000))
    spreads = []
    with av.open(str(out), format="h264") as container, contextlib.suppress(av.error.InvalidDataError):
        for shown in container.decode(video=0):
            spreads.append(np.ptp(shown.to_ndarray(format="gray")[SECRET, SECRET].astype(int)))  # noqa: PERF401
    assert len(spreads) > 10
    assert max(spreads) < 60


def test_segments_are_whole_one_by_one_and_lose_no_frame(marked: Path, tmp_path: Path) -> None:
    sinks = [str(tmp_path / "{name}.mkv"), str(tmp_path / "{name}.jsonl")]
    with Run({"door": str(marked), "yard": str(marked)}, sinks, Moody(), run__segment_s=1.0) as run:
        run.until(lambda: len([p for p in tmp_path.glob("door-2*.mkv") if "unfinished" not in p.name]) >= 2)
        ready = sorted(p for p in tmp_path.glob("door-2*.mkv") if "unfinished" not in p.name)
        assert spread(ready[0]) < 60  # while the run goes on
    frames = []
    for path in sorted(tmp_path.glob("door-2*.mkv")):
        with av.open(str(path)) as container:
            frames.append(sum(1 for _ in container.decode(video=0)))
    rows = (tmp_path / "door.jsonl").read_text().splitlines()
    assert len(frames) >= 3
    assert abs(sum(frames) - len(rows)) <= run["door"].counts.sink_dropped
    assert list(tmp_path.glob("yard-2*.mkv"))
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_an_output_that_is_lost_ends_alone(marked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from facestream.pipeline.errors import SinkLost
    from facestream.pipeline.live.recording import RecordingSink

    def full(self: object, covered: object) -> None:
        raise SinkLost("the disk is full", "o.mkv")

    monkeypatch.setattr(RecordingSink, "write", full)
    with Run({"door": str(marked)}, [str(tmp_path / "o.mkv"), str(tmp_path / "o.jsonl")], Moody()) as run:
        run.until(lambda: run["door"].failed)
        left = run.left("door")
        run.until(lambda: run.left("door") > left + 10)
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) > 10
    assert not (tmp_path / "o.mkv").exists()


def test_sources_get_names_of_their_own() -> None:
    found = named(
        ("0", "rtsp://u:p@cam.local/a", "rtsp://cam.local/b", "yard=rtsp://x/y?a=b", "lavfi:testsrc2", "a b.mp4")
    )
    assert list(found) == ["video0", "cam-local", "cam-local-2", "yard", "lavfi", "a-b"]
    assert found["yard"].text == "rtsp://x/y?a=b"
    with pytest.raises(BadInput, match="same name"):
        named(("a=0", "a=1"))


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "facestream", "run", *map(str, arguments), "--size", "320x192"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop(process: subprocess.Popen[str], with_: int) -> tuple[int, str, str]:
    """Its exit code and words; it must end by itself in five seconds, or as many times more as the machine is slow."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import facestream.pipeline.cli.run"], check=True)  # half a second by itself
    slow = max(1.0, 2 * (time.monotonic() - began))
    began = time.monotonic()
    process.send_signal(with_)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 5 * slow
    assert "Traceback" not in err
    return process.returncode, out, err


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_the_command_serves_until_it_is_told_to_end(marked: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"rtsp://viewer:secret@127.0.0.1:{port}/live"
    process = start(f"door={marked}", "--to", f"serve:{url}", "--to", tmp_path / "o.mkv", "--loop")
    until(lambda: listens(port) or process.poll() is not None, 90)
    with av.open(url, options={"rtsp_transport": "tcp"}, timeout=(10.0, 5.0)) as container:
        assert next(iter(container.decode(video=0))).width == 160
    code, out, err = stop(process, signal.SIGTERM)
    assert code == 130
    assert "door: live, 160x120" in err
    assert f"rtsp://***@127.0.0.1:{port}/live" in err
    assert "secret" not in out + err
    assert "frames" in out
    with av.open(str(tmp_path / "o.mkv")) as container:  # closed properly
        assert container.duration


def test_a_file_runs_once_where_the_output_is_one(marked: Path, tmp_path: Path) -> None:
    process = start(marked, "--to", tmp_path / "o.mp4", "--to", tmp_path / "o.csv")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "marked: 25 frames" in out
    assert (tmp_path / "o.mp4").stat().st_size > 1000


@pytest.mark.parametrize("with_", [signal.SIGINT, signal.SIGTERM])
def test_the_end_comes_even_out_of_a_blocked_read(tmp_path: Path, with_: int) -> None:
    pipe = tmp_path / "hang.ts"
    os.mkfifo(pipe)  # opening it blocks in the kernel
    port = free_port()
    with talking(lambda connection: time.sleep(60)) as silent:
        address = f"cam=rtsp://viewer:secret@127.0.0.1:{silent}/live"
        process = start(f"pipe={pipe}", address, "--to", f"serve:rtsp://127.0.0.1:{port}/{{name}}")
        until(lambda: listens(port) or process.poll() is not None, 90)
        time.sleep(0.3)
        code, out, err = stop(process, with_)
    assert code == 130, err
    assert "secret" not in out + err


HANGING = """
import sys, threading, time
import facestream.pipeline.cli.run as command
import facestream.pipeline.live.recording as recording
import facestream.pipeline.live.sinks as sinks
import facestream.pipeline.stages.anonymise as cover
from tests.live.test_fail_closed import Moody
stage, moody = sys.argv[1], Moody()
command.detector_of = lambda config: moody

def hang(*given):
    print("hanging", file=sys.stderr, flush=True)
    threading.Event().wait(100)

if stage == "first inference":
    moody.detect = hang
if stage == "inference":
    threading.Timer(3, lambda: setattr(moody, "detect", hang)).start()
if stage == "cover":
    cover.Anonymizer.cover = hang
if stage == "file":
    recording.RecordingSink.write = hang
if stage == "close":
    recording.RecordingSink.close = hang
if stage == "encoder":
    sinks.LiveEncoder.encode = hang
from facestream.pipeline.cli.app import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("stage", ["first inference", "inference", "cover", "file", "close", "encoder"])
def test_the_end_comes_whatever_stage_hangs(marked: Path, tmp_path: Path, stage: str) -> None:
    port = free_port()
    words = [f"door={marked}", "--loop", "--to", f"serve:rtsp://127.0.0.1:{port}/live", "--to", str(tmp_path / "o.mkv")]
    command = [sys.executable, "-c", HANGING, stage, "run", *words, "--size", "320x192"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if ("hanging" if stage != "close" else "door: live") in line:
                break
        time.sleep(0.5)
        code, out, err = stop(process, signal.SIGTERM)
    finally:
        process.kill()
    assert code == 130, out + err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.mp4", "--to", "o.mp4"], "no such file"),
        (["rtsp://u:secret@h/a", "rtsp://h/b", "--to", "serve:rtsp://h:1/live"], "put {name} into it"),
        (["0", "--to", "serve:http://h"], "not an RTSP address"),
        (["0", "--to", "serve:rtsps://127.0.0.1:8554/x"], "needs a certificate"),
        (["0", "--to", "gopher://h"], "not known"),
        (["0", "--to", "o.xyz"], "not a format"),
        (["0", "--to", "o.mp4", "--hide", "none"], "nothing would be hidden"),
        (["0", "--to", "http://0.0.0.0:8080"], "needs a token"),
        (["0", "--to", "o.mp4", "--encoder", "mpeg4"], "no H.264 encoder"),
        (["0", "--to", "serve:rtsp://203.0.113.7:8554/x"], "cannot listen"),
    ],
)
def test_what_cannot_work_is_said_at_once(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.strip().splitlines()) == 1, said
    assert "secret" not in said
    assert not list(tmp_path.iterdir())
