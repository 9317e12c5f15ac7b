"""Live cameras through the line to their sinks: the only place where the threads of a live run start and stop.

    camera thread -> ring (newest frames) -> line thread: look, track, look ahead, cover -> ring -> sink threads

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
from facestream.engines.base import Detector
from facestream.engines.letterbox import ImageView
from facestream.pipeline.config import Config
from facestream.pipeline.connection import State
from facestream.pipeline.live.audio import AudioPacket, AudioSink
from facestream.pipeline.live.batching_detector import BatchingDetector, DetectorClient, InferenceFailed
from facestream.pipeline.live.camera import Camera
from facestream.pipeline.live.fail_closed import FailClosedCounts, FailClosedPipeline
from facestream.pipeline.live.fanout import FanOut
from facestream.pipeline.live.sinks import SinkWorker, StreamSink
from facestream.pipeline.live.state import CameraOptions, Status
from facestream.pipeline.live.tuning import Tuner
from facestream.pipeline.live.webcam_session import WebcamSessions
from facestream.pipeline.ring import Cancelled, Policy, Ring
from facestream.pipeline.rtsp.push import Pusher
from facestream.pipeline.types import Frame, TrackedFrame
from facestream.pipeline.url import redact
from facestream.pipeline.video.uri import Uri

WARM_UP_S = 30.0  # for the first look at a picture; then the cameras start without it, covered all over
EventHandler = Callable[[str, str], None]  # name, message


class Gap:
    """In a ring between two frames: the second comes after an interruption."""


@dataclass(frozen=True, slots=True)
class Counts:
    """A camera's counts. dropped: frames that came while the pipeline was busy; sink_dropped: while a sink was busy.

    delay_ms, latency_ms: medians from a frame's arrival to its packets in a stream, and until it may leave.
    """

    camera: Status
    line: FailClosedCounts
    dropped: int
    emitted: int
    sink_dropped: int
    delay_ms: float
    latency_ms: float


class CameraPipeline:
    """One camera with its line and its sinks."""

    def __init__(
        self,
        name: str,
        uri: Uri,
        options: CameraOptions,
        config: Config,
        desk: BatchingDetector,
        tuner: Tuner,
        on_event: EventHandler,
    ) -> None:
        self.name, self.tuner, self._on_event = name, tuner, on_event
        self.workers: list[SinkWorker] = []
        self._ring: Ring[Frame | Gap] = Ring(config.run.queue, Policy.DROP_OLDEST)
        self.camera = Camera(name, uri, options, self._take, self._on_status)
        self._asked = DetectorClient(desk, config.run.deadline_s)
        self.guard = FailClosedPipeline(self._asked, config, config.run.max_detect_interval)
        self._delays_s: deque[float] = deque(maxlen=100)  # from a frame's arrival until it may leave
        self._fan_out = FanOut()  # of the pipeline's thread
        self._trouble = ""
        self._emitted = 0
        self._thread = threading.Thread(target=self._run, name=f"line {name}", daemon=True)

    def start(self) -> None:
        listening = [worker.sink.audio_queue for worker in self.workers if isinstance(worker.sink, AudioSink)]
        audio_consumers = [audio_queue for audio_queue in listening if audio_queue is not None]

        def on_audio(audio: AudioPacket) -> None:
            for audio_queue in audio_consumers:
                audio_queue.put(audio)

        self.camera.on_audio = on_audio if audio_consumers else None
        for worker in self.workers:
            worker.start()
        self._thread.start()
        self.camera.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    @property
    def failed(self) -> bool:
        return self.camera.status.state is State.FAILED or any(worker.failed for worker in self.workers)

    @property
    def counts(self) -> Counts:
        delays = [worker.sink.delay_ms for worker in self.workers if isinstance(worker.sink, StreamSink)]
        return Counts(
            self.camera.status,
            self.guard.counts,
            self._ring.counts.dropped,
            self._emitted,
            sum(worker.ring.counts.dropped for worker in self.workers),
            max(delays, default=0.0),
            1000 * median(self._delays_s.copy()) if self._delays_s else 0.0,
        )

    def tune(self, settings_patch: Mapping[str, Any]) -> None:
        """Change settings, for all outputs, from the next frame that leaves. Raises BadConfig for what may not be."""
        before = self.tuner.now
        self.tuner.change(settings_patch)
        if self.tuner.now != before:
            self._asked.threshold = self.tuner.now.threshold
            self._on_event(self.name, "set: " + ", ".join(f"{key} {value}" for key, value in settings_patch.items()))

    def stop(self) -> None:
        """No more frames; those inside still leave."""
        self.camera.stop()
        self._ring.close()

    def finish(self, timeout_s: float) -> bool:
        """After stop(): wait for the line, then for the sinks. False when a thread of them hangs."""
        end = time.monotonic() + timeout_s
        self._thread.join(timeout_s)
        if not self.over:
            self._ring.cancel()
            self._thread.join(0.5)
        ended = [worker.finish(max(0.5, end - time.monotonic())) for worker in self.workers]
        return self.over and all(ended)

    def _take(self, frame: Frame) -> None:
        try:
            self._ring.put(frame)
        except ValueError:  # closed: the run ends
            raise Cancelled from None

    def _on_status(self, status: Status) -> None:
        """The camera's state, on whichever thread it changed."""
        words = ", ".join(filter(None, (str(status.state), status.message)))
        self._on_event(self.name, words)
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
                size = covered.picture.width, covered.picture.height
                takers = [worker for worker in self.workers if worker.wants(size)]
                frames_of_their_own = self._fan_out.share(covered, [worker.sink.upright for worker in takers])
            except Exception as error:
                self.guard.counts.withheld += 1
                self.guard.trouble = f"frames are held back: {type(error).__name__}: {error}".splitlines()[0]
                continue
            self._emitted += 1
            self._delays_s.append(time.time() - self.camera.epoch_s - (tracked.frame.time_s or 0.0))
            for worker, own in zip(takers, frames_of_their_own, strict=True):
                worker.give(own)

    def _tell_trouble(self) -> None:
        trouble = self.guard.trouble
        if trouble != self._trouble:
            self._trouble = trouble
            self._on_event(self.name, redact(trouble) if trouble else "faces are looked for again")


class Server(Protocol):
    """What others connect to: an RTSP server, a page. start() raises BadInput where its address cannot be had."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Live:
    """All cameras of a run, the detector, the servers, the pushers and the page's webcam sessions."""

    def __init__(
        self, config: Config, detector: Detector, on_event: EventHandler, drawn: bool = False, bare: bool = False
    ) -> None:
        """drawn: boxes are drawn on what all outputs get; bare: on faces that are not covered."""
        self.config, self._on_event = config, on_event
        self.desk = BatchingDetector(detector, config.run.batch or detector.batch, config.run.batch_wait_ms / 1000)
        self.pipelines: list[CameraPipeline] = []
        self.servers: list[Server] = []
        self.pushers: list[Pusher] = []
        self._drawn, self._bare = drawn, bare
        self.webcam_sessions = WebcamSessions(self.desk, config, drawn, bare)

    def add(self, name: str, uri: Uri, options: CameraOptions) -> CameraPipeline:
        tuner = Tuner(self.config, self._drawn, self._bare, self.desk.detector.adjustable)
        pipeline = CameraPipeline(name, uri, options, self.config, self.desk, tuner, self._on_event)
        self.pipelines.append(pipeline)
        return pipeline

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
        for pipeline in self.pipelines:
            pipeline.start()

    def _warm_up(self) -> None:
        """On the detector's own thread: one that hangs must not keep this one, which hears that the run is to end."""
        width, height = self.config.detector.size
        try:
            self.desk.submit(ImageView(np.zeros((height, width, 3), np.uint8), width, height), WARM_UP_S)
        except InferenceFailed as error:
            self._on_event("detector", f"the first look failed: {redact(error)}")

    def wait(self, seconds: float) -> bool:
        """Watch over the cameras for about so long; True when all of them are over. Without one, browsers may come."""
        end = time.monotonic() + seconds
        while True:
            for pipeline in self.pipelines:
                pipeline.camera.check()
            if self.pipelines and all(pipeline.over for pipeline in self.pipelines):
                return True
            rest = end - time.monotonic()
            if rest <= 0:
                return False
            time.sleep(min(0.1, rest))

    def stop(self, timeout_s: float = 3.0) -> bool:
        """End everything within about timeout_s, outputs closed. False when a thread hangs and must be left."""
        end = time.monotonic() + timeout_s
        for pipeline in self.pipelines:
            pipeline.stop()
        for pusher in self.pushers:
            pusher.stop()
        webcam_sessions = self.webcam_sessions.stop()
        finished = _together([pipeline.finish for pipeline in self.pipelines], max(0.5, end - time.monotonic()))
        for server in self.servers:
            server.stop()
        self.desk.stop()
        rest = max(0.1, end - time.monotonic())
        joined = [self.desk.join(rest), *(pusher.join(rest) for pusher in self.pushers)]
        joined += [session.join(rest) for session in webcam_sessions]
        cameras = _together([pipeline.camera.join for pipeline in self.pipelines], rest)
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
