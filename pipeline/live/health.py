"""What is wrong with a run now: each worker is watched, and nothing counts as well because nobody complained."""

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

HANG_S = 10.0  # for which a worker may be at work on one frame
SILENT_S = 10.0  # for which no picture may leave while pictures come in


class Heartbeat:
    """Whether a thread is at work on something, and since when. begin() and end() from it, busy_s from any thread."""

    def __init__(self) -> None:
        self._since_s = 0.0

    def begin(self) -> None:
        self._since_s = time.monotonic()

    def end(self) -> None:
        self._since_s = 0.0

    @property
    def busy_s(self) -> float:
        """Seconds for which it has been at the same thing; 0 while it rests."""
        since = self._since_s
        return time.monotonic() - since if since else 0.0


def thread_problem(what: str, thread: threading.Thread, beat: Heartbeat | None = None) -> str:
    """ "" while a thread that should run does, and moves on."""
    if thread.ident is not None and not thread.is_alive():
        return f"{what} has died"
    if beat is not None and beat.busy_s > HANG_S:
        return f"{what} hangs for {beat.busy_s:.0f} s"
    return ""


def camera_problems(pipeline: CameraPipeline) -> list[str]:
    """All that is wrong with a camera and its outputs, worst first; empty while pictures come in and leave."""
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
    """What is wrong beside the cameras: the detector, the servers, those that are pushed to."""
    found = [thread_problem("the detector", live.desk.thread)]
    if live.desk.busy_s > HANG_S:
        found.append(f"the detector hangs for {live.desk.busy_s:.0f} s")
    for server in live.servers:
        thread = getattr(server, "thread", None)
        if thread is not None:
            found.append(thread_problem(f"the server {getattr(server, 'where', '')}", thread))
    found += [
        f"{pusher.target.shown}: {pusher.state}, {pusher.message}"
        for pusher in live.pushers
        if pusher.state in (State.RECONNECTING, State.FAILED)
    ]
    return [redact(problem) for problem in found if problem]


LATENCIES_S = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, float("inf"))


class LatencyHistogram:
    """How late frames leave: counts for fixed bounds, as Prometheus keeps them. add() from one thread."""

    def __init__(self) -> None:
        self._counts = [0] * len(LATENCIES_S)
        self._sum_s = 0.0

    def add(self, latency_s: float) -> None:
        self._counts[bisect.bisect_left(LATENCIES_S, latency_s)] += 1
        self._sum_s += latency_s

    @property
    def buckets(self) -> tuple[tuple[tuple[float, int], ...], float]:
        """Upper bounds, each with how many frames were not later; and the sum of all."""
        return tuple(zip(LATENCIES_S, itertools.accumulate(self._counts), strict=True)), self._sum_s
