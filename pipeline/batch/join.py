"""Joins encoded segments of a video into one file, with the source's audio and subtitles."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import av.container
from facestream.pipeline.config import Config
from facestream.pipeline.errors import BadInput, SinkLost
from facestream.pipeline.run import Job
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.types import Frame, StreamInfo, TrackedFrame
from facestream.pipeline.video.decode import Packet
from facestream.pipeline.video.encode import add_video, container_for, container_options, encoder_for, for_encoder
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.output import Temporary
from facestream.pipeline.video.sink import FileSink, check_output
from facestream.pipeline.video.source import VideoSource
from facestream.pipeline.video.uri import parse


class SegmentMismatch(Exception):
    """Segments that do not fit together."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """An encoded picture; times in units of the source's stream."""

    data: bytes
    pts: int
    dts: int
    duration: int
    key: bool


@dataclass(frozen=True, slots=True)
class Encoded:
    """A segment. extradata: what a decoder must know before the first picture."""

    chunks: tuple[Chunk, ...]
    extradata: bytes


def encode(job: Job, tracked: Iterator[TrackedFrame], config: Config) -> Encoded:
    """Cover and encode a segment's frames."""
    assert job.output is not None
    info, _ = _first_frame(job, config)
    options = config.encode.options(job.overwrite)
    container = container_for(job.output)
    encoder = encoder_for(container, info, options)
    anonymizer = Anonymizer(config.cover, config.advanced.anonymise)
    chunks: list[Chunk] = []
    stream = None
    template_container = av.open(
        io.BytesIO(), "w", format=container.format, container_options=container_options(container, info)
    )
    try:
        for frame in tracked:
            picture = anonymizer.cover(frame).picture
            alpha = frame.frame.alpha
            if stream is None:
                stream = add_video(template_container, container, encoder, info, picture, options)
                template_container.start_encoding()
            chunks += map(_chunk, stream.encode(for_encoder(picture, stream, alpha)))
        if stream is None:
            raise SegmentMismatch("a segment is empty")
        chunks += map(_chunk, stream.encode(None))
        return Encoded(tuple(chunks), bytes(stream.codec_context.extradata or b""))
    except (av.FFmpegError, ValueError) as e:
        raise SinkLost(f"encoding failed: {e}", str(job.output)) from None
    finally:
        with contextlib.suppress(av.FFmpegError, ValueError):
            template_container.close()


def join(job: Job, config: Config, segments: Iterable[Encoded]) -> list[str]:
    """Write the output; returns the warnings. Raises SegmentMismatch, SinkLost, BadInput; leaves nothing then."""
    assert job.output is not None
    options = config.encode.options(job.overwrite)
    target = check_output(job.output, options, [job.source])
    info, first = _first_frame(job, config)
    container = container_for(target)
    sink = Joined(Temporary(target), container, encoder_for(container, info, options), info, options)
    source = VideoSource(parse(job.source), _options(config))
    try:
        source.open()
        chunks = sink.begin(first, iter(segments))
        waiting = next(chunks, None)
        for side in source.side_packets():
            packet = side.packet
            at = packet.dts if packet.dts is not None else packet.pts
            while waiting is not None and (at is None or waiting.dts * info.time_base <= at * packet.time_base):
                sink.mux(waiting)
                waiting = next(chunks, None)
            sink.copy(side)
        while waiting is not None:
            sink.mux(waiting)
            waiting = next(chunks, None)
        sink.close()
    except BaseException:
        sink.abort()
        raise
    finally:
        source.close()
    return sink.warnings


class Joined(FileSink):
    """A sink for video that is encoded already."""

    def begin(self, first: Frame, segments: Iterator[Encoded]) -> Iterator[Chunk]:
        """Write the header; gives the segments' pictures, for mux(). first: tells the format, and no more."""
        segment = next(segments)
        self._start(first.picture)
        if bytes(self._video.codec_context.extradata or b"") != segment.extradata:
            raise SegmentMismatch("the segments have another header")
        return self._chunks(segment, segments)

    def _chunks(self, segment: Encoded, rest: Iterator[Encoded]) -> Iterator[Chunk]:
        header = segment.extradata
        last: int | None = None
        while True:
            for chunk in segment.chunks:
                if last is not None and chunk.dts <= last:  # an encoder counts back from its first picture
                    chunk = Chunk(chunk.data, chunk.pts, last + 1, chunk.duration, chunk.key)
                if chunk.dts > chunk.pts:
                    raise SegmentMismatch("the segments' times leave no room at their ends")
                last = chunk.dts
                yield chunk
            following = next(rest, None)
            if following is None:
                return
            segment = following
            if segment.extradata != header:
                raise SegmentMismatch("the segments have another header")

    def mux(self, chunk: Chunk) -> None:
        packet: Packet = av.Packet(chunk.data)
        packet.stream, packet.time_base = self._video, Fraction(self._info.time_base)
        packet.pts = chunk.pts
        packet.dts = chunk.dts
        packet.duration = chunk.duration
        packet.is_keyframe = chunk.key
        try:
            self._mux_video(packet)
        except (av.FFmpegError, ValueError) as error:
            raise self._lost(error) from None

    def _drain(self) -> None:
        """Nothing to flush: the encoder is only used for the header."""


def _first_frame(job: Job, config: Config) -> tuple[StreamInfo, Frame]:
    """The source's properties, and its first frame."""
    source = VideoSource(parse(job.source), _options(config))
    try:
        info = source.open()
        first = next(item for item in source.items() if isinstance(item, Frame))
    finally:
        source.close()
    return info, first


def _options(config: Config) -> SourceOptions:
    return SourceOptions(threads=config.decode.threads, data=config.encode.keep_metadata)


def _chunk(packet: Packet) -> Chunk:
    if packet.pts is None or packet.dts is None:
        raise BadInput("the encoder gives pictures without a time", "encode.codec", "choose another codec")
    return Chunk(bytes(packet), packet.pts, packet.dts, packet.duration or 0, bool(packet.is_keyframe))
