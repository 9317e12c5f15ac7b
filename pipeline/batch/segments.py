"""A long video cut at keyframes, so that many processes work on it at once, and put together again.

    detect each segment -> one pass over the whole: scenes, tracks, look-ahead -> cover and encode each segment -> join

What would change at a cut has none: scenes, tracks, ids and covers come from the one pass in the middle, which decodes
everything and takes the faces from the segments. Only the encoder begins anew with each segment.

Nothing is taken on trust: that a segment decodes to the same pictures as the whole is checked picture by picture, by a
sum over its brightness. Where anything differs, `NotSegmentable` says so and the file is to be done whole.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any, Protocol

import av
import av.stream
from facestream.engines.base import Detector
from facestream.engines.loader import load_detector
from facestream.engines.types import Detections
from facestream.pipeline.batch.join import Encoded, SegmentMismatch, encode, join
from facestream.pipeline.config import Config, DetectorConfig
from facestream.pipeline.jobs.two_pass import PixelFreePipeline, first_pass
from facestream.pipeline.run import Job, Recorder, Report, run_stages
from facestream.pipeline.stages.chain import LUMA
from facestream.pipeline.stages.detect import DetectionStage
from facestream.pipeline.types import Box, Frame, TrackedFrame
from facestream.pipeline.video.decode import Decoder
from facestream.pipeline.video.planes import luma_view
from facestream.pipeline.video.sink import check_output
from facestream.pipeline.video.streams import best_video
from facestream.pipeline.video.uri import Kind, parse

# Containers with an index to seek by and times to rely on, and suffixes of those that segments are put together in.
_FROM, _INTO = ("mov", "matroska"), (".mp4", ".m4v", ".mov", ".mkv", ".webm")


class NotSegmentable(Exception):
    """This file cannot be worked on in segments."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Pictures with a pts from start up to before end (None: to the last one), in units of the stream.

    seek: the pts of an earlier keyframe to begin decoding at, None for the file's beginning.
    """

    start: int
    end: int | None
    seek: int | None


@dataclass(frozen=True, slots=True)
class FrameDetections:
    """What was found in a picture by a fine and by a coarse look, and a sum over its brightness.

    coarse: None where all looks are fine ones.
    """

    sum: int
    fine: Detections
    coarse: Detections | None


class Executor(Protocol):
    """Who does the work: takes a call and gives back one that waits for its result."""

    def submit(self, do: Callable[..., Any], *arguments: Any) -> Callable[[], Any]: ...


def find_segments(job: Job, length_s: float) -> list[Segment]:
    """Segments of at least so many seconds, the last one of at least half of them; empty for a file that is better done
    whole: too short, without keyframes, or with times that cannot be relied on."""
    uri = parse(job.source)
    if uri.kind is not Kind.FILE or job.output is None or job.output.suffix.lower() not in _INTO:
        return []
    try:
        with av.open(os.path.abspath(uri.text)) as container:
            if not container.format.name.startswith(_FROM):
                return []
            video = best_video(container, uri)
            packets = [(p.pts, p.is_keyframe) for p in container.demux(video) if p.size]
            unit = Fraction(video.time_base or 1)
    except av.FFmpegError:
        return []
    times = sorted({pts for pts, _ in packets if pts is not None})
    if len(times) < len(packets):  # some have none, or the same
        return []
    length = max(1, round(Fraction(length_s) / unit))
    keys = sorted(pts for pts, key in packets if key and pts is not None)
    cuts = keys[:1]
    for key in keys:
        if key - cuts[-1] >= length and times[-1] - key >= length // 2:
            cuts.append(key)
    if len(cuts) < 2:
        return []
    seeks = [None, *(max(key for key in keys if key < cut) for cut in cuts[1:])]
    return [Segment(a, b, seek) for a, b, seek in zip(cuts, [*cuts[1:], None], seeks, strict=True)]


def frames(source: str, segment: Segment, threads: int) -> Iterator[Frame]:
    """A segment's frames, counted from its first. Decoding begins a keyframe early: pictures behind a keyframe may need
    some from before it."""
    uri = parse(source)
    with av.open(os.path.abspath(uri.text)) as container:
        video = best_video(container, uri)
        if segment.seek is not None:
            container.seek(segment.seek, stream=video)
        decoder = Decoder(video, threads, False, None)
        for frame in _decoded(container.demux(video), decoder):
            if frame.pts is None or (segment.end is not None and frame.pts >= segment.end):
                return
            if segment.seek is None or frame.pts >= segment.start:
                yield frame


def _decoded(packets: Iterator[Any], decoder: Decoder) -> Iterator[Frame]:
    for packet in packets:
        if packet.size:
            yield from decoder.decode(packet)
    yield from decoder.flush()


def detect_segment(source: str, segment: Segment, config: Config) -> dict[int, FrameDetections]:
    """What is in each picture of a segment, by pts. All are looked at, in both ways: which ones count is told by the
    whole."""
    eye = DetectionStage(_detector(config.detector), config.detector, config.tracker.lookahead)
    rows: dict[int, FrameDetections] = {}
    for frame in frames(source, segment, config.decode.threads):
        assert frame.pts is not None
        fine = eye.see(frame, True)
        rows[frame.pts] = FrameDetections(_sum(frame), fine, eye.see(frame, False) if eye.fine_every > 1 else None)
    return rows


def encode_segment(job: Job, segment: Segment, boxes: dict[int, tuple[Box, ...]], config: Config) -> Encoded:
    """A segment's pictures, covered and encoded. Raises NotSegmentable where they are not those of the boxes."""
    left = dict(boxes)

    def tracked() -> Iterator[TrackedFrame]:
        for frame in frames(job.source, segment, config.decode.threads):
            if frame.pts not in left:
                raise NotSegmentable(f"the picture at {frame.pts} is not in the whole")
            yield TrackedFrame(frame, left.pop(frame.pts))

    made = encode(job, tracked(), config)
    if left:
        raise NotSegmentable(f"{len(left)} pictures of a segment are missing")
    return made


def run_segments(
    job: Job,
    config: Config,
    segments: list[Segment],
    executor: Executor,
    two_pass: bool = False,
    records: Recorder | None = None,
) -> Report:
    """Do one job in segments; see `run_stages` for what may be raised, and `NotSegmentable`: then nothing of the output
    is left, but records may have been written."""
    assert job.output is not None
    check_output(job.output, config.encode.options(job.overwrite), [job.source])
    whole = first_pass(config) if two_pass else config
    looks = [executor.submit(detect_segment, job.source, segment, whole) for segment in segments]
    eye = PrecomputedDetections((look() for look in looks), whole)
    line = PixelFreePipeline(eye.detector, whole, config.tracker.coast_s if two_pass else None)
    line.eye = eye
    dispatcher = SegmentDispatcher(
        segments, lambda segment, boxes: executor.submit(encode_segment, job, segment, boxes, config), records
    )
    report = run_stages(Job(job.source, None), config, line, dispatcher, progress=False)
    if report.lost:
        raise NotSegmentable(str(report.lost))
    try:
        report.warnings = tuple(join(job, config, (made() for made in dispatcher.finish())))
    except SegmentMismatch as e:
        raise NotSegmentable(str(e)) from None
    return report


class PrecomputedDetections(DetectionStage):
    """Knows what is in a whole picture from those who looked at the segments. rows: theirs, in order.

    Where known faces are is told by the pass over the whole only, so it looks there itself.
    """

    def __init__(self, rows: Iterator[dict[int, FrameDetections]], config: Config) -> None:
        super().__init__(_detector(config.detector), config.detector, config.tracker.lookahead)
        self._rows, self._known = rows, dict[int, FrameDetections]()

    def see(self, frame: Frame, fine: bool) -> Detections:
        assert frame.pts is not None
        while (seen := self._known.get(frame.pts)) is None:
            more = next(self._rows, None)
            if more is None:
                raise NotSegmentable(f"no segment holds the picture at {frame.pts}")
            self._known = more
        if seen.sum != _sum(frame):
            raise NotSegmentable(f"the picture at {frame.pts} is another one in its segment")
        return seen.fine if fine or seen.coarse is None else seen.coarse


@dataclass(slots=True)
class SegmentDispatcher:
    """Takes the frames as they leave the whole pass, and hands out each segment's boxes when all are there."""

    segments: list[Segment]
    dispatch: Callable[[Segment, dict[int, tuple[Box, ...]]], Callable[[], Any]]
    records: Recorder | None
    dispatched: list[Callable[[], Any]] = field(default_factory=list)
    boxes: dict[int, tuple[Box, ...]] = field(default_factory=dict)

    def write(self, tracked: TrackedFrame, source: str) -> None:
        pts = tracked.frame.pts
        if pts is None:
            raise NotSegmentable("a picture has no time")
        while (end := self.segments[len(self.dispatched)].end) is not None and pts >= end:
            self._dispatch()
        self.boxes[pts] = tracked.boxes
        if self.records is not None:
            self.records.write(tracked, source)

    def finish(self) -> list[Callable[[], Any]]:
        while len(self.dispatched) < len(self.segments):
            self._dispatch()
        return self.dispatched

    def _dispatch(self) -> None:
        self.dispatched.append(self.dispatch(self.segments[len(self.dispatched)], self.boxes))
        self.boxes = {}


def _sum(frame: Frame) -> int:
    return zlib.crc32(luma_view(frame, LUMA)[0].tobytes())


def _detector(config: DetectorConfig) -> Detector:
    return _loaded(config)


@lru_cache(maxsize=1)
def _loaded(config: DetectorConfig) -> Detector:
    """Once a process: the segments of all files have the same."""
    return load_detector(config.model, config.options())
