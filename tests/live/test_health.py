"""A worker that dies or hangs is reported by the page, the metrics and the log."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from facestream.pipeline.connection import State
from facestream.pipeline.live import health

from tests.live.test_fail_closed import Moody
from tests.live.test_live import Run
from tests.servers import free_port

CAMERA = "lavfi:testsrc2=size=160x120:rate=25,realtime"


def healthz(port: int) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_pipeline_an_output_and_a_detector_that_hang_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp", reason="the page needs the web extra")
    monkeypatch.setattr(health, "HANG_S", 0.3)
    monkeypatch.setattr(health, "SILENT_S", 1.0)
    port = free_port()
    sinks = [str(tmp_path / "o.mkv"), f"http://127.0.0.1:{port}"]
    awake = threading.Event()
    moody = Moody()
    with Run({"door": CAMERA}, sinks, moody) as run:
        run.until(lambda: run.left("door") > 10)
        run.until(lambda: healthz(port) == (200, {"ok": True, "not_live": {}, "problems": {}}))
        video = next(worker.sink for worker in run["door"].workers if worker.sink.name.endswith(".mkv"))
        write = video.write
        video.write = lambda covered: awake.wait(30)  # type: ignore[method-assign]
        run.until(lambda: any("o.mkv hangs" in message for _, message in run.said))
        code, body = healthz(port)
        assert (code, body["ok"]) == (503, False)
        assert "o.mkv hangs" in str(body["problems"])
        assert run["door"].camera.status.state is State.LIVE
        video.write = write  # type: ignore[method-assign]
        awake.set()
        run.until(lambda: healthz(port)[0] == 200)
        cover = run["door"].tuner.coverer.cover
        awake.clear()
        run["door"].tuner.coverer.cover = lambda tracked: awake.wait(30)  # type: ignore[method-assign,assignment,return-value]
        run.until(lambda: any("its pipeline hangs" in message for _, message in run.said))
        run.until(lambda: any("none has left" in message for _, message in run.said))
        assert healthz(port)[0] == 503
        run["door"].tuner.coverer.cover = cover  # type: ignore[method-assign]
        awake.set()
        run.until(lambda: healthz(port)[0] == 200)


class Ended(BaseException):
    """Ends a thread as nothing that is expected does."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("what", ["its pipeline has died", "output lost: Ended"])
def test_a_worker_that_dies_is_seen(tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("aiohttp", reason="the page needs the web extra")
    port = free_port()
    sinks = [str(tmp_path / "o.mkv"), f"http://127.0.0.1:{port}"]
    with Run({"door": CAMERA}, sinks, Moody()) as run:
        run.until(lambda: healthz(port)[0] == 200)

        def die(*words: object) -> None:
            raise Ended

        if what.startswith("output"):
            worker = next(worker for worker in run["door"].workers if worker.sink.name.endswith(".mkv"))
            worker.sink.write = die  # type: ignore[method-assign,assignment]
        else:
            run["door"].tuner.coverer.cover = die  # type: ignore[method-assign,assignment]
        run.until(lambda: what in str(healthz(port)[1]["problems"]))
        assert healthz(port)[0] == 503
        run.until(lambda: what in f"{run.said} {caplog.text}")


def test_an_output_that_failed_and_one_that_cannot_record_are_seen(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="the page needs the web extra")
    port = free_port()
    sinks = [str(tmp_path / "o.mkv"), f"serve:rtsp://127.0.0.1:{free_port()}/x", f"http://127.0.0.1:{port}"]
    with Run({"door": CAMERA}, sinks, Moody()) as run:
        run.until(lambda: healthz(port)[0] == 200)
        worker = next(worker for worker in run["door"].workers if worker.sink.name.endswith(".mkv"))
        worker.sink._resuming.lost("the disk is full")  # type: ignore[attr-defined]
        worker.sink._resuming._next_s = float("inf")  # type: ignore[attr-defined]
        worker.sink.close()
        assert "recording lost: the disk is full" in str(healthz(port)[1]["problems"])
        stream = next(worker for worker in run["door"].workers if worker.sink.name == "door")

        def broken(covered: object) -> None:
            raise RuntimeError("out of order")

        stream.sink.wants = lambda size: True  # type: ignore[method-assign]
        stream.sink.write = broken  # type: ignore[method-assign,assignment]
        run.until(lambda: stream.failed)
        assert "output lost: out of order" in str(healthz(port)[1]["problems"])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        assert 'facestream_camera_healthy{camera="door"} 0.0' in text
        assert 'facestream_recordings_lost_total{camera="door"} 1.0' in text
        assert 'facestream_latency_seconds_bucket{camera="door",le="+Inf"}' in text
