"""Windows and macOS, as far as Linux can show: without their missing modules, and with the system's name changed.

What a stranger's kernel and camera do cannot be tried here; see docs/install.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from facestream.pipeline.errors import BadInput
from facestream.pipeline.live.builder import SinkSpec
from facestream.pipeline.system import lock
from facestream.pipeline.video import webcam
from facestream.pipeline.video.uri import Kind, parse

from tests.conftest import render

ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "XDG_STATE_HOME"}

# Libraries are imported as this system's own, then the system's name changes and what the other one lacks goes: what
# is imported of ours from then on must do without.
OTHER = """
import asyncio, json, logging, multiprocessing, multiprocessing.connection, os, subprocess, sys, tempfile, time
from multiprocessing import popen_spawn_posix, spawn
import av, av.device, click, cv2, lap, msgspec, numpy, onnxruntime, psutil, PIL.Image, tqdm, urllib.request
import fcntl as real_fcntl, types

system = sys.argv.pop(1)
LACKING = {
    "win32": ("fcntl", "resource", "termios", "pwd", "grp", "pty", "posix"),
    "darwin": (),
}[system]
ATTRIBUTES = {
    "win32": ("uname", "sched_getaffinity", "sysconf", "fork", "killpg", "setsid", "geteuid", "getuid", "mkfifo",
              "getpgid", "sched_setaffinity", "statvfs", "getloadavg", "O_NONBLOCK", "O_CLOEXEC"),
    "darwin": ("sched_getaffinity", "sched_setaffinity"),
}[system]

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in LACKING:
            raise ModuleNotFoundError(f"No module named {name!r} on this system", name=name)

for name in LACKING:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
for name in ATTRIBUTES:
    if hasattr(os, name):
        delattr(os, name)
if system == "win32":  # its locks, made of this system's
    msvcrt = types.ModuleType("msvcrt")
    msvcrt.LK_NBLCK = 2
    def locking(number, mode, count):
        assert mode == msvcrt.LK_NBLCK
        real_fcntl.flock(number, real_fcntl.LOCK_EX | real_fcntl.LOCK_NB)
    msvcrt.locking = locking
    sys.modules["msvcrt"] = msvcrt
    # Nor can it rename or remove what is open.
    import builtins
    real_replace, real_unlink = os.replace, os.unlink
    def refuse_open(path):
        full = os.path.realpath(path)
        for number in os.listdir("/proc/self/fd"):
            if os.path.realpath(f"/proc/self/fd/{number}") == full:
                raise PermissionError(13, "it is being used", str(path))
    def replace(source, target, **more):
        refuse_open(source)
        refuse_open(target)
        return real_replace(source, target, **more)
    def unlink(path, **more):
        refuse_open(path)
        return real_unlink(path, **more)
    os.replace, os.unlink = replace, unlink
import ctypes
real_cdll = ctypes.CDLL
def no_program(name, *more, **named):
    if name is None:
        raise TypeError("there is no library without a name")
    return real_cdll(name, *more, **named)
ctypes.CDLL = no_program
sys.platform = system

import facestream.pipeline.__main__
from facestream.pipeline.cli.app import main

if len(sys.argv) > 1:
    commands = json.loads(sys.argv[1])
    for words in commands[:-1]:
        assert main(words) == 0, words
    sys.argv[1:] = commands[-1]
    facestream.pipeline.__main__.main()
"""
FAST = ["--preset", "ultrafast", "--size", "160x96", "--hide", "solid", "--model", "plainXS16"]


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_the_file_commands_run(system: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    render(tmp_path / "in" / "a.mp4", frames=8)
    render(tmp_path / "in" / "b.mkv", frames=8)

    commands = [
        ["anonymize", "in/a.mp4", "-o", "a.mp4", "--records", "a.jsonl", *FAST],
        ["anonymize", "in/a.mp4", "-o", "a.mp4", "--overwrite", "--two-pass", *FAST],
        ["detect", "in/b.mkv", "-o", "b.csv", "--model", "plainXS16", "--size", "160x96"],
        ["apply", "in/a.mp4", "a.jsonl", "-o", "c.mp4", "--preset", "ultrafast"],
        ["anonymize", "in", "-o", "out", "--manifest", "m.json", "--resume", *FAST],
        ["anonymize", "in", "-o", "out", "--manifest", "m.json", "--resume", *FAST],
        ["verify", "m.json"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", OTHER, system, json.dumps(commands)], cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=230, env=ENVIRONMENT | {"XDG_STATE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if system == "win32":  # macOS counts in other units than this system
        assert 50 < float(done.stdout.split("peak memory ")[1].split()[0]) < 2000
    assert "2 of 2 files done, 2 of them before" in done.stdout
    assert "2 outputs are unchanged" in done.stdout
    assert [json.loads(line)["frame"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == list(range(8))
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]  # no temporary file is left


def test_every_module_of_the_product_can_be_imported_elsewhere() -> None:
    """Each of pipeline and facestream, but for what only an extra's library makes possible."""
    root = Path(__file__).parent.parent
    files = sorted(path.relative_to(root) for path in (root / "pipeline").rglob("*.py"))
    modules = [".".join(("facestream", *path.with_suffix("").parts)).removesuffix(".__init__") for path in files]
    wanted = [name for name in modules if not name.endswith("__main__")]
    libraries = "import aiohttp.web, prometheus_client\n"
    libraries += "try:\n    import aiortc\nexcept ModuleNotFoundError:\n    pass\n"
    code = OTHER.replace("system = sys.argv.pop(1)", libraries + "system = sys.argv.pop(1)")
    code += f"""
from importlib import import_module
for name in {wanted!r}:
    try:
        import_module(name)
    except ModuleNotFoundError as e:
        if e.name in ("fcntl", "resource", "termios", "pwd", "grp", "pty", "posix"):
            raise
"""
    pytest.importorskip("aiohttp")
    pytest.importorskip("prometheus_client")
    done = subprocess.run(
        [sys.executable, "-c", code, "win32"], cwd=root, capture_output=True, text=True, check=False, timeout=200,
        env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("system", "name", "kind", "opened", "driver"),
    [
        ("linux", "0", Kind.WEBCAM, "/dev/video0", "v4l2"),
        ("linux", "/dev/video3", Kind.WEBCAM, "/dev/video3", "v4l2"),
        ("linux", "webcam:/dev/v4l/by-id/usb", Kind.WEBCAM, "/dev/v4l/by-id/usb", "v4l2"),
        ("darwin", "0", Kind.WEBCAM, "0:none", "avfoundation"),
        ("darwin", "webcam:FaceTime HD", Kind.WEBCAM, "FaceTime HD:none", "avfoundation"),
        ("win32", "webcam:Integrated Camera", Kind.WEBCAM, "video=Integrated Camera", "dshow"),
        ("win32", "1", Kind.WEBCAM, "video=second", "dshow"),
    ],
)
def test_a_webcam_is_opened_as_the_system_wants_it(
    monkeypatch: pytest.MonkeyPatch, system: str, name: str, kind: Kind, opened: str, driver: str
) -> None:
    class Found:
        def __init__(self, name: str, media_types: list[str]) -> None:
            self.name = name
            self.media_types = media_types

    there = [Found("first", ["video"]), Found("microphone", ["audio"]), Found("second", ["video", "audio"])]
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(webcam.av.device, "enumerate_input_devices", lambda format_name: there)
    uri = parse(name)
    assert uri.kind is kind
    assert webcam.input_of(uri.text) == (opened, driver)
    assert ("framerate" in webcam.options_of(None, None, "")) == (system == "darwin")
    wanted = webcam.options_of((640, 480), 25, "yuyv422")
    assert wanted == {
        "video_size": "640x480",
        "framerate": "25",
        "input_format" if system == "linux" else "pixel_format": "yuyv422",
    }


def test_a_webcam_that_is_not_there_names_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(webcam.av.device, "enumerate_input_devices", lambda format_name: [])
    with pytest.raises(BadInput, match=r"4: there is no such camera \(there are: none\)"):
        webcam.input_of("4")


@pytest.mark.parametrize("name", [r"C:\videos\in.mp4", "C:/videos/in.mp4", r"D:in.mp4"])
def test_a_drive_letter_is_no_scheme(name: str) -> None:
    assert parse(name).kind is Kind.FILE
    assert parse(name).text == name
    assert SinkSpec.of(name, several=False).kind == "file"
    assert SinkSpec.of(name.replace("mp4", "jsonl"), several=False).kind == "records"


def test_a_lock_holds_until_the_file_is_closed(tmp_path: Path) -> None:
    with open(tmp_path / "a", "w") as first, open(tmp_path / "a") as second:
        assert lock(first)
        assert not lock(second)
        first.close()
        assert lock(second)
