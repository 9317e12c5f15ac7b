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
from facestream.pipeline.jobs.two_pass import first_pass
from facestream.pipeline.run import Job, Recorder, Report, run_stages
from facestream.pipeline.stages.chain import FacePipeline, policy_for
from facestream.pipeline.stages.detect import DetectionStage, FullFrameDetector
from facestream.pipeline.types import Box, Frame, TrackedFrame
from facestream.pipeline.video.decode import Decoder
from facestream.pipeline.video.planes import luma_view
from facestream.pipeline.video.sink import check_output
from facestream.pipeline.video.streams import best_video
from facestream.pipeline.video.uri import Kind, parse

# Containers with an index to seek by and times to rely on, and suffixes of those that segments are put together in.
_FROM = ("mov", "matroska")
_INTO = (".mp4", ".m4v", ".mov", ".mkv", ".webm")


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
    """The faces of a full frame at full and at reduced resolution, and a sum over its brightness.

    reduced: None where the policy never asks for it.
    """

    sum: int
    full: Detections
    reduced: Detections | None


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
        with av.open(os.path.abspath(uri.text), metadata_errors="replace") as container:
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
    with av.open(os.path.abspath(uri.text), metadata_errors="replace") as container:
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
    """The faces of each frame of a segment, by pts: at full and, where the policy may ask for it, at reduced
    resolution. Which ones count is decided by the pass over the whole."""
    detector = _detector(config.detector)
    full_frames = FullFrameDetector(detector, config.detector, config.advanced)
    reduces = policy_for(detector, config).looks_back
    rows: dict[int, FrameDetections] = {}
    for frame in frames(source, segment, config.decode.threads):
        assert frame.pts is not None
        full = full_frames.detect(frame, True)
        reduced = full_frames.detect(frame, False) if reduces else None
        rows[frame.pts] = FrameDetections(_sum(frame, config), full, reduced)
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
    keep_pixels: bool = False,
) -> Report:
    """Do one job in segments; see `run_stages` for what may be raised, and `NotSegmentable`: then nothing of the output
    is left, but records may have been written. keep_pixels: the recorder looks at the pictures."""
    assert job.output is not None
    check_output(job.output, config.encode.options(job.overwrite), [job.source])
    whole = first_pass(config) if two_pass else config
    rows = [executor.submit(detect_segment, job.source, segment, whole) for segment in segments]
    detector = _detector(whole.detector)
    # Where known faces are is known in the pass over the whole only: crops are its own work.
    full_frames = PrecomputedDetections((result() for result in rows), whole)
    detection = DetectionStage(detector, whole.detector, full_frames, whole.advanced)
    max_coast_s = config.tracker.coast_s if two_pass else None
    pipeline = FacePipeline(detector, whole, max_coast_s, detection=detection, keep_pixels=keep_pixels)
    dispatcher = SegmentDispatcher(
        segments, lambda segment, boxes: executor.submit(encode_segment, job, segment, boxes, config), records
    )
    report = run_stages(Job(job.source, None), config, pipeline, dispatcher, progress=False)
    if report.lost:
        raise NotSegmentable(str(report.lost))
    try:
        report.warnings = tuple(join(job, config, (made() for made in dispatcher.finish())))
    except SegmentMismatch as e:
        raise NotSegmentable(str(e)) from None
    return report


class PrecomputedDetections:
    """The faces of full frames, as they were found in the segments. rows: of each segment, in order."""

    def __init__(self, rows: Iterator[dict[int, FrameDetections]], config: Config) -> None:
        self._rows = rows
        self._config = config
        self._known: dict[int, FrameDetections] = {}

    def detect(self, frame: Frame, full_resolution: bool) -> Detections:
        """Faces in pixels of the displayed frame. Raises NotSegmentable for a frame that no segment has."""
        assert frame.pts is not None
        while (seen := self._known.get(frame.pts)) is None:
            more = next(self._rows, None)
            if more is None:
                raise NotSegmentable(f"no segment holds the picture at {frame.pts}")
            self._known = more
        if seen.sum != _sum(frame, self._config):
            raise NotSegmentable(f"the picture at {frame.pts} is another one in its segment")
        return seen.full if full_resolution or seen.reduced is None else seen.reduced


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


def _sum(frame: Frame, config: Config) -> int:
    return zlib.crc32(luma_view(frame, config.advanced.analyse.luma_side)[0].tobytes())


def _detector(config: DetectorConfig) -> Detector:
    return _loaded(config)


@lru_cache(maxsize=1)
def _loaded(config: DetectorConfig) -> Detector:
    """Once a process: the segments of all files have the same."""
    return load_detector(config.model, config.options())
