"""Runs one file job: source, face pipeline, sink. The only place where its threads are started and stopped.

    decoder thread -> queue -> calling thread: detect, track, look ahead, cover -> queue -> encoder thread

A failure anywhere cancels both queues, which wakes every thread; the calling thread then raises the
first error, after the sink has removed its unfinished output.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from facestream.engines.base import Detector
from facestream.pipeline.config import Config
from facestream.pipeline.errors import SourceLost
from facestream.pipeline.ring import Cancelled, Ring
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.stages.chain import FacePipeline
from facestream.pipeline.stages.read_ahead import ReadAhead
from facestream.pipeline.system import peak_rss_mb
from facestream.pipeline.types import BoxState, CoveredFrame, Frame, SidePacket, StreamInfo, TrackedFrame
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.sink import Sink, check_output, open_sink
from facestream.pipeline.video.source import Source, open_source


@dataclass(frozen=True, slots=True)
class Job:
    """A file job. source: a path or URI. output: the anonymised video, None for records only. overwrite: replace an
    existing output."""

    source: str
    output: Path | None
    overwrite: bool = False


class Recorder(Protocol):
    """Receives every frame that leaves, with all its boxes."""

    def write(self, tracked: TrackedFrame, source: str) -> None: ...


@dataclass(slots=True)
class Report:
    """The result of a job. cpu_s: CPU seconds of the process meanwhile. lost: why the source ended early, if it did."""

    frames: int = 0
    face_boxes: int = 0
    tracks: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_rss_mb: float = 0.0
    warnings: tuple[str, ...] = ()
    lost: SourceLost | None = None

    def line(self) -> str:
        frames = max(1, self.frames)
        return (
            f"{self.frames} frames, {self.face_boxes} boxes over {self.tracks} tracks in {self.seconds:.1f} s: "
            f"{self.frames / max(self.seconds, 1e-9):.1f} frames/s, {self.cpu_s / frames:.4f} CPU s a frame, "
            f"peak memory {self.peak_rss_mb:.0f} MB"
        )


class Worker(threading.Thread):
    """A thread that keeps its exception and reports it."""

    def __init__(self, name: str, work: Callable[[], None], failed: Callable[[BaseException], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._failed = failed
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except Cancelled:
            pass
        except BaseException as e:
            self.error = e
            self._failed(e)


class Stages(Protocol):
    """The interface of `FacePipeline`, which detects faces, and `RecordReplay`, which reads them from records.

    push takes a frame and returns finished ones, in order; flush returns the rest.
    """

    def push(self, frame: Frame) -> list[TrackedFrame]: ...

    def flush(self) -> list[TrackedFrame]: ...


def run(job: Job, config: Config, detector: Detector, records: Recorder | None = None, progress: bool = True) -> Report:
    """Run one job with the detector; see `run_stages`."""
    ahead = ReadAhead.of(detector, config.detector)
    return run_stages(job, config, FacePipeline(ahead or detector, config), records, progress, ahead)


def run_stages(
    job: Job, config: Config, stages: Stages, records: Recorder | None = None, progress: bool = True,
    ahead: ReadAhead | None = None,
) -> Report:  # fmt: skip
    """Run one job. Raises UserError or KeyboardInterrupt; then nothing of the output is left.

    A source that fails after some frames is not an error: its frames are anonymised and kept, and the report says
    what is missing.
    """
    anonymizer = Anonymizer(config.cover, config.advanced.anonymise)
    if job.output is not None:
        check_output(job.output, config.encode.options(job.overwrite, config.decode.hardware), [job.source])
    options = SourceOptions(
        config.decode.threads,
        data=config.encode.keep_metadata,
        hardware=config.decode.hardware,
        max_picture_mb=config.decode.max_picture_mb,
    )
    source = open_source(job.source, options)
    decoded: Ring[StreamInfo | Frame | SidePacket] = Ring(config.anonymize.queue)
    covered: Ring[CoveredFrame | SidePacket] = Ring(config.anonymize.queue)
    started = time.perf_counter()
    cpu = time.process_time()
    report = Report()
    sink: Sink | None = None
    decoder = Worker("decoder", lambda: _decode(source, decoded), decoded.fail)
    encoder: Worker | None = None
    decoder.start()
    try:
        info = decoded.get()
        assert isinstance(info, StreamInfo)
        if job.output is not None:
            sink = open_sink(job.output, info, config.encode.options(job.overwrite, config.decode.hardware))
            encoder = _start_encoder(sink, covered)
        with _bar(info.frames, progress) as step:
            items = decoded if ahead is None else ahead.items(decoded)
            _drive(items, covered, stages, anonymizer, sink, records, info, report, step)
        covered.close()
        if encoder is not None:
            encoder.join()
            if encoder.error is not None:
                raise encoder.error
    except BaseException as e:
        decoded.cancel()
        covered.cancel()
        source.cancel()
        for worker in (decoder, encoder):
            if worker is not None:
                worker.join()
        if sink is not None:
            sink.abort()
        if isinstance(e, Cancelled) and encoder is not None and encoder.error is not None:
            raise encoder.error from None
        raise
    decoder.join()
    report.seconds = time.perf_counter() - started
    report.cpu_s = time.process_time() - cpu
    report.peak_rss_mb = peak_rss_mb()
    report.warnings = (*(sink.warnings if sink is not None else ()), *source.warnings)
    return report


def _decode(source: Source, ring: Ring[StreamInfo | Frame | SidePacket]) -> None:
    """Open, read and close on one thread: FFmpeg crashes when another one closes what is being read."""
    try:
        ring.put(source.open())
        for item in source.items():
            ring.put(item)
    finally:
        source.close()
    ring.close()


def _start_encoder(sink: Sink, ring: Ring[CoveredFrame | SidePacket]) -> Worker:
    def work() -> None:
        for item in ring:
            if isinstance(item, CoveredFrame):
                sink.write(item)
            else:
                sink.copy(item)
            del item  # a large picture, which would live until the next one comes
        sink.close()

    encoder = Worker("encoder", work, lambda _: ring.cancel())
    encoder.start()
    return encoder


def _drive(
    decoded: Iterable[StreamInfo | Frame | SidePacket], covered: Ring[CoveredFrame | SidePacket], stages: Stages,
    anonymizer: Anonymizer, sink: Sink | None, records: Recorder | None, info: StreamInfo, report: Report,
    step: Callable[[], object],
) -> None:  # fmt: skip
    """Take what is decoded through the line until it ends; a lost source ends it too."""
    tracks: set[int] = set()

    def leave(done: list[TrackedFrame]) -> None:
        for tracked in done:
            if records is not None:
                records.write(tracked, info.source)
            report.frames += 1
            report.face_boxes += len(tracked.boxes)
            tracks.update(box.id for box in tracked.boxes if box.state is BoxState.OBSERVED)
            if sink is not None:
                covered.put(anonymizer.cover(tracked))
            step()

    try:
        for item in decoded:
            if isinstance(item, Frame):
                leave(stages.push(item))
            elif isinstance(item, SidePacket) and sink is not None:
                covered.put(item)
    except SourceLost as e:
        report.lost = e
    leave(stages.flush())
    report.tracks = len(tracks)


@contextmanager
def _bar(frames: int | None, progress: bool) -> Iterator[Callable[[], object]]:
    """A progress bar on a terminal; gives what is to be called after each frame."""
    if not progress or not sys.stderr.isatty():
        yield lambda: None
        return
    from tqdm import tqdm  # without a terminal its import is spared

    with tqdm(total=frames, unit="frame", dynamic_ncols=True) as bar:
        yield bar.update
