"""Live cameras through the line to their outlets: the only place where the threads of a live run start and stop.

    camera thread -> ring (newest frames) -> line thread: look, track, look ahead, cover -> ring -> outlet threads

All lines ask one detector, which has a thread too. Nothing of one camera waits for anything of another.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

import numpy as np
from facestream.engines.detector import Detector
from facestream.engines.letterbox import ImageView
from facestream.pipeline.config import Config
from facestream.pipeline.live.batching_detector import BatchingDetector, DetectorClient, InferenceFailed
from facestream.pipeline.live.camera import Camera
from facestream.pipeline.live.fail_closed import FailClosedCounts, FailClosedPipeline
from facestream.pipeline.live.outlet import Lane, StreamOutlet
from facestream.pipeline.live.sound import Sound, Voiced
from facestream.pipeline.live.state import CameraOptions, State, Status
from facestream.pipeline.live.tuning import Tuner
from facestream.pipeline.live.visitor import Visitors
from facestream.pipeline.ring import Cancelled, Policy, Ring
from facestream.pipeline.rtsp.push import Pusher
from facestream.pipeline.types import Frame, TrackedFrame
from facestream.pipeline.video.uri import Uri, redact

WARM_UP_S = 30.0  # for the first look at a picture; then the cameras start without it, covered all over
Told = Callable[[str, str], None]  # name, message


class Gap:
    """In a ring between two frames: the second comes after an interruption."""


@dataclass(frozen=True, slots=True)
class Counts:
    """A camera's figures so far. dropped: frames that came while the line was busy; outlets: that one was busy.

    delay_ms, latency_ms: medians from a frame's arrival to its packets in a stream, and until it may leave.
    """

    camera: Status
    line: FailClosedCounts
    dropped: int
    left: int
    outlets_dropped: int
    delay_ms: float
    latency_ms: float


class Channel:
    """One camera with its line and its outlets."""

    def __init__(
        self,
        name: str,
        uri: Uri,
        options: CameraOptions,
        config: Config,
        desk: BatchingDetector,
        tuner: Tuner,
        told: Told,
    ) -> None:
        self.name, self.tuner, self._told = name, tuner, told
        self.lanes: list[Lane] = []
        self._ring: Ring[Frame | Gap] = Ring(config.live.ring, Policy.DROP_OLDEST)
        self.camera = Camera(name, uri, options, self._take, self._hear)
        self._asked = DetectorClient(desk, config.live.deadline_s)
        self.guard = FailClosedPipeline(self._asked, config, config.live.seldom)
        self._delays_s: deque[float] = deque(maxlen=100)  # from a frame's arrival until it may leave
        self._trouble = ""
        self._left = 0
        self._thread = threading.Thread(target=self._run, name=f"line {name}", daemon=True)

    def start(self) -> None:
        listening = [lane.outlet.sounds for lane in self.lanes if isinstance(lane.outlet, Voiced)]
        ears = [sounds for sounds in listening if sounds is not None]

        def hear(sound: Sound) -> None:
            for sounds in ears:
                sounds.put(sound)

        self.camera.hear = hear if ears else None
        for lane in self.lanes:
            lane.start()
        self._thread.start()
        self.camera.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    @property
    def failed(self) -> bool:
        return self.camera.status.state is State.FAILED or any(lane.failed for lane in self.lanes)

    @property
    def counts(self) -> Counts:
        delays = [lane.outlet.delay_ms for lane in self.lanes if isinstance(lane.outlet, StreamOutlet)]
        return Counts(
            self.camera.status,
            self.guard.counts,
            self._ring.counts.dropped,
            self._left,
            sum(lane.ring.counts.dropped for lane in self.lanes),
            max(delays, default=0.0),
            1000 * median(self._delays_s.copy()) if self._delays_s else 0.0,
        )

    def tune(self, wish: Mapping[str, Any]) -> None:
        """Change settings, for all outputs, from the next frame that leaves. Raises BadConfig for what may not be."""
        before = self.tuner.now
        self.tuner.change(wish)
        if self.tuner.now != before:
            self._asked.threshold = self.tuner.now.threshold
            self._told(self.name, "set: " + ", ".join(f"{key} {value}" for key, value in wish.items()))

    def stop(self) -> None:
        """No more frames; those inside still leave."""
        self.camera.stop()
        self._ring.close()

    def finish(self, timeout_s: float) -> bool:
        """After stop(): wait for the line, then for the outlets. False when a thread of them hangs."""
        end = time.monotonic() + timeout_s
        self._thread.join(timeout_s)
        if not self.over:
            self._ring.cancel()
            self._thread.join(0.5)
        ended = [lane.finish(max(0.5, end - time.monotonic())) for lane in self.lanes]
        return self.over and all(ended)

    def _take(self, frame: Frame) -> None:
        try:
            self._ring.put(frame)
        except ValueError:  # closed: the run ends
            raise Cancelled from None

    def _hear(self, status: Status) -> None:
        """The camera's state, on whichever thread it changed."""
        words = ", ".join(filter(None, (str(status.state), status.message)))
        self._told(self.name, words)
        try:
            if status.state in (State.STALLED, State.RECONNECTING):
                self._ring.put(Gap())
            elif status.state is State.ENDED or (status.state is State.FAILED and self.camera.over):
                self._ring.close()
        except (Cancelled, ValueError):
            pass

    def _run(self) -> None:
        try:
            for item in self._ring:
                if isinstance(item, Gap):
                    self._leave(self.guard.flush())
                else:
                    self._leave(self.guard.push(item, self._ring.counts.inside > 0))
                self._tell_trouble()
            self._leave(self.guard.flush())
        except Cancelled:
            pass

    def _leave(self, frames: list[TrackedFrame]) -> None:
        """Cover and give away. A frame that cannot be covered stays here."""
        for tracked in frames:
            try:
                covered = self.tuner.coverer.cover(tracked)
            except Exception as error:
                self.guard.counts.withheld += 1
                self.guard.trouble = f"frames are held back: {type(error).__name__}: {error}".splitlines()[0]
                continue
            self._left += 1
            self._delays_s.append(time.time() - self.camera.epoch_s - (tracked.frame.time_s or 0.0))
            for lane in self.lanes:
                lane.give(covered)

    def _tell_trouble(self) -> None:
        trouble = self.guard.trouble
        if trouble != self._trouble:
            self._trouble = trouble
            self._told(self.name, redact(trouble) if trouble else "faces are looked for again")


class Server(Protocol):
    """What others connect to: an RTSP server, a page. start() raises BadInput where its address cannot be had."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Live:
    """All cameras of a run, the detector, the servers, the pushers and the page's visitors."""

    def __init__(self, config: Config, detector: Detector, told: Told, drawn: bool = False, bare: bool = False) -> None:
        """drawn: boxes are drawn on what all outputs get; bare: on faces that are not covered."""
        self.config, self._told = config, told
        self.desk = BatchingDetector(detector, config.live.batch or detector.batch, config.live.batch_wait_ms / 1000)
        self.channels: list[Channel] = []
        self.servers: list[Server] = []
        self.pushers: list[Pusher] = []
        self._drawn, self._bare = drawn, bare
        self.visitors = Visitors(self.desk, config, drawn, bare)

    def add(self, name: str, uri: Uri, options: CameraOptions) -> Channel:
        tuner = Tuner(self.config, self._drawn, self._bare, self.desk.detector.adjustable)
        channel = Channel(name, uri, options, self.config, self.desk, tuner, self._told)
        self.channels.append(channel)
        return channel

    def start(self) -> None:
        """Raises BadInput where a server's address cannot be had; then nothing has been started."""
        started: list[Server] = []
        try:
            for server in self.servers:
                server.start()
                started.append(server)
        except BaseException:
            for server in started:
                server.stop()
            raise
        # The first look takes several times as long as the others: not at the cost of a frame's deadline.
        self.desk.start()
        self._warm_up()
        for pusher in self.pushers:
            pusher.start()
        for channel in self.channels:
            channel.start()

    def _warm_up(self) -> None:
        """On the detector's own thread: one that hangs must not keep this one, which hears that the run is to end."""
        width, height = self.config.detector.size
        try:
            self.desk.submit(ImageView(np.zeros((height, width, 3), np.uint8), width, height), WARM_UP_S)
        except InferenceFailed as error:
            self._told("detector", f"the first look failed: {redact(error)}")

    def wait(self, seconds: float) -> bool:
        """Watch over the cameras for about so long; True when all of them are over. Without one, visitors may come."""
        end = time.monotonic() + seconds
        while True:
            for channel in self.channels:
                channel.camera.check()
            if self.channels and all(channel.over for channel in self.channels):
                return True
            rest = end - time.monotonic()
            if rest <= 0:
                return False
            time.sleep(min(0.1, rest))

    def stop(self, timeout_s: float = 3.0) -> bool:
        """End everything within about timeout_s, outputs closed. False when a thread hangs and must be left."""
        end = time.monotonic() + timeout_s
        for channel in self.channels:
            channel.stop()
        for pusher in self.pushers:
            pusher.stop()
        visitors = self.visitors.stop()
        finished = _together([channel.finish for channel in self.channels], max(0.5, end - time.monotonic()))
        for server in self.servers:
            server.stop()
        self.desk.stop()
        rest = max(0.1, end - time.monotonic())
        joined = [self.desk.join(rest), *(pusher.join(rest) for pusher in self.pushers)]
        joined += [visitor.join(rest) for visitor in visitors]
        cameras = _together([channel.camera.join for channel in self.channels], rest)
        return finished and cameras and all(joined)


def _together(tasks: list[Callable[[float], bool]], timeout_s: float) -> bool:
    """Run tasks that wait side by side, so that their waits do not add up."""
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda task=task: results.append(task(timeout_s)), daemon=True) for task in tasks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout_s + 2)
    return len(results) == len(tasks) and all(results)
