"""The window: drawn without a display (SDL's dummy driver) and, if Xvfb is installed, on a real X server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pygame", reason="the extra `window` is not installed")

import pygame
from facestream.pipeline.errors import BadConfig, BadInput
from facestream.pipeline.live.window import Window

from tests.conftest import facestream
from tests.live.test_fail_closed import Moody
from tests.live.test_live import Run, marked, spread  # noqa: F401
from tests.servers import free_port

PICTURE = (960, 720)  # the window that suits 160 x 120
SCALE = 6
MARK = np.s_[40 * SCALE : 60 * SCALE, 40 * SCALE : 60 * SCALE]


@pytest.fixture
def dummy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def seen() -> np.ndarray:
    """What the window shows: RGB, [h, w, 3]."""
    pixels: np.ndarray = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1).astype(int)
    return pixels


def show(run: Run, condition: Callable[[], Any]) -> None:
    """The main loop until something comes true."""
    assert run.window is not None
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "never came true"
        run.live.wait(0.0)
        assert run.window.show()


def press(*keys: int) -> None:
    for key in keys:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))


def more(run: Run, count: int = 5) -> Callable[[], bool]:
    """So many more pictures have been shown, of frames that left only now."""
    pane = run.window.panes[0]  # type: ignore[union-attr]
    want = pane.written + count
    return lambda: pane.written > want and pane.newest is None


def test_it_shows_covered_pictures_and_obeys_its_keys(dummy: None, marked: Path) -> None:  # noqa: F811
    with Run({"door": str(marked)}, ["window"], Moody(), cover__hide="pixelate") as run:
        assert run.window is not None
        show(run, more(run))
        pane = run.window.panes[0]
        assert pygame.display.get_surface().get_size() == PICTURE
        assert np.ptp(seen()[MARK]) < 60
        show(run, lambda: pane.fps > 0)
        assert 0 < pane.latency_ms < 60_000
        assert seen()[8:28, 8:300].max() > 200  # the words in the corner
        line = np.s_[35 * SCALE : 42 * SCALE, 47 * SCALE : 53 * SCALE]
        assert np.ptp(seen()[line], axis=2).max() < 40
        press(pygame.K_m)
        show(run, lambda: run["door"].tuner.now.mode == "boxes")
        show(run, more(run))
        assert np.ptp(seen()[line], axis=2).max() > 90  # a box, in colour
        press(pygame.K_h)
        show(run, lambda: run["door"].tuner.now.hide == "solid")
        press(pygame.K_m)
        show(run, lambda: run["door"].tuner.now.mode == "cover")
        show(run, more(run, 8))
        assert np.ptp(seen()[MARK][12:-12, 12:-12]) < 12
        assert ("door", "set: hide solid") in run.said
        press(pygame.K_f)
        show(run, lambda: pygame.display.get_surface().get_size() == pygame.display.get_desktop_sizes()[0])
        show(run, more(run, 1))
        press(pygame.K_f)
        show(run, lambda: pygame.display.get_surface().get_size() == PICTURE)
        press(pygame.K_x, pygame.K_q)
        assert not run.window.show()
        assert not run.window.failed


def test_a_display_that_fails_ends_the_run_with_its_outputs_whole(dummy: None, marked: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "o.mkv"
    with Run({"door": str(marked)}, ["window", str(out)], Moody()) as run:
        assert run.window is not None
        show(run, more(run))
        pygame.display.quit()
        assert not run.window.show()
        assert run.window.failed
    assert spread(out) < 60


def test_closing_it_ends_the_run(dummy: None, marked: Path) -> None:  # noqa: F811
    with Run({"door": str(marked)}, ["window"], Moody(), cover__hide="pixelate") as run:
        assert run.window is not None
        show(run, more(run))
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        assert not run.window.show()


def test_a_slow_display_drops_pictures_and_queues_none(dummy: None, marked: Path) -> None:  # noqa: F811
    with Run({"door": str(marked)}, ["window"], Moody(), cover__hide="pixelate") as run:
        assert run.window is not None
        pane = run.window.panes[0]
        run.until(lambda: pane.written > 20)  # nobody calls show()
        assert pane.dropped >= 20 - 1
        show(run, more(run, 1))
        assert pane.latency_ms < 30_000


def test_several_cameras_share_it(dummy: None, marked: Path) -> None:  # noqa: F811
    sources = {"door": str(marked), "yard": str(marked), "gate": f"rtsp://127.0.0.1:{free_port()}/none"}
    with Run(sources, ["window"], Moody()) as run:
        assert run.window is not None
        panes = run.window.panes
        show(run, lambda: all(pane.last is not None for pane in panes[:2]))
        assert pygame.display.get_surface().get_size() == (960, 540)
        assert [pane.room for pane in panes] == [(480, 270)] * 3
        show(run, lambda: run.live.pipelines[2].camera.status.message)
        show(run, more(run))
        gate = seen()[270:, :480]
        assert ((gate[..., 0] > 200) & (gate[..., 2] < 150)).any()  # what ails it, in red


def test_a_missing_library_and_a_missing_display_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BadInput, match="cannot be opened"):
        Window([]).start()
    done = facestream("run", Path(__file__).parents[2] / "tools" / "demo.mp4", "--to", "window")
    assert done.returncode == 2
    assert done.stderr.count("\n") <= 2
    assert "window: cannot be opened" in done.stderr
    assert "Traceback" not in done.stderr
    monkeypatch.setattr("facestream.pipeline.live.window.pygame", None)
    with pytest.raises(BadConfig, match=r"facestream\[window\]"):
        Window([])


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An X server's name and the file that mirrors its screen."""
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed (apt-get install xvfb)")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1024x768x24", "-fbdir", str(tmp_path)]
    server = subprocess.Popen([*command, "-nolisten", "tcp"], pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            yield f":{pipe.readline().strip()}", tmp_path / "Xvfb_screen0"
    finally:
        server.terminate()
        server.wait(10)


def screenshot(path: Path) -> np.ndarray:
    """An X window dump's pixels, [h, w, 3] in RGB (XWDFile.h: 25 numbers, a name, the colours, the pixels)."""
    data = path.read_bytes()
    head = np.frombuffer(data, ">u4", 25)
    size, width, height, line, colours = int(head[0]), int(head[4]), int(head[5]), int(head[12]), int(head[19])
    rows = np.frombuffer(data, np.uint8, height * line, size + 12 * colours).reshape(height, line)
    return rows.reshape(height, -1, 4)[:, :width, 2::-1].astype(int)


def test_on_a_real_display(screen: tuple[str, Path], marked: Path, tmp_path: Path) -> None:  # noqa: F811
    display, mirror = screen
    environment = {name: value for name, value in os.environ.items() if name != "SDL_VIDEODRIVER"} | {
        "DISPLAY": display
    }
    command = [sys.executable, "-m", "facestream", "run", str(marked), "--to", "window", "--size", "160x128"]
    run = subprocess.Popen(
        [*command, "--model", "plainXS16", "--lookahead", "2"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        end, shot = time.monotonic() + 60, screenshot(mirror)
        middle = np.s_[24 + 600 : 24 + 700, 32 + 600 : 32 + 900]  # the picture's lower right: a plain grey
        while not (90 < shot[middle].mean() < 150 and np.ptp(shot[middle]) < 30):
            assert run.poll() is None
            assert time.monotonic() < end, "no picture came"
            time.sleep(0.1)
            shot = screenshot(mirror)
        assert shot[:24].max() == 0  # nothing outside the window
        if shutil.which("xdotool"):
            find = ["xdotool", "search", "--onlyvisible", "--class", ""]
            found = subprocess.run(find, env=environment, capture_output=True, text=True, check=True).stdout
            window = found.split()[-1]
            for words in (["windowfocus", window], ["key", "q"]):
                subprocess.run(["xdotool", *words], env=environment, check=True)
            code = 0
        else:
            run.send_signal(signal.SIGINT)
            code = 130
        out, said = run.communicate(timeout=30)
        assert run.returncode == code, said
        assert "frames" in out
        assert "Traceback" not in said
    finally:
        run.kill()
