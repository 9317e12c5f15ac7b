"""The page, /metrics and /healthz, asked over HTTP during a live run."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the extra `web` is not installed")

from pipeline.errors import BadInput
from pipeline.preview import Page
from tests.servers import free_port, until
from tests.test_guard import SECRET, Moody
from tests.test_live import Run, marked  # noqa: F401


def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def pictures(port: int, path: str, count: int) -> list[np.ndarray]:
    """The first pictures of an MJPEG stream."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        found = []
        while len(found) < count:
            line = answer.readline()
            if line.lower().startswith(b"content-length"):
                length = int(line.split(b":")[1])
                answer.readline()
                found.append(cv2.imdecode(np.frombuffer(answer.read(length), np.uint8), cv2.IMREAD_GRAYSCALE))
        return found
    finally:
        connection.close()


def test_the_page_shows_covered_pictures_and_figures(marked: Path) -> None:  # noqa: F811
    port = free_port()
    sources = {"door": str(marked), "yard": f"rtsp://viewer:secret@127.0.0.1:{free_port()}/live"}
    with Run(sources, [f"http://127.0.0.1:{port}"], Moody()) as run:
        run.until(lambda: run.left("door") > 5)
        code, page = get(port, "/")
        assert code == 200
        assert "<img" in page or "img" in page
        rows = {row["name"]: row for row in json.loads(get(port, "/status")[1])["cameras"]}
        assert rows["door"]["state"] == "live"
        assert rows["door"]["frames_left"] > 5
        assert "refused" in rows["yard"]["message"]
        for shown in pictures(port, "/camera/door.mjpg", 10):
            assert shown.shape == (120, 160)
            assert np.ptp(shown[SECRET, SECRET].astype(int)) < 60
        until(lambda: all(not outlet.viewers for outlet in run.pages[0]._outlets.values()))
        code, metrics = get(port, "/metrics")
        assert code == 200
        assert 'facestream_camera_state{camera="door",state="live"} 1.0' in metrics
        assert 'facestream_frames_veiled_total{camera="door"} 0.0' in metrics
        code, health = get(port, "/healthz")
        assert code == 503
        assert json.loads(health)["not_live"] == {"yard": "reconnecting"}
        assert get(port, "/camera/none.mjpg")[0] == 404
        assert get(port, "/", Host="evil.example")[0] == 403
        assert "secret" not in get(port, "/status")[1] + metrics + health


def test_a_page_that_others_reach_wants_its_token(marked: Path) -> None:  # noqa: F811
    with pytest.raises(BadInput, match="token"):
        Page("0.0.0.0", 8080, "", list)
    port = free_port()
    with Run({"door": str(marked)}, [f"http://secret@0.0.0.0:{port}"], Moody()) as run:
        run.until(lambda: run.left("door") > 2)
        assert get(port, "/")[0] == 401
        assert get(port, "/status?token=wrong")[0] == 401
        assert get(port, "/healthz?token=secret")[0] == 200
        assert get(port, "/metrics", Authorization="Bearer secret")[0] == 200


def test_a_page_on_a_port_in_use_says_so() -> None:
    page = Page("127.0.0.1", 0, "", list)
    page.start()
    with pytest.raises(BadInput, match="cannot listen"):
        Page("127.0.0.1", page.port, "", list).start()
    page.stop()
