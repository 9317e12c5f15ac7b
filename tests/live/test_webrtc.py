"""WebRTC on the page: a real peer gets covered video; an invalid offer, or one without the token, gets nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiortc", reason="the extra `webrtc` is not installed")
pytest.importorskip("aiohttp", reason="the extra `web` is not installed")

import aiortc
from facestream.pipeline.live import webrtc

from tests.live.test_fail_closed import SECRET, Moody
from tests.live.test_live import Run, marked  # noqa: F401
from tests.live.test_preview import get, pictures, post
from tests.servers import free_port

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


async def look(port: int, count: int) -> list[np.ndarray]:
    """The first pictures that another peer gets."""
    peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
    tracks: asyncio.Queue[Any] = asyncio.Queue()
    peer.on("track", tracks.put_nowait)
    peer.addTransceiver("video", direction="recvonly")
    try:
        await peer.setLocalDescription(await peer.createOffer())
        code, sdp = await asyncio.to_thread(post, port, "/camera/door/call?token=word", peer.localDescription.sdp)
        assert code == 200, sdp
        await peer.setRemoteDescription(aiortc.RTCSessionDescription(sdp, "answer"))
        track = await asyncio.wait_for(tracks.get(), 20)
        return [(await asyncio.wait_for(track.recv(), 30)).to_ndarray(format="gray") for _ in range(count)]
    finally:
        await peer.close()


def test_a_peer_gets_covered_pictures_and_is_forgotten_when_it_leaves(marked: Path) -> None:  # noqa: F811
    port = free_port()
    with Run({"door": str(marked)}, [f"http://word@127.0.0.1:{port}"], Moody(), run__webrtc=True) as run:
        run.until(lambda: run.left("door") > 5)
        sink = run.pages[0]._sinks["door"]
        for shown in asyncio.run(look(port, 10)):
            assert shown.shape == (120, 160)
            assert np.ptp(shown[SECRET, SECRET].astype(int)) < 60
        run.until(lambda: sink.callers == 0)
        assert len(pictures(port, "/camera/door.mjpg?token=word", 3)) == 3  # beside it as before
        assert '"webrtc": true' in get(port, "/status?token=word")[1]


def test_what_is_no_offer_or_may_not_ask_gets_nothing(marked: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    port = free_port()
    with Run({"door": str(marked)}, [f"http://word@127.0.0.1:{port}"], Moody(), run__webrtc=True) as run:
        url = "/camera/door/call?token=word"
        assert post(port, "/camera/door/call", "v=0")[0] == 401
        assert post(port, url, "v=0", Origin="http://elsewhere")[0] == 403
        assert post(port, "/camera/none/call?token=word", "v=0")[0] == 404
        assert post(port, url, "hello")[0] == 400
        assert post(port, url, "")[0] == 400
        assert post(port, url, "a" * 40_000)[0] == 413
        monkeypatch.setattr(webrtc, "CALLS", 0)
        assert post(port, url, "v=0")[0] == 503
        assert run.pages[0]._sinks["door"].callers == 0


def test_off_unless_asked(marked: Path) -> None:  # noqa: F811
    port = free_port()
    with Run({"door": str(marked)}, [f"http://127.0.0.1:{port}"], Moody()):
        assert '"webrtc": false' in get(port, "/status")[1]
        assert post(port, "/camera/door/call", "v=0")[0] == 404


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (apt-get install chromium)")
@pytest.mark.parametrize("calls", [8, 0], ids=["webrtc", "mjpeg instead"])
def test_a_browser_shows_it_or_mjpeg(marked: Path, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:  # noqa: F811
    pytest.importorskip("playwright", reason="playwright is not installed")
    from playwright.sync_api import sync_playwright

    monkeypatch.setattr(webrtc, "CALLS", calls)
    port = free_port()
    shows = "document.querySelector('video')?.videoWidth" if calls else "document.querySelector('img')?.naturalWidth"
    with (
        Run({"door": str(marked)}, [f"http://word@127.0.0.1:{port}"], Moody(), run__webrtc=True) as run,
        sync_playwright() as api,
    ):
        browser = api.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/?token=word")
        run.until(lambda: page.evaluate(f"({shows}) === 160"))
        gray = page.evaluate(
            """() => { const c = document.createElement("canvas"), g = c.getContext("2d");
            [c.width, c.height] = [160, 120];
            g.drawImage(document.querySelector("article .picture"), 0, 0, 160, 120);
            return [...g.getImageData(40, 40, 20, 20).data].filter((_, at) => at % 4 === 1) }"""
        )
        assert max(gray) > 0
        assert np.ptp(gray) < 60
        assert page.locator("video").count() == (calls > 0)
        browser.close()
