"""The page, /metrics and /healthz over HTTP during a live run."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the extra `web` is not installed")

from facestream.pipeline import web
from facestream.pipeline.cli.app import main
from facestream.pipeline.errors import BadConfig, BadInput
from facestream.pipeline.live.preview import HTML, Page

from tests.live.test_fail_closed import SECRET, Moody
from tests.live.test_live import Run, marked  # noqa: F401
from tests.live.test_rtsp_server import certificate  # noqa: F401
from tests.servers import free_port, until

PAGE = HTML.read_text(encoding="utf-8")


def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def post(port: int, path: str, body: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", path, body, headers)
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
        assert rows["door"]["frames_emitted"] > 5
        assert "refused" in rows["yard"]["message"]
        for shown in pictures(port, "/camera/door.mjpg", 10):
            assert shown.shape == (120, 160)
            assert np.ptp(shown[SECRET, SECRET].astype(int)) < 60
        until(lambda: all(not sink.viewers for sink in run.pages[0]._sinks.values()))
        before = run["door"].counts.line.fully_covered
        code, metrics = get(port, "/metrics")
        after = run["door"].counts.line.fully_covered
        assert code == 200
        assert 'facestream_camera_state{camera="door",state="live"} 1.0' in metrics
        output = re.search(r'^facestream_frames_fully_covered_total\{camera="door"\} (\S+)$', metrics, re.M)
        assert output is not None
        assert before <= float(output[1]) <= after  # a busy machine exceeds deadlines
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


def test_settings_change_live_for_one_camera_and_only_to_cover_more(marked: Path) -> None:  # noqa: F811
    port = free_port()
    sources = {"door": str(marked), "yard": str(marked)}
    with Run(sources, [f"http://127.0.0.1:{port}"], Moody(), cover__hide="pixelate") as run:
        run.until(lambda: run.left("door") > 5)
        code, answer = post(port, "/camera/door/settings", '{"hide": "solid", "scale": 1.6, "threshold": 0.2}')
        assert code == 200
        now = json.loads(answer)
        assert (now["hide"], now["scale"], now["threshold"], now["mode"]) == ("solid", 1.6, 0.2, "cover")
        left = run.left("door")
        run.until(lambda: run.left("door") > left + 10)
        thresholds = {run["door"]._client.threshold, run["yard"]._client.threshold}
        assert thresholds == {0.2, None}
        assert np.ptp(pictures(port, "/camera/door.mjpg", 3)[-1][SECRET, SECRET].astype(int)) < 12
        rows = {row["name"]: row["settings"] for row in json.loads(get(port, "/status")[1])["cameras"]}
        assert rows["door"]["hide"] == "solid"
        assert rows["yard"]["hide"] == "pixelate"
        assert any(words.startswith("set: hide solid") for _, words in run.said)
        for body, words in (
            ('{"scale": 1.1}', "1.4 to 5"),
            ('{"hide": "blur"}', "solid, pixelate"),
            ('{"mode": "bare"}', "cover, boxes"),
            ('{"threshold": "x"}', "detector.threshold"),
            ('{"allow": []}', "unknown key"),
            ("[]", "one JSON object"),
            ("{", "one JSON object"),
        ):
            code, answer = post(port, "/camera/door/settings", body)
            assert code == 400
            assert words in answer
        assert post(port, "/camera/none/settings", "{}")[0] == 404
        assert post(port, "/camera/door/settings", "{}" + " " * 5000)[0] == 413
        assert post(port, "/camera/door/settings", "{}", Origin="http://evil.example")[0] == 403
        assert json.loads(get(port, "/status")[1])["cameras"][0]["settings"]["hide"] == "solid"


def test_boxes_are_drawn_for_the_page_alone(marked: Path, tmp_path: Path) -> None:  # noqa: F811
    port, out = free_port(), tmp_path / "o.mkv"
    with Run({"door": str(marked)}, [f"http://127.0.0.1:{port}", str(out)], Moody()) as run:
        run.until(lambda: run.left("door") > 5)
        assert post(port, "/camera/door/settings", '{"mode": "boxes"}')[0] == 200
        left = run.left("door")
        run.until(lambda: run.left("door") > left + 10)
        shown = pictures(port, "/camera/door.mjpg", 3)[-1].astype(int)
        assert np.ptp(shown[34:44, 50]) > 20  # the line over the mark
        run.until(lambda: run.left("door") > left + 20)
    with av.open(str(out)) as film:
        for frame in film.decode(video=0):
            assert np.ptp(frame.to_ndarray(format="gray")[34:44, 50].astype(int)) < 20


def test_https_with_a_certificate(marked: Path, certificate: tuple[Path, Path]) -> None:  # noqa: F811
    port = free_port()
    flags = {"run__tls_cert": str(certificate[0]), "run__tls_key": str(certificate[1])}
    with Run({"door": str(marked)}, [f"https://word@127.0.0.1:{port}"], Moody(), **flags):
        context = ssl.create_default_context(cafile=str(certificate[0]))
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
        connection.request("GET", "/?token=word")
        answer = connection.getresponse()
        assert answer.status == 200
        assert f"wss://127.0.0.1:{port}" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        connection.close()
    with pytest.raises(BadConfig, match="certificate"):
        Run({}, [f"https://word@127.0.0.1:{port}"], Moody())


def test_the_pages_own_rules_let_its_icon_and_its_pictures_in() -> None:
    page = Page("127.0.0.1", 0, "", list)
    page.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=5)
        connection.request("GET", "/")
        answer = connection.getresponse()
        rules = dict(rule.strip().split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split(";"))
        icon = re.search(r'rel="icon" href="([a-z]+:)', answer.read().decode())
        connection.close()
    finally:
        page.stop()
    assert icon is not None
    assert {icon[1], "blob:", "'self'"} <= set(rules["img-src"].split())  # pictures are blobs that came over a socket
    assert f"ws://127.0.0.1:{page.port}" in rules["connect-src"].split()


def test_a_page_needs_no_cdn() -> None:
    assert not re.search(r"(src|href)=|https?://\w|@import", PAGE.replace('href="data:,"', ""))


def test_a_second_start_and_a_start_with_nothing_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    page = Page("127.0.0.1", 0, "", list)
    page.start()
    try:
        for words, said in (
            (["--to", f"http://127.0.0.1:{page.port}"], "cannot listen there"),
            (["--to", "window"], "nothing to show"),
            (["--to", "http://0.0.0.0:1"], "needs a token"),
            (["--to", "http://127.0.0.1:1/x"], "a page's address is"),
        ):
            code = main(["run", "--model", "plainXS16", *words])
            output = capsys.readouterr().err
            assert code == 2
            assert said in output
            assert "Traceback" not in output
    finally:
        page.stop()


def test_strangers_do_not_shut_others_out_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that say nothing, or not enough, make room."""
    for login_s, closed in ((3600.0, 40), (0.5, web.STRANGERS + 40)):
        monkeypatch.setattr(web, "LOGIN_S", login_s)
        page = Page("127.0.0.1", 0, "secret", list)
        page.start()
        try:
            silent = [socket.create_connection(("127.0.0.1", page.port), 5) for _ in range(web.STRANGERS + 40)]
            silent[-1].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")  # and never the rest
            until(lambda silent=silent, closed=closed: sum(_is_closed(one) for one in silent) >= closed, 30)
            assert _is_closed(silent[-1]) is (login_s < 1)
            assert get(page.port, "/healthz?token=secret")[0] == 200
        finally:
            page.stop()


def test_who_guesses_the_token_is_slowed_down_and_told_of() -> None:
    output: list[str] = []
    page = Page("127.0.0.1", 0, "secret", list, on_event=output.append)
    page.start()
    try:
        began = time.monotonic()
        codes = {get(page.port, f"/?token={n}")[0] for n in range(14)}
        assert codes == {401}
        assert time.monotonic() - began > 2.5
        assert get(page.port, "/?token=secret")[0] == 200
        assert output[0] == "1 failed log-in from 127.0.0.1"
    finally:
        page.stop()


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
