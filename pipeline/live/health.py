"""Health of a run: every worker thread is checked actively, so that a silent failure is noticed."""

from __future__ import annotations

import bisect
import itertools
import threading
import time
from typing import TYPE_CHECKING

from facestream.pipeline.connection import State
from facestream.pipeline.url import redact

if TYPE_CHECKING:
    from facestream.pipeline.live.run import CameraPipeline, Live

HANG_S = 10.0  # seconds that a worker may take for one frame
SILENT_S = 10.0  # seconds without a frame leaving while frames arrive


class Heartbeat:
    """How long a thread has been busy with one task. It calls begin() and end(); busy_s may be read from any thread."""

    def __init__(self) -> None:
        self._since_s = 0.0

    def begin(self) -> None:
        self._since_s = time.monotonic()

    def end(self) -> None:
        self._since_s = 0.0

    @property
    def busy_s(self) -> float:
        """Seconds since begin(); 0 while idle."""
        since = self._since_s
        return time.monotonic() - since if since else 0.0


def thread_problem(what: str, thread: threading.Thread, beat: Heartbeat | None = None) -> str:
    """The problem of a thread that has ended or hangs; "" if it works."""
    if thread.ident is not None and not thread.is_alive():
        return f"{what} has died"
    if beat is not None and beat.busy_s > HANG_S:
        return f"{what} hangs for {beat.busy_s:.0f} s"
    return ""


def camera_problems(pipeline: CameraPipeline) -> list[str]:
    """The problems of a camera and its outputs, worst first; empty while frames arrive and leave."""
    status = pipeline.camera.status
    found: list[str] = []
    if status.state not in (State.LIVE, State.ENDED):
        found.append(", ".join(filter(None, (str(status.state), status.message))))
    if not pipeline.camera.over and not pipeline.stopped:
        found.append(thread_problem("its pipeline", pipeline.thread, pipeline.beat))
    waited_s = time.monotonic() - max(pipeline.last_emitted_s, status.live_since_s)
    if status.state is State.LIVE and not pipeline.camera.over and waited_s > max(SILENT_S, 3 * status.interval_s):
        found.append(f"pictures come in, and none has left for {waited_s:.0f} s")
    if pipeline.fail_closed.trouble:
        found.append(pipeline.fail_closed.trouble)
    for worker in pipeline.workers:
        if worker.failed:
            found.append(f"output lost: {worker.failure}")
        elif not worker.finished:
            found.append(thread_problem(f"the output {worker.sink.name}", worker.thread, worker.beat))
        if trouble := str(getattr(worker.sink, "trouble", "")):
            found.append(f"recording lost: {trouble}")
    return [redact(problem) for problem in found if problem]


def run_problems(live: Live) -> list[str]:
    """Problems outside the cameras: the detector, servers, push targets."""
    found = [thread_problem("the detector", live.shared_detector.thread)]
    if live.shared_detector.busy_s > HANG_S:
        found.append(f"the detector hangs for {live.shared_detector.busy_s:.0f} s")
    for server in live.servers:
        thread = getattr(server, "thread", None)
        if thread is not None:
            found.append(thread_problem(f"the server {getattr(server, 'where', '')}", thread))
    found += [
        f"{pusher.target.redacted}: {pusher.state}, {pusher.message}"
        for pusher in live.pushers
        if pusher.state in (State.RECONNECTING, State.FAILED)
    ]
    return [redact(problem) for problem in found if problem]


LATENCIES_S = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, float("inf"))


class LatencyHistogram:
    """A latency histogram with fixed buckets. add() is called from one thread."""

    def __init__(self) -> None:
        self._counts = [0] * len(LATENCIES_S)
        self._sum_s = 0.0

    def add(self, latency_s: float) -> None:
        self._counts[bisect.bisect_left(LATENCIES_S, latency_s)] += 1
        self._sum_s += latency_s

    @property
    def buckets(self) -> tuple[tuple[tuple[float, int], ...], float]:
        """(upper bound, cumulative count) of each bucket, and the sum of all latencies."""
        return tuple(zip(LATENCIES_S, itertools.accumulate(self._counts), strict=True)), self._sum_s
