"""Cameras as sections of the settings: read, validated, masked, added and removed while the others continue."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import av
import numpy as np
import pytest
from facestream.pipeline.config import read
from facestream.pipeline.errors import UserError
from facestream.pipeline.live.builder import SinkSpec
from facestream.pipeline.live.cameras import Masks, Span, prepare, read_cameras
from facestream.pipeline.live.run import Live

from tests.live.test_fail_closed import Moody
from tests.servers import free_port, until

WHITE = "lavfi:color=white:size=160x120:rate=25,realtime"


def test_a_camera_has_all_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOOR", "se/cret")
    file = tmp_path / "cameras.toml"
    file.write_text("""
[cover]
hide = "solid"
[run]
sinks = ["{name}.jsonl"]
[[camera]]
name = "door"
source = "rtsp://admin:${DOOR}@10.0.0.5/live"
transport = "udp"
sinks = ["serve:rtsp://127.0.0.1:8554/door", "door.mkv"]
audio = true
masks = [[[0, 0], [0.5, 0], [0, 0.5]]]
everything_but = [[[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]]
allow = [[0, 0, 0.1, 0.1]]
detector_size = [640, 384]
detect_every = 4
schedule = ["mon-fri 07:00-19:00", "22:00-06:00"]
[[camera]]
name = "yard"
source = "0"
""")
    config = read(file)
    door, yard = read_cameras(file)
    ready = prepare(door, config, [SinkSpec.of("{name}.jsonl", True)], "here")
    assert ready.uri.redacted == "rtsp://***@10.0.0.5/live"
    assert ready.uri.url is not None
    assert ready.uri.url.password == "se/cret"
    assert ready.options.source.rtsp_transport == "udp"
    assert (ready.config.run.audio, ready.config.detector.size, ready.config.detector.every) == (True, (640, 384), 4)
    assert ready.config.cover.allow == ((0, 0, 0.1, 0.1),)
    assert [spec.kind for spec in ready.specs] == ["records", "serve", "file"]
    assert len(ready.masks.of((160, 120))) == 2
    assert not yard.sinks
    assert "cret" not in str(ready.uri)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('name = "a b"\nsource = "0"', "letters, digits"),
        ('name = "a"', "source"),
        ('name = "a"\nsource = "0"\nsorce = "1"', "unknown key 'sorce'"),
        ('name = "a"\nsource = "0"\nmasks = [[[0, 0], [1, 1]]]', "masks"),
        ('name = "a"\nsource = "0"\nschedule = ["monday 8-9"]', "schedule"),
        ('name = "a"\nsource = "0"\nallow = [[5, 5, 1, 1]]', "allow"),
        ('name = "a"\nsource = "0"\ntransport = "http"', "transport"),
        ('name = "a"\nsource = "0"\n[[camera]]\nname = "a"\nsource = "1"', "same name"),
        ('name = "a"\nsource = "rtsp://u:${NOT_THERE}@h/x"\nsinks = ["a.mkv"]', "NOT_THERE is not set"),
        ('name = "a"\nsource = "rtsp://u:secretword@h/x"', "nothing is made of it"),
        ('name = "a"\nsource = "rtsp://u:secretword@h:x/x"\nsinks = ["a.mkv"]', "not an address"),
    ],
)
def test_what_is_wrong_with_a_camera_is_said_in_one_line(tmp_path: Path, table: str, words: str) -> None:
    file = tmp_path / "cameras.toml"
    file.write_text(f"[[camera]]\n{table}\n")

    def load() -> None:
        for camera in read_cameras(file):
            prepare(camera, read(file), [], f"{file}: camera {camera.name}")

    with pytest.raises(UserError, match=words) as caught:
        load()
    assert "secretword" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "when", "holds"),
    [
        ("mon-fri 07:00-19:00", "2026-11-30 06:59", False),  # a Monday
        ("mon-fri 07:00-19:00", "2026-11-30 07:00", True),
        ("mon-fri 07:00-19:00", "2026-11-28 12:00", False),
        ("sat,sun 00:00-24:00", "2026-11-29 23:59", True),
        ("fri-mon 10:00-11:00", "2026-11-29 10:30", True),
        ("22:00-06:00", "2026-11-30 23:00", True),
        ("sun 22:00-06:00", "2026-11-30 05:00", True),
        ("sun 22:00-06:00", "2026-11-29 05:00", False),
    ],
)
def test_schedules(text: str, when: str, holds: bool) -> None:
    assert Span.of(text).holds(time.strptime(when, "%Y-%m-%d %H:%M")) is holds


def test_masks_cover_polygons_and_everything_but_polygons(tmp_path: Path) -> None:
    """A camera of white pictures: what is covered is grey."""
    square = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
    other = ((120.0, 90.0), (160.0, 90.0), (160.0, 120.0))
    shown = {}
    for name, masks in {
        "mask": Masks((square,)), "but": Masks((), (square,)), "two": Masks((), (square, other)), "none": None
    }.items():  # fmt: skip
        out = tmp_path / f"{name}.mkv"
        live = Live(read(None, {"tracker.lookahead": 0, "cover.hide": "solid"}), Moody(), lambda *event: None)
        moody = live.shared_detector.detector
        moody.detect = lambda images, **more: [type(found).empty() for found in Moody().detect(images)]  # type: ignore
        from facestream.pipeline.live.builder import SinkBuilder
        from facestream.pipeline.live.cameras import camera_options
        from facestream.pipeline.video.uri import parse

        builder = SinkBuilder(live, live.config, False, lambda *event: None)
        pipeline = live.add("door", parse(WHITE), camera_options(live.config, False), None, masks)
        builder.connect(pipeline, [SinkSpec.of(str(out), False)])
        live.start()
        until(lambda p=pipeline: p.counts.emitted > 10)
        live.stop()
        with av.open(str(out)) as container:
            shown[name] = [p.to_ndarray(format="gray") for p in container.decode(video=0)][5]
    middle = np.s_[40:80, 50:110]
    corner = np.s_[0:20, 0:30]
    assert shown["none"][middle].min() > 225
    assert shown["mask"][middle].max() < 160
    assert shown["mask"][corner].min() > 225
    assert shown["but"][middle].min() > 225
    assert shown["but"][corner].max() < 160
    assert shown["two"][middle].min() > 225
    assert shown["two"][100:108, 148:156].min() > 225
    assert shown["two"][corner].max() < 160


def settings(file: Path, port: int, names: str, more: str = "") -> None:
    text = f'[run]\nsinks = ["http://127.0.0.1:{port}"]\nopen_timeout_s = 2\n[detector]\nsize = [320, 192]\n'
    for name in names:
        text += f'[[camera]]\nname = "{name}"\nsource = "lavfi:testsrc2=size=160x120:rate=10,realtime"\n'
        text += f'sinks = ["{file.parent}/{name}.jsonl"]\n'
    file.write_text(text + more)


def call(port: int, path: str, data: bytes | None = None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", data, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def cameras(port: int) -> dict[str, dict[str, object]]:
    code, text = call(port, "status")
    return {camera["name"]: camera for camera in json.loads(text)["cameras"]} if code == 200 else {}


def test_a_reload_touches_only_what_changed(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="the page needs the web extra")
    file = tmp_path / "cameras.toml"
    port = free_port()
    settings(file, port, "ab")
    command = [sys.executable, "-m", "facestream", "run", "--config", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        try:
            until(lambda: {n for n, c in cameras(port).items() if c["state"] == "live"} == {"a", "b"}, 90)
            settings(file, port, "ac")
            run.send_signal(signal.SIGHUP)
            until(lambda: {n for n, c in cameras(port).items() if c["state"] == "live"} == {"a", "c"}, 60)
            assert (tmp_path / "b.jsonl").read_text().count("\n") > 0
            before = cameras(port)["a"]
            assert (before["connections"], before["connections_lost"]) == (1, 0)
            settings(file, port, "ac", '[[camera]]\nname = "bad"\nsource = "0"\nnonsense = 1\n')
            code, text = call(port, "reload", b"")
            assert code == 400
            assert "unknown key 'nonsense'" in text
            assert set(cameras(port)) == {"a", "c"}
            settings(file, port, "abc")
            code, text = call(port, "reload", b"")
            assert (code, text) == (200, "settings read again: new b\n")
            until(lambda: {n for n, c in cameras(port).items() if c["state"] == "live"} == set("abc"), 60)
            emitted = int(str(before["frames_emitted"]))
            until(lambda: int(str(cameras(port)["a"]["frames_emitted"])) > emitted + 20, 60)
            after = cameras(port)["a"]
            assert (after["connections"], after["connections_lost"]) == (1, 0)
            run.terminate()
            assert run.wait(20) == 130
        finally:
            run.kill()
        said = run.stderr.read() if run.stderr else ""
    assert "Traceback" not in said, said
    assert len(list(tmp_path.glob("b*.jsonl"))) == 2  # of both times
    assert not list(tmp_path.glob("*.unfinished*"))


def test_the_shipped_example_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAGE_TOKEN", "VIEWER_PASSWORD", "CAMERA_PASSWORD"):
        monkeypatch.setenv(name, "w0rd/of@mine")
    file = Path(__file__).parent.parent.parent / "deploy" / "cameras.toml"
    config = read(file)
    common = [SinkSpec.of(text, True) for text in config.run.sinks]
    cameras = [prepare(camera, config, common, camera.name) for camera in read_cameras(file)]
    assert len(cameras) == 8
    assert all("w0rd" not in f"{camera.uri} {camera.specs}" for camera in cameras)
