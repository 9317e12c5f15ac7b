"""The page in a real browser whose camera shows the demo clip: everything that comes back has its faces covered."""

from __future__ import annotations

import base64
import os
import re
import shutil
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the extra `web` is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

from facestream.engines.loader import load_detector
from facestream.engines.types import Detections
from facestream.pipeline.evaluate.leaks import ellipse_of, read_truth
from playwright.sync_api import sync_playwright

from tests.live.test_live import Run
from tests.servers import free_port

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (apt-get install chromium)"),
]

TOOLS = Path(__file__).parents[2] / "tools"
SIZE = (960, 540)
FRAMES = range(40, 148, 3)  # of the demo clip, from 0
BIT = 20  # pixels: a frame's number stands in the top left corner, eight squares that are black or white
GREY, NEAR = 128, 18  # what `solid` covers with, and how far JPEG takes it away from that


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip as Chromium's fake camera wants it, five frames a second."""
    path = tmp_path_factory.mktemp("camera") / "demo.y4m"
    with av.open(str(TOOLS / "demo.mp4")) as clip, av.open(str(path), "w", format="yuv4mpegpipe") as out:
        stream = out.add_stream("wrapped_avframe", rate=5)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number, frame in enumerate(clip.decode(video=0)):
            if number not in FRAMES:
                continue
            rgb = frame.reformat(width=SIZE[0], height=SIZE[1], format="rgb24").to_ndarray()
            for bit in range(8):
                rgb[:BIT, bit * BIT : (bit + 1) * BIT] = 255 * (number >> bit & 1)
            shown = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
            shown.pts, shown.time_base = FRAMES.index(number), Fraction(1, 5)
            out.mux(stream.encode(shown))
        out.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def browser(camera: Path) -> Iterator[Any]:
    fake = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with sync_playwright() as api:
        chromium = api.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *fake, f"--use-file-for-fake-video-capture={camera}"]
        )
        yield chromium
        chromium.close()


def wait(page: Any, condition: str, seconds: float = 240.0) -> None:
    """Until a JavaScript expression is true. The page's rules forbid what Playwright's own wait_for_function does."""
    end = time.monotonic() + seconds
    while not page.evaluate(f"!!({condition})"):
        assert time.monotonic() < end, page.inner_text("body")
        page.wait_for_timeout(100)


def decoded(data: bytes) -> np.ndarray:
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr.shape == (SIZE[1], SIZE[0], 3)
    return bgr


def number_of(bgr: np.ndarray) -> int:
    """The frame's number, from the corner; 0 where that is covered."""
    levels = [bgr[4 : BIT - 4, bit * BIT + 4 : (bit + 1) * BIT - 4].mean() for bit in range(8)]
    if any(60 < level < 195 for level in levels):
        return 0
    return sum((level > 128) << bit for bit, level in enumerate(levels))


def grey_shares(bgr: np.ndarray, number: int) -> list[float]:
    """For each face of a frame, the share of its ellipse that is the cover's grey."""
    shares = []
    for xyxy in read_truth(TOOLS / "demo.truth.txt")[number].values():
        box = np.asarray(xyxy) * (SIZE[0] / 1280)
        # The truth ends at the picture's edge. Whom that cuts the small net boxes too small, at five frames a second.
        inside = box[0] > 0 and box[2] < SIZE[0] and box[2] - box[0] >= 24
        if inside:
            area, mask = ellipse_of(box, *SIZE)
            face = bgr[area][mask].astype(int)
            shares.append(float((np.abs(face - GREY) <= NEAR).all(1).mean()))
    return shares


def test_what_comes_back_to_the_browser_has_its_faces_covered(browser: Any, tmp_path: Path) -> None:
    port = free_port()
    flags = {"cover__hide": "solid", "detector__size": (960, 544), "run__deadline_s": 60.0}
    with Run({}, [f"http://127.0.0.1:{port}"], load_detector("plainXS16"), **flags):
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        up: list[bytes] = []
        down: list[bytes] = []
        asked: list[str] = []

        def listen(socket: Any) -> None:
            socket.on("framesent", lambda data: up.append(data) if isinstance(data, bytes) else None)
            socket.on("framereceived", lambda data: down.append(data) if isinstance(data, bytes) else None)

        page.on("websocket", listen)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_role("button", name="Use my webcam").click()
        wait(page, "guest && guest.times.length > 12")
        shown = decoded(base64.b64decode(page.evaluate("guest.picture.toDataURL('image/png')").split(",")[1]))
        page.screenshot(path=str(tmp_path / "webcam.png"))
        page.get_by_role("button", name="Stop my webcam").click()
        wait(page, "!document.querySelector('article')")
        assert all(url.startswith(f"http://127.0.0.1:{port}/") or url.startswith("data:") for url in asked)
    raw = [share for data in up for share in _judged(decoded(data[8:]))]
    assert len(raw) > 12
    assert max(raw) < 0.5  # the faces were there when they went up
    returned = [decoded(data[8:]) for data in down]
    covered = [share for bgr in returned for share in _judged(bgr)]
    assert len(covered) > 12
    assert min(covered) >= 0.95
    assert min(_judged(shown), default=1.0) >= 0.95
    # And the rest of the picture is there: the corner with the number can be read, and few pixels are grey.
    assert sum(number_of(bgr) > 0 for bgr in [*returned, shown]) > 10
    assert np.median([(np.abs(bgr.astype(int) - GREY) <= NEAR).all(2).mean() for bgr in returned]) < 0.5
    sent = {data[:8] for data in up}
    assert {data[:8] for data in down} <= sent


def _judged(bgr: np.ndarray) -> list[float]:
    number = number_of(bgr)
    return grey_shares(bgr, number) if number else []


def test_cameras_and_their_settings_in_the_browser(browser: Any, tmp_path: Path) -> None:
    port = free_port()
    sources = {"door": str(TOOLS / "demo.mp4"), "yard": f"rtsp://127.0.0.1:{free_port()}/none"}
    flags = {"run__deadline_s": 60.0, "cover__hide": "pixelate"}
    with Run(sources, [f"http://127.0.0.1:{port}"], load_detector("plainXS16"), **flags) as run:
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.goto(f"http://127.0.0.1:{port}/")
        run.until(lambda: run.left("door") > 3)
        wait(page, "document.querySelector('img')?.naturalWidth > 0")
        door = page.locator("article", has_text=re.compile("^door"))
        page.locator("article", has_text="refused").wait_for(timeout=60_000)
        wait(page, "document.querySelector('.figures b').textContent > '0'")
        page.screenshot(path=str(tmp_path / "cameras.png"))
        assert door.locator("select[name=hide] option").all_text_contents() == ["solid", "pixelate"]
        door.locator("select[name=mode]").select_option("boxes")
        run.until(lambda: run["door"].tuner.now.mode == "boxes")
        door.locator("select[name=hide]").select_option("solid")
        run.until(lambda: run["door"].tuner.now.hide == "solid")
        door.locator("input[name=scale]").fill("2")
        run.until(lambda: run["door"].tuner.now.scale == 2)
        left = run.left("door")
        run.until(lambda: run.left("door") > left + 3)
        page.wait_for_timeout(1500)
        page.screenshot(path=str(tmp_path / "boxes.png"))
        assert run["yard"].tuner.now == run["yard"].tuner.start
        page.close()


SHOWN = """() => {
    const small = document.createElement("canvas"), draw = small.getContext("2d");
    small.width = 64, small.height = 48;
    return Object.fromEntries(Object.entries(known).map(([name, c]) => {
        draw.drawImage(c.picture, 0, 0, 64, 48);
        return [name, small.toDataURL()];
    }));
}"""  # what each camera's picture shows, as a small PNG


def test_eight_cameras_move_in_two_tabs(tmp_path: Path) -> None:
    """Over one connection a tab: a browser opens six to a server, for all its tabs."""
    from tests.live.test_fail_closed import Moody

    port = free_port()
    cameras = {f"cam{n}": "lavfi:testsrc2=size=160x120:rate=5,realtime" for n in range(8)}
    count = "() => Object.fromEntries(Object.entries(known).map(([n, c]) => [n, [c.pictures ?? 0, c.then ?? 0]]))"
    nobody = Moody()
    nobody.detect = lambda images: [Detections.empty() for _ in images]  # type: ignore[method-assign, assignment]
    sinks = [f"http://127.0.0.1:{port}"]
    with Run(cameras, sinks, nobody, run__deadline_s=60.0), sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context()
        tabs = [context.new_page() for _ in range(2)]
        errors: list[str] = []
        for tab in tabs:
            tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            tab.goto(f"http://127.0.0.1:{port}/")
        for tab in tabs:
            tab.wait_for_function("() => Object.keys(known).length === 8", timeout=60_000)
            before = tab.evaluate(count)
            moved = "([n, c]) => c.pictures > before[n][0] + 3 && c.then > before[n][1]"
            tab.wait_for_function(f"before => Object.entries(known).every({moved})", arg=before, timeout=120_000)
            shown = "() => Object.values(known).every(c => c.picture.src.startsWith('blob:'))"
            assert tab.evaluate(shown)
            first = tab.evaluate(SHOWN)
            end = time.monotonic() + 60
            while any(tab.evaluate(SHOWN)[name] == picture for name, picture in first.items()):
                assert time.monotonic() < end, "a picture stands still"
                tab.wait_for_timeout(200)
            tab.screenshot(path=str(tmp_path / f"eight-{tabs.index(tab)}.png"), full_page=True, timeout=120_000)
        assert not errors
        browser.close()
