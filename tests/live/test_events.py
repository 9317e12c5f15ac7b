"""While a camera is down its stream goes on, and other programs are notified."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.request
from pathlib import Path

import av
import numpy as np
import pytest
from facestream.pipeline.live.events import EventFeed, kind_of

from tests.live.test_fail_closed import Moody
from tests.live.test_live import Run
from tests.servers import Stream, free_port, talking, until


def test_a_stream_goes_on_while_its_camera_is_down(clip: object, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="the page needs the web extra")
    source = Stream(clip("down.ts", audio=(), options={"g": "10", "bf": "0"}))  # type: ignore[operator]
    port = free_port()
    page = free_port()
    feed = EventFeed(str(tmp_path / "events.jsonl"))
    sinks = [f"serve:rtsp://127.0.0.1:{port}/x", f"http://127.0.0.1:{page}"]

    def metrics() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{page}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    with talking(source) as near, Run({"door": f"http://127.0.0.1:{near}/a.ts"}, sinks, Moody()) as run:
        run.live.events = feed
        run.until(lambda: run.left("door") > 20)
        over = threading.Event()
        times: list[float] = []
        flat: list[bool] = []

        def play() -> None:
            url = f"rtsp://127.0.0.1:{port}/x"
            with av.open(url, options={"rtsp_transport": "tcp"}, timeout=(10.0, 10.0)) as player:
                for picture in player.decode(video=0):
                    times.append(float(picture.time or 0))
                    flat.append(abs(float(np.median(picture.to_ndarray(format="gray"))) - 60) < 8)
                    if over.is_set():
                        return

        player = threading.Thread(target=play, daemon=True)
        player.start()
        run.until(lambda: len(times) > 10)
        source.stalled = True
        run.until(lambda: run["door"].placeholders > 8)
        run.until(lambda: sum(flat) > 3)
        assert run["door"].placeholder
        assert 'facestream_placeholder{camera="door"} 1.0' in metrics()
        count = len(times)
        source.stalled = False
        run.until(lambda: not run["door"].placeholder)
        assert 'facestream_placeholder{camera="door"} 0.0' in metrics()
        run.until(lambda: len(times) > count + 30)
        over.set()
        player.join(10)
        assert times == sorted(times)
        assert not any(flat[:5])
        assert not any(flat[-3:])
    rows = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(row["camera"], row["event"], row["over"]) for row in rows][:1] == [("door", "camera_down", False)]
    assert ("door", "camera_down", True) in [(row["camera"], row["event"], row["over"]) for row in rows]


def test_events_are_posted_without_secrets() -> None:
    taken: list[tuple[str, dict[str, object]]] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.append((self.headers.get("Authorization", ""), json.loads(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    said: list[str] = []
    feed = EventFeed(f"http://hooktoken@127.0.0.1:{server.server_port}/hook", said.append)
    feed.update([("door", "recording lost: the disk is full"), ("yard", "failed, rtsp://u:passw0rd@h/x is gone")])
    feed.update([("yard", "failed, rtsp://u:passw0rd@h/x is gone")])
    until(lambda: len(taken) == 3)
    server.shutdown()
    assert {(row["camera"], row["event"], row["over"]) for _, row in taken} == {
        ("door", "recording_lost", False), ("yard", "camera_down", False), ("door", "recording_lost", True)
    }  # fmt: skip
    assert {token for token, _ in taken} == {"Bearer hooktoken"}
    assert "passw0rd" not in str(taken)


def test_kinds() -> None:
    assert kind_of("fully covered: the detector hangs") == "detector_blind"
    assert kind_of("its pipeline hangs for 12 s") == "worker_stuck"
    assert kind_of("reconnecting, it refused the connection") == "camera_down"
