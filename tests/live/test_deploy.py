"""The unit and the compose file of deploy/: their commands, as written, on the shipped settings with other sources."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import free_port, until

DEPLOY = Path(__file__).parents[2] / "deploy"
SECRETS = {"PAGE_TOKEN": "w0rd/of&mine#", "VIEWER_PASSWORD": "v?ewer", "CAMERA_PASSWORD": "c@mera"}
ALIVE = "lavfi:testsrc2=size=160x120:rate=5,realtime"


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "facestream.service")
    return parser["Service"]


def settings(folder: Path, page: int, mounts: int, source: str) -> Path:
    """The shipped settings with two cameras, that can be run here."""
    text = (DEPLOY / "cameras.toml").read_text()
    head, *cameras = text.split("[[camera]]")
    sources = iter((ALIVE, source))
    kept = [re.sub(r"source = .*", lambda match: f'source = "{next(sources)}"', camera) for camera in cameras[:2]]
    text = "[[camera]]".join([head, *kept]) + "\n[detector]\nsize = [320, 192]\n"
    for old, new in (("/var/lib/facestream", str(folder)), (":8080", f":{page}"), (":8554", f":{mounts}")):
        assert old in text
        text = text.replace(old, new)
    file = folder / "cameras.toml"
    file.write_text(text)
    return file


@contextmanager
def started(folder: Path, page: int, source: str) -> Iterator[subprocess.Popen[str]]:
    """What the unit starts, with our program and settings in the places of those that it names."""
    program, *words = shlex.split(unit()["ExecStart"])
    assert program.endswith("/bin/facestream")
    words[words.index("/etc/facestream/cameras.toml")] = str(settings(folder, page, free_port(), source))
    command = [sys.executable, "-m", "facestream", *words]
    with subprocess.Popen(command, env={**os.environ, **SECRETS}, stderr=subprocess.PIPE, text=True) as run:
        try:
            yield run
        finally:
            run.kill()


def health_check(page: int, token: str = SECRETS["PAGE_TOKEN"]) -> int:
    """The exit code of the compose file's check."""
    yaml = pytest.importorskip("yaml")
    test = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["facestream"]["healthcheck"]["test"]
    kind, program, *words = test
    assert (kind, program) == ("CMD", "python")
    words = [word.replace(":8080", f":{page}") for word in words]
    environment = {**os.environ, "PAGE_TOKEN": token}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, timeout=60).returncode


def test_what_the_unit_starts_is_healthy_reloads_and_ends_as_the_unit_expects(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="the page needs the web extra")
    page = free_port()
    assert health_check(page) == 1  # nothing is there
    with started(tmp_path, page, ALIVE) as run:
        until(lambda: health_check(page) == 0, 120)
        assert health_check(page, "another") == 1
        reload = shlex.split(unit()["ExecReload"].replace("$MAINPID", str(run.pid)))
        subprocess.run(reload, check=True)
        until(lambda: "settings read again: nothing changed" in (run.stderr.readline() if run.stderr else ""), 60)
        run.terminate()
        assert str(run.wait(float(unit()["TimeoutStopSec"]))) in unit()["SuccessExitStatus"].split()
    assert not list(tmp_path.glob("*.unfinished*"))
    assert len(list(tmp_path.glob("door-*.mkv"))) == 1
    assert len(list(tmp_path.glob("yard-*.jsonl"))) == 1  # kept for a time, as the pictures


def test_the_check_fails_while_a_camera_is_away(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="the page needs the web extra")
    page = free_port()
    with started(tmp_path, page, f"rtsp://127.0.0.1:{free_port()}/none") as run:
        until(lambda: b"live" in _status(page), 120)
        assert health_check(page) == 1
        run.terminate()
        run.wait(20)


def _status(page: int) -> bytes:
    import urllib.request

    proof = {"Authorization": "Bearer " + SECRETS["PAGE_TOKEN"]}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{page}/status", headers=proof)) as answer:
            data: bytes = answer.read()
            return data
    except OSError:
        return b""


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    text = (DEPLOY / "facestream.service").read_text()
    program = shlex.split(unit()["ExecStart"])[0]
    copy = tmp_path / "facestream.service"
    copy.write_text(text.replace(program, sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
