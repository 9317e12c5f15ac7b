"""The review page's server: who gets in, frames to the pixel, edits, export."""

from __future__ import annotations

import gc
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import cv2
import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the extra `web` is not installed")

from facestream.pipeline.batch.manifest import verify
from facestream.pipeline.config import Config
from facestream.pipeline.errors import BadInput
from facestream.pipeline.records import read_records
from facestream.pipeline.review.command import prepare
from facestream.pipeline.review.draft import draft_path
from facestream.pipeline.review.frames import FrameReader
from facestream.pipeline.review.server import ReviewServer
from facestream.pipeline.video.picture import matrix_of

from tests.conftest import facestream, render
from tests.video.test_display import ORIENTATIONS, stored, write

FRAMES = 30


def mot(path: Path, *tracks: tuple[int, float, range]) -> Path:
    """Records: (id, x, frames) of each track, 30 x 30 px at y = 60."""
    rows = [f"{n + 1},{t},{x},60,30,30,0.9,-1,-1,-1\n" for t, x, frames in tracks for n in frames]
    path.write_text("".join(rows))
    return path


class Client:
    def __init__(self, server: ReviewServer) -> None:
        self.server = server

    def call(self, path: str, body: object = None, token: str | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        token = self.server.token if token is None else token
        sent = {"Authorization": f"Bearer {token}"} | {k.replace("_", "-"): v for k, v in headers.items()}
        text = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, text, sent)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data

    def json(self, path: str, body: object = None) -> Any:
        code, data = self.call(path, body)
        assert code == 200, data
        return json.loads(data)

    def export(self, name: str = "out.mp4", **more: object) -> Any:
        state = self.json("/export", {"name": name, **more})
        end = time.monotonic() + 120
        while not state["done"]:
            assert time.monotonic() < end
            time.sleep(0.05)
            state = self.json("/export")
        return state


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    servers: list[ReviewServer] = []

    def make(video: Path | None = None, records: Path | None = None) -> Client:
        video = video or render(tmp_path / "clip.mp4", options={"crf": "10"})
        records = records or mot(tmp_path / "faces.mot", (1, 20, range(FRAMES)), (2, 110, range(FRAMES)))
        session, _ = prepare(video, records, Config(), False, False)
        server = ReviewServer(session)
        servers.append(server)
        server.start()
        return Client(server)

    yield make
    for server in servers:
        server.stop()


ROUTES = [
    ("/", None), ("/state", None), ("/moments", None), ("/boxes?start=0&end=5", None), ("/frame/0", None),
    ("/face/1", None), ("/export", None), ("/edit", {}), ("/box", {}), ("/undo", {}), ("/redo", {}), ("/save", {}),
    ("/export", {"name": "x.mp4"}),
]  # fmt: skip


def test_nobody_without_the_token_gets_anything(opened: Callable[..., Client]) -> None:
    client = opened()
    for path, body in ROUTES:
        for token in ("", "wrong", client.server.token[:-1], client.server.token + "x"):
            code, data = client.call(path, body, token=token)
            assert code == 401, path
            assert len(data) < 100
    assert client.call(f"/?token={client.server.token}", token="")[0] == 200
    assert {address for address in _listening(client.server.port)} == {"127.0.0.1"}


def _listening(port: int) -> list[str]:
    import psutil

    found = psutil.Process().net_connections("tcp")
    return [c.laddr.ip for c in found if c.status == "LISTEN" and c.laddr.port == port]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:{port}"}, {"Host": "127.0.0.1"}, {"Host": "127.0.0.1:1"}, {"Host": "localhost.a:{port}"},
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://127.0.0.1:1"}, {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"},
    ],
)  # fmt: skip
def test_foreign_names_and_pages_are_refused_even_with_the_token(
    opened: Callable[..., Client], headers: dict[str, str]
) -> None:
    client = opened()
    filled = {name: value.format(port=client.server.port) for name, value in headers.items()}
    for path, body in ROUTES:
        assert client.call(path, body, **filled)[0] == 403, path
    for good in ({"Host": f"localhost:{client.server.port}"}, {"Origin": f"http://127.0.0.1:{client.server.port}"}):
        assert client.call("/state", **good)[0] == 200


def test_the_page_asks_nobody_else(opened: Callable[..., Client]) -> None:
    client = opened()
    text = client.call("/")[1].decode()
    assert "http://" not in text.replace("http://127.0.0.1", "")
    assert "https://" not in text
    assert urlsplit(client.server.address).hostname == "127.0.0.1"


def test_frames_are_those_of_a_run_from_the_start(opened: Callable[..., Client], tmp_path: Path) -> None:
    video = render(tmp_path / "clip.mkv", frames=33, options={"crf": "4", "bf": "3", "g": "12"})
    client = opened(video, mot(tmp_path / "r.mot", (1, 20, range(33))))
    with av.open(str(video)) as container:
        wanted = [f.to_ndarray(format="bgr24").astype(int) for f in container.decode(video=0)]
    assert client.server.session.reader.can_seek
    for n in (0, 32, 13, 12, 11, 30, 31, 5, 24):
        code, data = client.call(f"/frame/{n}?width=160")
        assert code == 200
        shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(int)
        differences = [np.abs(shown - other).mean() for other in wanted]
        assert int(np.argmin(differences)) == n
        assert differences[n] < 4


BRIGHT = (20.0, 10.0, 60.0, 40.0)  # of the displayed picture


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
@pytest.mark.parametrize(("rotation", "mirrored"), ORIENTATIONS)
def test_turned_and_mirrored_videos_are_shown_as_a_player_shows_them(
    opened: Callable[..., Client], tmp_path: Path, rotation: int, mirrored: bool, suffix: str
) -> None:
    """Pictures, covers and faces' pictures: looked up by time, and decoded from the start."""
    left, top, right, bottom = (int(v) for v in BRIGHT)
    shown = []
    for n in range(20):
        picture = np.full((96, 160, 3), 60 + n, np.uint8)
        picture[top:bottom, left:right] = 220
        picture[60:70, 5 * n : 5 * n + 20] = 140
        shown.append(picture)
    turned = [stored(picture, rotation, mirrored) for picture in shown]
    video = write(tmp_path / f"clip{suffix}", turned, matrix_of(rotation, mirrored) if suffix == ".mp4" else None)
    if suffix == ".avi":  # it holds no orientation: what is stored is shown
        shown = turned
        left, top, right, bottom = 20, 10, 60, 40
    rows = [f"{n + 1},1,{left},{top},{right - left},{bottom - top},0.9,-1,-1,-1\n" for n in range(20)]
    records = tmp_path / "faces.mot"
    records.write_text("".join(rows))
    client = opened(video, records)
    assert client.server.session.reader.can_seek == (suffix == ".mp4")
    height, width = shown[0].shape[:2]
    assert client.json("/state")["width"] == width
    for n in (17, 3, 0, 19):
        for later in ("", "&later=1"):
            got = decoded(client.call(f"/frame/{n}?width=160{later}")[1])
            assert got.shape == (height, width, 3)
            assert np.abs(got - shown[n]).mean() < 6, (n, later)
        covered = decoded(client.call(f"/frame/{n}?width=160&covers=1")[1])
        assert np.abs(covered[top + 4 : bottom - 4, left + 4 : right - 4] - 128).mean() < 6
        assert np.abs(covered - shown[n])[-8:].mean() < 6
    if suffix == ".mp4":
        face = decoded(client.call("/face/1")[1])
        assert face[30:66, 40:56].mean() > 200  # the bright patch in its middle
        assert face[:8].mean() < 120


def decoded(data: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def test_pictures_that_were_read_do_not_wait_for_the_garbage_collection(tmp_path: Path) -> None:
    video = write(tmp_path / "clip.mp4", [np.full((96, 160, 3), n, np.uint8) for n in range(60)], matrix_of(90, True))
    with av.open(str(video)) as container:
        times = sorted(packet.pts for packet in container.demux(video=0) if packet.pts is not None)
    reader = FrameReader(video, times)
    assert reader.get(0).mirrored
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(one, av.VideoFrame) for one in gc.get_objects())
        for n in (50, 3, 30, *range(31, 50)):
            assert reader.get(n).rotation == 90
        reader.close()
        after = sum(isinstance(one, av.VideoFrame) for one in gc.get_objects())
    finally:
        gc.enable()
    assert after <= before


def test_pictures_made_in_advance_keep_nobody_waiting(opened: Callable[..., Client]) -> None:
    client = opened()
    session = client.server.session
    with session.spare_reader._lock:
        later = threading.Thread(target=client.call, args=("/frame/20?width=160&later=1",))
        later.start()
        assert client.call("/frame/20?width=160")[0] == 200
        assert later.is_alive()
    later.join(60)
    assert not later.is_alive()


@pytest.mark.parametrize("name", ["clip.avi", "clip.ts", "clip.gif"])
def test_frames_of_what_has_no_index(opened: Callable[..., Client], tmp_path: Path, name: str) -> None:
    how: dict[str, Any] = {"codec": "gif", "pix_fmt": "rgb8", "audio": ()} if name.endswith("gif") else {}
    if name.endswith("avi"):
        how = {"codec": "mpeg4", "audio": ()}
    client = opened(render(tmp_path / name, **how), mot(tmp_path / "r.mot", (1, 20, range(FRAMES))))
    session = client.server.session
    assert not session.reader.can_seek
    for n in (0, 29, 7, 8, 3):
        frame = session.reader.get(n)
        assert frame.index == n
        assert frame.pts == session.clip.times[n]
    with pytest.raises(BadInput, match="no frame 30"):
        session.reader.get(30)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/edit", []), ("/edit", {"kind": "none"}), ("/edit", {"kind": "delete", "tracks": [9], "start": 0, "end": 1}),
        ("/edit", {"kind": "delete", "tracks": [], "start": 0, "end": 1}), ("/edit", {"kind": "open", "tracks": [1]}),
        ("/edit", {"kind": "split", "track": 1, "frame": 0, "new": 5}), ("/edit", {"kind": "unmask", "label": 3}),
        ("/edit", {"kind": "delete", "tracks": [1], "start": 5, "end": 1}),
        ("/box", {"frame": 99, "xyxy": [1, 2, 3, 4]}),
        ("/box", {"frame": 0, "xyxy": [3, 2, 1, 4]}), ("/box", {"frame": 0, "xyxy": [1, 2, 3]}), ("/box", {"x": 1}),
        ("/box", {"frame": 0, "xyxy": [1, 2, 30, 40], "track": 77}), ("/export", {"name": "../x.mp4"}),
        ("/export", {"name": "/tmp/x.mp4"}), ("/export", {"name": ""}), ("/export", {"name": "clip.mp4"}),
        ("/export", {"name": "clip.mp4", "overwrite": True}), ("/export", {"name": ".hidden.mp4"}),
        ("/export", {"name": "x.txt"}),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line_and_changes_nothing(
    opened: Callable[..., Client], tmp_path: Path, path: str, body: object
) -> None:
    client = opened()
    before, files = client.json("/state"), sorted(p.name for p in tmp_path.iterdir())
    code, data = client.call(path, body)
    if path == "/export" and code == 200:  # a container that nobody knows shows when it is opened
        state = client.json("/export")
        while not state["done"]:
            time.sleep(0.02)
            state = client.json("/export")
        assert state["error"]
        assert "\n" not in state["error"]
    else:
        assert code == 400, data
        assert data.count(b"\n") == 1
    assert client.json("/state")["tracks"] == before["tracks"]
    assert set(p.name for p in tmp_path.iterdir()) <= {*files, "faces.mot.draft.json"}


def grey(video: Path, x: float, n: int) -> float:
    """The share of a 30 x 30 px face that is the cover's grey."""
    with av.open(str(video)) as container:
        frame = list(container.decode(video=0))[n].to_ndarray(format="rgb24").astype(int)
    face = frame[62:88, round(x) + 2 : round(x) + 28]
    return float((np.abs(face - 128).max(2) <= 16).mean())


def test_decisions_come_out_in_the_video_the_records_and_the_report(
    opened: Callable[..., Client], tmp_path: Path
) -> None:
    client = opened()
    client.json(
        "/edit", {"kind": "open", "tracks": [1], "start": 0, "end": 14, "reason": "<b>consent</b>", "by": "Ada"}
    )
    client.json("/edit", {"kind": "delete", "tracks": [2], "start": 20, "end": 29})
    client.json("/edit", {"kind": "mask", "label": 1, "start": 25, "end": 26, "points": [[100, 50], [150, 100]]})
    drawn = client.json("/box", {"frame": 3, "xyxy": [60, 10, 80, 30], "follow": False})
    state = client.export(by="Ada")
    assert state["error"] == ""
    out = tmp_path / "out.mp4"
    assert state["files"] == ["out.mp4", "out.mp4.jsonl", "out.mp4.manifest.json", "out.mp4.report.html"]
    assert grey(out, 20, 10) < 0.2
    assert grey(out, 20, 20) > 0.95
    assert grey(out, 110, 10) > 0.95
    assert grey(out, 110, 22) < 0.2
    assert grey(out, 110, 25) > 0.95
    rows = read_records(tmp_path / "out.mp4.jsonl")
    assert [f.id for f in rows[10].faces] == [2]
    assert {f.id for f in rows[3].faces} == {2, drawn["tracks"][0]["id"]}
    assert len(rows[25].masks) == 1
    report = (tmp_path / "out.mp4.report.html").read_text()
    assert "&lt;b&gt;consent&lt;/b&gt;" in report
    assert "Ada" in report
    assert "<script" not in report
    assert verify(tmp_path / "out.mp4.manifest.json") == ([], [], 1)
    again = facestream("apply", tmp_path / "clip.mp4", tmp_path / "out.mp4.jsonl", "-o", tmp_path / "again.mp4")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again.mp4").read_bytes() == out.read_bytes()
    assert client.call("/export", {"name": "out.mp4"})[0] == 400  # it exists
    assert client.export(overwrite=True)["error"] == ""


@pytest.mark.parametrize("how", ["keep", "drop", "distort"])
def test_what_was_decided_about_the_sound_comes_out(opened: Callable[..., Client], tmp_path: Path, how: str) -> None:
    client = opened()
    client.json("/edit", {"kind": "audio", "audio": how})
    assert client.export()["error"] == ""
    played = []
    for name in ("clip.mp4", "out.mp4"):
        with av.open(str(tmp_path / name)) as container:
            is_there = bool(container.streams.audio)
            played.append(
                np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)]) if is_there else np.zeros(0)
            )
    assert len(played[0]) > 0
    if how == "drop":
        assert len(played[1]) == 0
    else:
        assert np.array_equal(*played) is (how == "keep")
    assert f"sound: {how}" in (tmp_path / "out.mp4.report.html").read_text()


def test_masks_move_in_the_preview_and_in_the_video(opened: Callable[..., Client], tmp_path: Path) -> None:
    """A rectangle and a triangle, from key frame to key frame: the pixels, of what apply makes of the records too."""
    pictures = [np.full((96, 160, 3), 200, np.uint8) for _ in range(FRAMES)]
    client = opened(write(tmp_path / "clip.mp4", pictures), mot(tmp_path / "r.mot", (1, 0, range(2))))
    square = [[4, 4], [28, 28]]
    client.json("/edit", {"kind": "mask", "label": 1, "start": 3, "end": 26, "frame": 5, "points": square})
    client.json("/edit", {"kind": "move_mask", "label": 1, "frame": 25, "points": [[104, 4], [128, 28]]})
    triangle = [[10, 50], [60, 50], [10, 90]]
    client.json("/edit", {"kind": "mask", "label": 2, "start": 0, "end": 29, "frame": 0, "points": triangle})
    moved = [[90, 50], [140, 50], [90, 90]]
    masks = client.json("/edit", {"kind": "move_mask", "label": 2, "frame": 20, "points": moved})["masks"]
    assert [[frame for frame, _ in mask["keys"]] for mask in masks] == [[5, 25], [0, 20]]
    assert client.export()["error"] == ""
    assert "mask 1 moved at" in (tmp_path / "out.mp4.report.html").read_text()
    again = facestream("apply", tmp_path / "clip.mp4", tmp_path / "out.mp4.jsonl", "-o", tmp_path / "again.mp4")
    assert again.returncode == 0, again.stderr
    with av.open(str(tmp_path / "out.mp4")) as container:
        written = [f.to_ndarray(format="rgb24").astype(int) for f in container.decode(video=0)]
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "out.mp4").read_bytes()
    for n, left in ((3, 4), (5, 4), (10, 29), (15, 54), (25, 104), (26, 104)):
        shown = decoded(client.call(f"/frame/{n}?width=160&covers=1")[1])
        for picture in (written[n], shown):
            hidden = np.abs(picture[:40] - 200).max(2) > 30
            columns = np.flatnonzero(hidden[8:24].all(0))
            assert abs(columns.min() - left) <= 2, n
            assert abs(columns.max() - left - 24) <= 2, n
    for n in (2, 27):
        assert np.abs(written[n][:40, 40:] - 200).max() < 30
    for n, left in ((0, 10), (10, 50), (20, 90), (29, 90)):
        hidden = np.abs(written[n][48:92] - 200).max(2) > 30
        assert hidden[6, left + 3 : left + 36].all(), n
        assert hidden[30, left + 3 : left + 8].all(), n
        assert not hidden[30, left + 26 :].any(), n


def test_the_draft_is_there_when_the_page_ends_and_is_opened_again(
    opened: Callable[..., Client], tmp_path: Path
) -> None:
    client = opened()
    client.json("/edit", {"kind": "delete", "tracks": [2], "start": 20, "end": 29})
    client.json("/edit", {"kind": "delete", "tracks": [1], "start": 0, "end": 3})
    client.json("/undo", {})
    before = client.json("/state")["tracks"]
    client.server.stop()
    assert draft_path(tmp_path / "faces.mot").exists()
    assert opened(tmp_path / "clip.mp4", tmp_path / "faces.mot").json("/state")["tracks"] == before


def test_the_draft_is_written_without_being_asked(opened: Callable[..., Client], tmp_path: Path) -> None:
    client = opened()
    client.json("/edit", {"kind": "delete", "tracks": [2], "start": 20, "end": 29})
    end = time.monotonic() + 60
    while not client.json("/state")["saved"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert '"delete"' in draft_path(tmp_path / "faces.mot").read_text()


def test_what_is_changed_while_the_draft_is_written_is_written_too(
    opened: Callable[..., Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = opened()
    session = client.server.session
    writing = threading.Event()
    go_on = threading.Event()
    write = session.write

    def slow(*arguments: Any) -> None:
        writing.set()
        go_on.wait(60)
        write(*arguments)

    monkeypatch.setattr(session, "write", slow)
    client.json("/edit", {"kind": "delete", "tracks": [2], "start": 20, "end": 29})
    assert writing.wait(60)
    client.json("/edit", {"kind": "delete", "tracks": [1], "start": 3, "end": 9})
    assert not client.json("/state")["saved"]
    go_on.set()
    end = time.monotonic() + 60
    while not client.json("/state")["saved"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert draft_path(tmp_path / "faces.mot").read_text().count('"delete"') == 2


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    video = render(tmp_path / "clip.mp4")
    other = render(tmp_path / "other.mp4", size=(80, 60))
    assert facestream("detect", other, "-o", tmp_path / "other.jsonl").returncode == 0
    (tmp_path / "bad.jsonl").write_text("{")
    for words in (
        ["nothing.mp4"], [str(tmp_path)], ["rtsp://127.0.0.1/x"], [video, "--records", tmp_path / "none.jsonl"],
        [video, "--records", tmp_path / "bad.jsonl"], [video, "--records", tmp_path / "other.jsonl"],
        [video, "--records", tmp_path / "other.jsonl", "--list"],
    ):  # fmt: skip
        run = facestream("review", *words, "--no-browser", "--quiet")
        assert run.returncode == 2, words
        assert run.stderr.count("\n") == 1, run.stderr
        assert "Traceback" not in run.stderr
    assert not list(tmp_path.glob("*draft*"))
