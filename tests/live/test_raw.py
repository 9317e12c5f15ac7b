"""No uncovered frame at any sink, whatever fails: searches all outputs for a red mark that only covers hide."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.live.encode import LiveEncoder, LiveOptions
from facestream.pipeline.rtsp.rtp import Packetizer, Unit
from facestream.pipeline.rtsp.server import RtspServer
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.stages.track import Tracker
from facestream.pipeline.types import CoveredFrame, Frame, TrackedFrame

from tests.live.test_fail_closed import SECRET, Moody
from tests.live.test_live import Run
from tests.live.test_rtsp_push import listening
from tests.servers import Proxy, free_port, talking

SIZES = ((160, 120), (240, 160))
RATE = 50


def marked(size: tuple[int, int]) -> av.VideoFrame:
    """A grey gradient with a red square where the detector finds its face."""
    rgb = np.repeat(np.add.outer(np.arange(size[1]), np.arange(size[0])).astype(np.uint8)[..., None] // 2 + 40, 3, 2)
    rgb[SECRET, SECRET] = (255, 0, 0)
    return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")


def red(picture: av.VideoFrame) -> bool:
    """Whether any of the mark can be seen, wherever and however small."""
    plane = picture.reformat(format="yuv420p").planes[2]
    return bool(np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : plane.width].max() > 170)


class Source:
    """An RTSP camera of marked pictures. lossy: some of its packets never go out; size: which of SIZES."""

    def __init__(self) -> None:
        self.server = RtspServer("127.0.0.1", 0)
        self.mount = self.server.mount("door")
        self.size, self.lossy = SIZES[0], False
        self.over = threading.Event()
        self.dice = np.random.default_rng(2)

    def __enter__(self) -> Source:
        self.server.start()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join(5)
        self.server.stop()

    def _run(self) -> None:
        encoder, pack = LiveEncoder(LiveOptions(bitrate=4000, crf=12), RATE), self.mount.packetizer
        self.mount.request_keyframe = encoder.request_keyframe
        began, n = time.monotonic(), 0
        pictures = {size: marked(size) for size in SIZES}
        while not self.over.wait(max(0.0, began + n / RATE - time.monotonic())):
            shown, ticks = pictures[self.size].reformat(format="yuv420p"), n * 90000 // RATE
            frame = Frame(n, ticks, TICK, shown)
            for coded in encoder.encode(CoveredFrame(shown, TrackedFrame(frame, ()))):
                self._send(pack, coded.data, coded.ticks, coded.key)
            n += 1

    def _send(self, pack: Packetizer, data: bytes, ticks: int, key: bool) -> None:
        unit = pack.pack(data, ticks, key, time.time())
        if self.lossy and not key:
            unit = Unit(tuple(p for p in unit.packets if self.dice.random() > 0.2), key, unit.report)
        self.server.send(self.mount, unit)


class DetectorHealth:
    """Looks at every picture that a sink gives, until it is told to end."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.raw: list[str] = []
        self.over = threading.Event()
        self.threads: list[threading.Thread] = []

    def look(self, sink: str, picture: av.VideoFrame) -> None:
        self.seen[sink] += 1
        if red(picture):
            self.raw.append(f"{sink}, picture {self.seen[sink]}")

    def start(self, run: Callable[[], None]) -> None:
        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()

    def play(self, url: str, transport: str) -> None:
        """A player that comes back whenever it is cut off."""
        given = {"rtsp_transport": transport, "analyzeduration": "500000"}
        while not self.over.is_set():
            with contextlib.suppress(av.FFmpegError), av.open(url, options=given, timeout=(5.0, 2.0)) as container:
                for picture in container.decode(video=0):
                    self.look(transport, picture)
                    if self.over.is_set():
                        break
            self.over.wait(0.1)

    def take(self, port: int, folder: Path) -> None:
        """A server that one can push to, FFmpeg's; started again whenever it has ended."""
        n = 0
        while not self.over.is_set():
            n += 1
            with listening(port, folder / f"pushed-{n}.h264") as process:
                while process.poll() is None and not self.over.wait(0.1):
                    pass

    def read(self, sink: str, path: Path) -> None:
        with contextlib.suppress(av.FFmpegError), av.open(str(path)) as container:
            for picture in container.decode(video=0):
                self.look(sink, picture)

    def end(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(15)


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Stages that raise now and then; how often which one did."""
    dice, broken = np.random.default_rng(1), Counter[str]()

    def sometimes(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def act(*given: Any, **more: Any) -> Any:
            if dice.random() < 0.004:
                broken[name] += 1
                raise ZeroDivisionError(f"{name} broke")
            return real(*given, **more)

        monkeypatch.setattr(owner, name, act)

    sometimes(Tracker, "update")
    sometimes(Anonymizer, "cover")
    return broken


def go_through_faults(wanted: int, folder: Path, broken: Counter[str]) -> Counter[str]:
    """Until so many pictures have come out at the sinks; how many came out of which. Fails where one shows the mark."""
    pytest.importorskip("aiohttp", reason="the page needs the web extra")
    moody, watch, dice = Moody(), DetectorHealth(), np.random.default_rng(3)
    detect = moody.detect
    slow = 0.0

    def late(images: Any) -> Any:
        time.sleep(slow)
        return detect(images)

    moody.detect = late  # type: ignore[method-assign]
    port, push, page = free_port(), free_port(), free_port()
    sinks = [f"serve:rtsp://127.0.0.1:{port}/out", str(folder / "o.mkv"), f"http://127.0.0.1:{page}"]
    sinks += [f"rtsp://127.0.0.1:{push}/live"] if shutil.which("ffmpeg") else []
    flags = {"run__deadline_s": 0.15, "run__segment_s": 5.0, "cover__hide": "solid", "detector__every": 2}
    with Source() as source:
        proxy = Proxy(source.server.port)
        with talking(proxy) as near, Run({"door": f"rtsp://127.0.0.1:{near}/door"}, sinks, moody, **flags) as run:
            assert any(red(p) for p in some(f"rtsp://127.0.0.1:{near}/door"))  # the camera shows it, and we see it
            (sink,) = (o for page_ in run.pages for o in page_._sinks.values())
            sink.viewers = 1
            sink.woken = lambda: watch.look("page", unpacked(sink.jpeg))
            url = f"rtsp://127.0.0.1:{port}/out"
            run.until(lambda: run.left("door") > 5)
            watch.start(lambda: watch.play(url, "tcp"))
            watch.start(lambda: watch.play(url, "udp"))
            if shutil.which("ffmpeg"):
                watch.start(lambda: watch.take(push, folder))
            done: Counter[str] = Counter()
            faults = ["reset", "freeze", "lossy", "size", "raise", "hang", "slow", "calm"]
            while sum(watch.seen.values()) < wanted or len(done) < len(faults):
                fault = faults[len(done)] if len(done) < len(faults) else str(dice.choice(faults))
                done[fault] += 1
                if fault == "reset":
                    proxy.reset()
                source.lossy, proxy.frozen = fault == "lossy", fault == "freeze"
                slow = 0.06 if fault == "slow" else 0.0
                moody.mood = fault if fault in ("raise", "hang") else ""
                if fault == "size":
                    source.size = SIZES[source.size == SIZES[0]]
                run.live.wait(1.5)  # longer than tracks live on by themselves
                moody.mood = ""
                moody.awake.set()
                moody.awake = threading.Event()
                source.lossy = proxy.frozen = False
                slow = 0.0
                left, end = run.left("door"), time.monotonic() + 60
                while run.left("door") < left + 5:  # it comes back from each
                    assert time.monotonic() < end, f"after {fault}: {run.said[-5:]}"
                    run.live.wait(0.05)
            watch.end()
            counts = run["door"].counts
    for path in folder.glob("o-*.mkv"):
        watch.read("file", path)
    for path in folder.glob("pushed-*.h264"):
        watch.read("pushed", path)
    print(f"{sum(watch.seen.values())} pictures: {dict(watch.seen)}; {dict(done)}; {dict(broken)}; {counts}")
    assert not watch.raw, watch.raw[:5]
    assert counts.camera.losses > 0
    assert counts.camera.connects > 1
    assert counts.line.detector_failures > 0
    assert counts.line.fully_covered > 0
    return watch.seen


def some(url: str) -> list[av.VideoFrame]:
    with av.open(url, options={"rtsp_transport": "tcp"}, timeout=(5.0, 5.0)) as container:
        pictures = container.decode(video=0)
        return [next(pictures) for _ in range(3)]


def unpacked(jpeg: bytes) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), format="bgr24")


def test_no_fault_shows_the_mark_at_any_sink(tmp_path: Path, breaking: Counter[str]) -> None:
    seen = go_through_faults(400, tmp_path, breaking)
    assert {"tcp", "udp", "page", "file"} <= {sink for sink, count in seen.items() if count > 20}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_fault_shows_the_mark_in_twenty_thousand_pictures(tmp_path: Path, breaking: Counter[str]) -> None:
    seen = go_through_faults(20_000, tmp_path, breaking)
    assert sum(seen.values()) >= 20_000
    assert min(breaking.values()) > 0


def test_a_mark_that_is_not_covered_is_seen_at_every_size() -> None:
    for size in SIZES:
        assert red(marked(size))
        assert red(marked(size).reformat(width=size[0] // 2, height=size[1] // 2))
