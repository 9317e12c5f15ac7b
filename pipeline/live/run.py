"""Live runs: cameras, their pipelines and sinks. The only place where threads of a live run are started and stopped.

    camera thread -> queue (newest frames) -> pipeline thread: detect, track, look ahead, cover -> queue -> sink threads

All pipelines share one detector, which has its own thread. No camera waits for another.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Protocol

import numpy as np
from facestream.engines.base import Detector
from facestream.engines.letterbox import ImageView
from facestream.pipeline.config import Config
from facestream.pipeline.connection import State
from facestream.pipeline.errors import InferenceFailed
from facestream.pipeline.live.audio import AudioPacket, AudioSink
from facestream.pipeline.live.batching_detector import BatchingDetector, DetectorClient
from facestream.pipeline.live.camera import Camera
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.live.events import EventFeed
from facestream.pipeline.live.fail_closed import FailClosedCounts, FailClosedPipeline
from facestream.pipeline.live.fanout import FanOut
from facestream.pipeline.live.health import Heartbeat, LatencyHistogram, camera_problems, run_problems
from facestream.pipeline.live.sinks import SinkWorker, StreamSink
from facestream.pipeline.live.state import CameraOptions, Status
from facestream.pipeline.live.tuning import Tuner
from facestream.pipeline.live.webcam_session import WebcamSessions
from facestream.pipeline.ring import Cancelled, Policy, Ring
from facestream.pipeline.rtsp.push import Pusher
from facestream.pipeline.stages.overlay import placeholder
from facestream.pipeline.types import CoveredFrame, Frame, Polygon, TrackedFrame
from facestream.pipeline.url import redact
from facestream.pipeline.video.uri import Uri

DOWN_S = 2.0  # for which a camera may be away before its streams show that
PLACEHOLDER_S = 0.5  # between two such pictures
WARM_UP_S = 30.0  # seconds for the first inference; after that the cameras start without it, fully covered
EventHandler = Callable[[str, str], None]  # name, message


class MasksOf(Protocol):
    """The regions to cover in every frame of a camera."""

    def of(self, size: tuple[int, int]) -> tuple[Polygon, ...]:
        """Polygons in pixels of a displayed frame of this width and height."""
        ...


class Gap:
    """A marker in a queue: the next frame comes after an interruption."""


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
    """One camera with its face pipeline and its sinks."""

    def __init__(
        self,
        name: str,
        uri: Uri,
        options: CameraOptions,
        config: Config,
        shared_detector: BatchingDetector,
        tuner: Tuner,
        on_event: EventHandler,
    ) -> None:
        self.name = name
        self.tuner = tuner
        self._on_event = on_event
        self.config = config
        self.workers: list[SinkWorker] = []
        self._ring: Ring[Frame | Gap] = Ring(config.run.queue, Policy.DROP_OLDEST)
        self.camera = Camera(name, uri, options, self._take, self._on_status)
        self._client = DetectorClient(shared_detector, config.run.deadline_s)
        self.fail_closed = FailClosedPipeline(self._client, config, config.run.max_detect_interval)
        self.latencies = LatencyHistogram()
        self._delays_s: deque[float] = deque(maxlen=100)  # from a frame's arrival until it may leave
        self._fan_out = FanOut()  # of the pipeline's thread
        self._trouble = ""
        self._emitted = 0
        self.beat = Heartbeat()
        self.last_emitted_s = 0.0  # monotonic
        self.started = False
        self.stopped = False
        self.placeholder = False  # streams show that there is no picture
        self.placeholders = 0
        self._stood_in_s = 0.0
        self.masks: MasksOf | None = None  # may be changed at any time
        self.undo: list[Callable[[], None]] = []  # takes away what its sinks have at servers and pages
        self.thread = threading.Thread(target=self._run, name=f"pipeline {name}", daemon=True)

    def start(self) -> None:
        self.started = True
        listening = [worker.sink.audio_queue for worker in self.workers if isinstance(worker.sink, AudioSink)]
        audio_consumers = [audio_queue for audio_queue in listening if audio_queue is not None]

        def on_audio(audio: AudioPacket) -> None:
            for audio_queue in audio_consumers:
                audio_queue.put(audio)

        self.camera.on_audio = on_audio if audio_consumers else None
        for worker in self.workers:
            worker.start()
        self.thread.start()
        self.camera.start()

    @property
    def over(self) -> bool:
        return not self.thread.is_alive()

    @property
    def failed(self) -> bool:
        return self.camera.status.state is State.FAILED or any(worker.failed for worker in self.workers)

    @property
    def counts(self) -> Counts:
        delays = [worker.sink.delay_ms for worker in self.workers if isinstance(worker.sink, StreamSink)]
        return Counts(
            self.camera.status,
            self.fail_closed.counts,
            self._ring.counts.dropped,
            self._emitted,
            sum(worker.ring.counts.dropped for worker in self.workers),
            max(delays, default=0.0),
            1000 * median(self._delays_s.copy()) if self._delays_s else 0.0,
        )

    @property
    def problems(self) -> list[str]:
        """Its current problems, see health.py."""
        return camera_problems(self)

    def tune(self, settings_patch: Mapping[str, Any]) -> None:
        """Change settings of all outputs, from the next frame on. Raises BadConfig for values that are not allowed."""
        before = self.tuner.now
        self.tuner.change(settings_patch)
        if self.tuner.now != before:
            self._client.threshold = self.tuner.now.threshold
            self._on_event(self.name, "set: " + ", ".join(f"{key} {value}" for key, value in settings_patch.items()))

    def stop(self) -> None:
        """Stop the camera; frames inside still leave."""
        self.stopped = True
        self.camera.stop()
        self._ring.close()

    def finish(self, timeout_s: float) -> bool:
        """After stop(): wait for the pipeline, then for the sinks. Returns False if one of their threads hangs."""
        end = time.monotonic() + timeout_s
        self.thread.join(timeout_s)
        if not self.over:
            self._ring.cancel()
            self.thread.join(0.5)
        ended = [worker.finish(max(0.5, end - time.monotonic())) for worker in self.workers]
        return self.over and all(ended)

    def _take(self, frame: Frame) -> None:
        try:
            self._ring.put(frame)
        except ValueError:  # closed: the run ends
            raise Cancelled from None

    def _on_status(self, status: Status) -> None:
        """The camera's state has changed; called on any thread."""
        text = ", ".join(filter(None, (str(status.state), status.message)))
        self._on_event(self.name, text)
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
                self.beat.begin()
                try:
                    if isinstance(item, Gap):
                        self._leave(self.fail_closed.flush())
                    else:
                        self._leave(self.fail_closed.push(item, self._ring.counts.inside > 0))
                    self._tell_trouble()
                except Exception as error:  # a bug must not end a camera: nothing of this frame leaves
                    self.fail_closed.counts.withheld += 1
                    self._on_event(self.name, f"a frame is withheld: {type(error).__name__}: {error}".splitlines()[0])
                self.beat.end()
            self._leave(self.fail_closed.flush())
        except Cancelled:
            pass

    def _leave(self, frames: list[TrackedFrame]) -> None:
        """Cover a frame and pass it to the sinks. A frame that cannot be covered does not leave."""
        for tracked in frames:
            try:
                covered = self._cover(tracked)
                size = covered.picture.width, covered.picture.height
                takers = [worker for worker in self.workers if worker.wants(size)]
                frames_of_their_own = self._fan_out.share(covered, [worker.sink.upright for worker in takers])
            except Exception as error:
                self.fail_closed.counts.withheld += 1
                self.fail_closed.trouble = f"frames are withheld: {type(error).__name__}: {error}".splitlines()[0]
                continue
            self._emitted += 1
            self.last_emitted_s = time.monotonic()
            late_s = time.monotonic() - (tracked.frame.arrived_s or time.monotonic())
            self._delays_s.append(late_s)
            self.latencies.add(late_s)
            for worker, own in zip(takers, frames_of_their_own, strict=True):
                worker.give(own)

    def stand_in(self) -> None:
        """Keep served streams going while the camera is down: players and recorders would give up. To be called a few
        times a second."""
        status = self.camera.status
        now = time.monotonic()
        is_down = status.state not in (State.LIVE, State.ENDED) and now - status.since_s > DOWN_S and not self.stopped
        self.placeholder = is_down
        if not is_down or now - self._stood_in_s < PLACEHOLDER_S:
            return
        self._stood_in_s = now
        pts = self.camera.ticks
        lines = (self.name, "no picture", time.strftime("%Y-%m-%d %H:%M:%S"))
        for worker in self.workers:
            if not isinstance(worker.sink, StreamSink):
                continue
            if worker.sink.audio_queue is not None and not self._emitted:
                continue  # a stream's description holds its audio, which nobody knows before the camera answers
            if worker.wants(worker.sink.size):
                worker.give(placeholder(worker.sink.size, lines, status.frames, pts, TICK))
                self.placeholders += 1

    def _cover(self, tracked: TrackedFrame) -> CoveredFrame:
        """The frame with the camera's masks, which records do not repeat for each frame."""
        if self.masks is None:
            return self.tuner.coverer.cover(tracked)
        masked = replace(tracked, masks=(*tracked.masks, *self.masks.of(tracked.frame.size)))
        return replace(self.tuner.coverer.cover(masked), tracked=tracked)

    def _tell_trouble(self) -> None:
        trouble = self.fail_closed.trouble
        if trouble != self._trouble:
            self._trouble = trouble
            self._on_event(self.name, redact(trouble) if trouble else "faces are detected again")


class Server(Protocol):
    """A server: RTSP or the page. start() raises BadInput if its address is not available."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Live:
    """All cameras of a run, the detector, the servers, the pushers and the page's webcam sessions."""

    def __init__(
        self, config: Config, detector: Detector, on_event: EventHandler, drawn: bool = False, bare: bool = False
    ) -> None:
        """drawn: draw boxes on all outputs; bare: on uncovered faces."""
        self.config = config
        self._on_event = on_event
        self.shared_detector = BatchingDetector(
            detector, config.run.batch or detector.batch, config.run.batch_wait_ms / 1000
        )
        self.pipelines: list[CameraPipeline] = []
        self.servers: list[Server] = []
        self.pushers: list[Pusher] = []
        self._drawn = drawn
        self._bare = bare
        self.started = False
        self.not_started: dict[str, str] = {}  # cameras that should run and could not be started, and why
        self._serving: list[Server] = []
        self.events: EventFeed | None = None
        self._watched_s = 0.0
        self._stuck: set[tuple[str, str]] = set()
        self.webcam_sessions = WebcamSessions(self.shared_detector, config, drawn, bare)

    def add(
        self, name: str, uri: Uri, options: CameraOptions, config: Config | None = None, masks: MasksOf | None = None
    ) -> CameraPipeline:
        """Add a camera. config: its own settings, if they differ from the run's."""
        own = config or self.config
        tuner = Tuner(own, self._drawn, self._bare, self.shared_detector.detector.adjustable)
        pipeline = CameraPipeline(name, uri, options, own, self.shared_detector, tuner, self._on_event)
        pipeline.masks = masks
        self.pipelines.append(pipeline)
        return pipeline

    def remove(self, pipeline: CameraPipeline, timeout_s: float = 3.0) -> None:
        """End one camera and close its outputs; the others continue."""
        pipeline.stop()
        if pipeline.started:
            pipeline.finish(timeout_s)
            pipeline.camera.join(timeout_s)
        for undo in pipeline.undo:
            undo()
        self.pipelines.remove(pipeline)
        self.shared_detector.clients -= 1

    def start_new(self) -> None:
        """Start cameras added since the run started."""
        if not self.started:
            return
        for server in self.servers:
            if server not in self._serving:
                server.start()
                self._serving.append(server)
        for pusher in self.pushers:
            pusher.start()
        for pipeline in self.pipelines:
            if not pipeline.started:
                pipeline.start()

    @property
    def on_event(self) -> EventHandler:
        return self._on_event

    def start(self) -> None:
        """Start the run. Raises BadInput if a server's address is not available; then nothing has been started."""
        try:
            for server in self.servers:
                server.start()
                self._serving.append(server)
        except BaseException:
            for server in self._serving:
                server.stop()
            raise
        # The first inference takes several times as long as others; it must not exceed a frame's deadline.
        self.shared_detector.start()
        self._warm_up()
        self.started = True
        self.start_new()

    def _warm_up(self) -> None:
        """Warm up on the detector's own thread: a hanging detector must not block this one, which handles the end."""
        width, height = self.config.detector.size
        try:
            self.shared_detector.submit(ImageView(np.zeros((height, width, 3), np.uint8), width, height), WARM_UP_S)
        except InferenceFailed as error:
            self._on_event("detector", f"the first inference failed: {redact(error)}")

    def wait(self, seconds: float) -> bool:
        """Supervise the cameras for about this long; returns True if all have ended. Without any, wait for browsers."""
        end = time.monotonic() + seconds
        while True:
            for pipeline in self.pipelines:
                pipeline.camera.check()
                pipeline.stand_in()
            self._watch()
            if self.pipelines and all(pipeline.over for pipeline in self.pipelines):
                return True
            rest = end - time.monotonic()
            if rest <= 0:
                return False
            time.sleep(min(0.1, rest))

    def _watch(self) -> None:
        """Report once a second problems of workers that cannot report them themselves."""
        now = time.monotonic()
        if now - self._watched_s < 1.0:
            return
        self._watched_s = now
        hanging = {("run", problem) for problem in run_problems(self)}
        hanging |= set(self.not_started.items())
        hanging |= {(pipeline.name, problem) for pipeline in self.pipelines for problem in pipeline.problems}
        if self.events is not None:
            self.events.update(hanging)
        stuck = {(name, re.sub(r" for \d+ s$", "", problem)) for name, problem in hanging}
        stuck = {(name, what) for name, what in stuck if re.search("hangs|has died|none has left", what)}
        for name, what in sorted(stuck - self._stuck):
            self._on_event(name, what)
        for name, what in sorted(self._stuck - stuck):
            self._on_event(name, f"over: {what}")
        self._stuck = stuck

    def stop(self, timeout_s: float = 3.0) -> bool:
        """Stop everything within about timeout_s and close outputs. Returns False if a thread hangs."""
        end = time.monotonic() + timeout_s
        for pipeline in self.pipelines:
            pipeline.stop()
        for pusher in self.pushers:
            pusher.stop()
        webcam_sessions = self.webcam_sessions.stop()
        finished = _together([pipeline.finish for pipeline in self.pipelines], max(0.5, end - time.monotonic()))
        for server in self.servers:
            server.stop()
        self.shared_detector.stop()
        rest = max(0.1, end - time.monotonic())
        joined = [self.shared_detector.join(rest), *(pusher.join(rest) for pusher in self.pushers)]
        joined += [session.join(rest) for session in webcam_sessions]
        cameras = _together([pipeline.camera.join for pipeline in self.pipelines], rest)
        return finished and cameras and all(joined)


def _together(tasks: list[Callable[[float], bool]], timeout_s: float) -> bool:
    """Run blocking tasks in parallel."""
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda task=task: results.append(task(timeout_s)), daemon=True) for task in tasks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout_s + 2)
    return len(results) == len(tasks) and all(results)
