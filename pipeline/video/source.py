"""From a source's name to decoded frames, with the audio and subtitle packets that travel beside them.

open(), items() and close() of a source belong on one thread: closing a container while another thread reads from it is
a crash in FFmpeg, not an exception.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import av.container
import av.stream
from av.format import Flags as FormatFlags
from facestream.pipeline.errors import BadInput, SourceLost
from facestream.pipeline.types import Frame, SidePacket, StreamInfo
from facestream.pipeline.video import hardware, webcam
from facestream.pipeline.video.alpha import holds_alpha
from facestream.pipeline.video.container_metadata import (
    Attachment,
    attachment_of,
    chapters_of,
    has_captions,
    hdr_metadata_of,
    lost_hdr_metadata,
)
from facestream.pipeline.video.decode import Decoder, Packet, TimestampUnwrapper
from facestream.pipeline.video.marks import chroma_location_of, marks_of
from facestream.pipeline.video.options import SourceOptions, live_options
from facestream.pipeline.video.picture import display_matrix
from facestream.pipeline.video.pipes import PipeReader
from facestream.pipeline.video.streams import best_video, clone, is_regenerated
from facestream.pipeline.video.telemetry import is_telemetry, text_of
from facestream.pipeline.video.truncation import file_state, gif_loops, missing_bytes
from facestream.pipeline.video.uri import Kind, Uri, check_file, explain, is_still, parse

# Containers that say how long they are, and mean it: an end before that is a broken file.
_PROMISING = ("mov", "matroska")
# Packets of a subtitle and of an audio stream that are looked at before the work begins, and in how many of all.
_SAMPLE_TEXTS = 24
_SAMPLE_SOUNDS = 8
_SAMPLE_PACKETS = 4000
_DISCONTINUOUS: Any = FormatFlags.ts_discont.value  # formats whose times may begin anew
SEGMENTS = 5  # times the usual time-out for HLS, where nothing comes until the next segment is whole


class Source(Protocol):
    """Frames and side packets in the order in which they were stored."""

    uri: Uri

    @property
    def warnings(self) -> list[str]:
        """What was noticed while it was read."""
        ...

    def open(self) -> StreamInfo:
        """Open it and decode the first frame. Raises BadInput where no frame can be had."""
        ...

    def items(self) -> Iterator[Frame | SidePacket]:
        """Everything in it, once. Raises SourceLost after the last item where a part was missing or damaged."""
        ...

    def cancel(self) -> None:
        """Wait for nothing more: whoever reads it is woken. May be called from any thread."""
        ...

    def close(self) -> None:
        """Let go of it. May be called twice, or without open()."""
        ...


def open_source(uri: Uri | str | os.PathLike[str], options: SourceOptions | None = None) -> Source:
    """The source for a name, not open yet. Raises BadInput for a folder and for names that mean nothing."""
    uri = uri if isinstance(uri, Uri) else parse(uri)
    if uri.kind is Kind.FOLDER:
        raise BadInput("it is a folder, not a video", uri.redacted, "name one file in it")
    if uri.kind is Kind.IMAGE or (uri.kind is Kind.FILE and is_still(uri.path)):
        from facestream.pipeline.video.still import ImageSource  # which takes Pillow: for videos it is spared

        return ImageSource(uri, (options or SourceOptions()).max_picture_mb)
    return VideoSource(uri, options or SourceOptions())


class VideoSource:
    """A video file or a live source, through FFmpeg."""

    def __init__(self, uri: Uri, options: SourceOptions) -> None:
        self.uri = uri
        self._options = options
        self._file_state: tuple[int, int] | None = None
        self._container: av.container.InputContainer | None = None
        self._first: list[Frame | SidePacket] = []
        self._rest: Generator[Frame | SidePacket] | None = None
        self._live = self._may_end = False
        self._pipe: PipeReader | None = None
        self._fault = ""  # why reading ended before the end
        self._end: dict[int, Fraction] = {}  # seconds up to which each stream has been read
        self._step = Fraction(0)  # seconds that the last video packet lasts

    def open(self) -> StreamInfo:
        if self.uri.kind is Kind.FILE:
            check_file(Path(self.uri.text), self.uri.redacted)
            self._file_state = file_state(self.uri.path)
        try:
            self._container = self._open_container()
            return self._start(self._container)
        except av.FFmpegError as error:
            self.close()
            raise explain(error, self.uri) from None
        except BadInput:
            self.close()
            raise

    def _start(self, container: av.container.InputContainer) -> StreamInfo:
        self._video = best_video(container, self.uri)
        kind = self.uri.kind
        self._may_end = kind in (Kind.FILE, Kind.LAVFI, Kind.PIPE) or (
            kind is Kind.HTTP and container.duration is not None
        )
        self._live = not self._may_end or (kind is Kind.LAVFI and "realtime" in self.uri.text)
        reopen = self._open_container if kind is Kind.FILE else None
        self._decoder = Decoder(self._video, self._options.threads, self._live, reopen)
        self._film_end = None if self._live else _film_end(self._video)
        self._timestamps = TimestampUnwrapper(not self._live or bool(container.format.flags & _DISCONTINUOUS))
        self._clone_streams()
        self._rest = self._read()
        return self._info(self._read_first())

    def items(self) -> Iterator[Frame | SidePacket]:
        while self._first:
            yield self._first.pop(0)
        if self._rest is not None:
            yield from self._rest

    def side_packets(self) -> Iterator[SidePacket]:
        """In the place of items(): what travels beside the pictures, which are not decoded any more."""
        yield from (item for item in self._first if isinstance(item, SidePacket))
        self._first.clear()
        for packet in self._packets():
            if packet.stream_index != self._video.index:
                yield self._beside(packet)

    @property
    def warnings(self) -> list[str]:
        """What was noticed while it was read."""
        sizes = self._decoder.resized if self._container is not None or self._rest is not None else []
        return [f"the pictures' size changes to {', '.join(sizes)}: scaled to that of the first"] if sizes else []

    def close(self) -> None:
        if self._rest is not None:
            self._rest.close()  # who goes on reading gets the end, not a crash in a container that is gone
        if self._container is not None:
            self._container.close()
            self._container = None
        if self._pipe is not None:
            self._pipe.close()

    def cancel(self) -> None:
        """From any thread: wait for nothing more."""
        if self._pipe is not None:
            self._pipe.cancel()

    def _open_container(self) -> av.container.InputContainer:
        text = self.uri.text
        kind = self.uri.kind
        if kind is Kind.FILE:  # absolute, or FFmpeg takes what stands before a colon for a protocol
            return av.open(
                os.path.abspath(text), metadata_errors="replace", hwaccel=hardware.decoder(self._options.hardware)
            )
        if kind is Kind.LAVFI:
            return av.open(text, format="lavfi", metadata_errors="replace")
        if kind is Kind.PIPE:
            try:
                self._pipe = PipeReader(text)
            except (OSError, ValueError) as error:
                raise BadInput(f"it cannot be read ({getattr(error, 'strerror', None) or error})", text) from None
            return av.open(self._pipe, "r", metadata_errors="replace")
        options = live_options(self.uri, self._options)
        hls = text.partition("?")[0].endswith(".m3u8")
        container = self._open_live(text, options, SEGMENTS if hls else 1)
        if container.format.name == "hls" and not hls:  # by another name
            container.close()
            container = self._open_live(text, live_options(self.uri, self._options), SEGMENTS)
        return container

    def _open_live(self, text: str, options: dict[str, str], patience: int) -> av.container.InputContainer:
        timeout = (self._options.open_timeout_s, patience * self._options.read_timeout_s)
        if self.uri.kind is Kind.WEBCAM:
            file, kind = webcam.input_of(text)
            return av.open(file, format=kind, options=options, timeout=timeout)
        return av.open(
            text,
            options=options,
            timeout=timeout,
            metadata_errors="replace",
            hwaccel=hardware.decoder(self._options.hardware),
        )

    def _clone_streams(self) -> None:
        """Copy the streams' descriptions into a container of their own.

        A stream of a closed container points into freed memory, and sinks on other threads hold on to them.
        """
        assert self._container is not None
        template_container = av.open(os.devnull, "w", format="null")
        self._templates: dict[int, av.stream.Stream] = {}
        self._left_out: list[str] = []
        self._attachments: list[Attachment] = []
        wanted = ("audio", "subtitle", "data") if self._options.data else ("audio", "subtitle")
        self._audio_decoders: dict[int, av.AudioCodecContext] = {}
        self._samples = self._sample() if self.uri.kind is Kind.FILE else {}
        for stream in self._container.streams:
            if (file := attachment_of(stream, len(self._attachments) + 1)) is not None:
                self._attachments.append(file)
                continue
            if stream.type == "subtitle" and not self._options.data and self._is_telemetry(stream):
                self._left_out.append("a subtitle track with places (a drone's or camera's log)")
                stream.discard = av.stream.Discard.all
                continue
            if is_regenerated(stream, self._container, self._options.data):
                stream.discard = av.stream.Discard.all
                continue
            if stream.index == self._video.index or stream.type in wanted:
                try:
                    twin = clone(template_container, stream)
                    self._templates[stream.index] = twin
                    if isinstance(stream, av.AudioStream):
                        self._audio_decoders[twin.index] = stream.codec_context
                    continue
                except (av.FFmpegError, ValueError):  # no decoder: FFmpeg does not know its parameters either
                    pass
            self._left_out.append(_name_of(stream))
            stream.discard = av.stream.Discard.all

    def _sample(self) -> dict[int, tuple[Packet, ...]]:
        """The first packets of each audio and subtitle stream, read from the file on its own: they tell what a
        container can hold, and what is in a track, before anything is written."""
        found: dict[int, list[Packet]] = {}
        with (
            contextlib.suppress(av.FFmpegError, ValueError),
            av.open(os.path.abspath(self.uri.text), metadata_errors="replace") as again,
        ):
            wanted = [s for s in again.streams if s.type in ("audio", "subtitle") and s.codec_context is not None]
            for stream in again.streams:
                if stream not in wanted:
                    stream.discard = av.stream.Discard.all
            found = {stream.index: [] for stream in wanted}
            missing = {s.index: _SAMPLE_TEXTS if s.type == "subtitle" else _SAMPLE_SOUNDS for s in wanted}
            for packet, _ in zip(again.demux(wanted) if wanted else (), range(_SAMPLE_PACKETS), strict=False):
                if packet.size and missing.get(packet.stream_index, 0) > 0:
                    found[packet.stream_index].append(packet)
                    missing[packet.stream_index] -= 1
                if not any(missing.values()):
                    break
        return {index: tuple(packets) for index, packets in found.items()}

    def _is_telemetry(self, stream: av.stream.Stream) -> bool:
        names = [value for key, value in stream.metadata.items() if key.lower() in ("handler_name", "title", "name")]
        packets = self._samples.get(stream.index, ())
        return is_telemetry(names, [text_of(bytes(p)) for p in packets if p.size > 2])

    def _beside(self, packet: Packet) -> SidePacket:
        """A side packet, free of the container. Cameras' data lasts no longer than the film: what an edit list cuts off
        is still in the last packet's duration."""
        packet.stream = self._templates[packet.stream_index]
        if packet.stream.type == "data" and self._film_end is not None and packet.pts is not None and packet.time_base:
            left = round(self._film_end / packet.time_base) - packet.pts
            if 0 < left < (packet.duration or 0):
                packet.duration = left
        return SidePacket(packet)

    def _read_first(self) -> Frame:
        """Decode up to the first frame: only that tells the picture format, the rotation, and that there is one."""
        assert self._rest is not None
        try:
            for item in self._rest:
                self._first.append(item)
                if isinstance(item, Frame):
                    return item
        except SourceLost as lost:
            raise BadInput(f"no frame of it can be decoded ({lost.what})", self.uri.redacted) from None
        raise BadInput("there is no frame in it", self.uri.redacted)

    def _info(self, frame: Frame) -> StreamInfo:
        video = self._video
        container = self._container
        kind = self.uri.kind
        assert container is not None
        duration = _seconds(video.duration, video.time_base) or _seconds(container.duration, Fraction(1, av.time_base))
        rate = video.average_rate or video.guessed_rate
        frames = video.frames if "mov" in container.format.name else 0
        if not frames and duration and rate and not self._live:
            frames = round(duration * rate)
        return StreamInfo(
            source=self.uri.redacted,
            width=frame.size[0],
            height=frame.size[1],
            rotation=frame.rotation,
            time_base=frame.time_base,
            rate=Fraction(rate) if rate else None,
            frames=frames or None,
            live=self._live,
            video=self._templates[video.index],  # type: ignore[arg-type]
            side_streams=tuple(clone for index, clone in self._templates.items() if index != video.index),
            metadata=tuple(sorted(container.metadata.items())),
            matrix=display_matrix(frame.picture),
            left_out=(*self._left_out, *lost_hdr_metadata(frame.picture)),
            container=container.format.name,
            interlaced=bool(frame.picture.interlaced_frame),
            chapters=chapters_of(container),
            attachments=tuple(self._attachments),
            hdr=hdr_metadata_of(frame.picture),
            audio_decoders=self._audio_decoders,
            samples={self._templates[i].index: p for i, p in self._samples.items() if i in self._templates},
            alpha=frame.alpha is not None or holds_alpha(self._video.codec_context.pix_fmt or "gray"),
            loops=gif_loops(self.uri.path) if container.format.name == "gif" and kind is Kind.FILE else None,
            marks=marks_of(frame.picture) or None,
            chroma_location=chroma_location_of(video),
            captions=has_captions(frame.picture),
            pixel_aspect=Fraction(video.sample_aspect_ratio) if video.sample_aspect_ratio else None,
        )

    def _read(self) -> Generator[Frame | SidePacket]:
        for packet in self._packets():
            if packet.stream_index == self._video.index:
                yield from self._decoder.decode(packet)
            else:
                yield self._beside(packet)
        if not (self._live and self._fault):  # late pictures of a connection that broke are no sign of life
            yield from self._decoder.flush()
        if self._live and not self._may_end:
            raise SourceLost(self._fault or "the source went away", self.uri.redacted)
        if trouble := self._trouble():
            raise SourceLost(trouble, self.uri.redacted, "what could be decoded was used")

    def _packets(self) -> Iterator[Packet]:
        """Every packet. Goes on after an error for as long as that yields packets; the error is noted."""
        assert self._container is not None
        wanted = [stream for stream in self._container.streams if stream.index in self._templates]
        moved = True
        while moved:
            moved = False
            try:
                for packet in self._container.demux(wanted):
                    if packet.size == 0 and packet.dts is None:
                        continue  # PyAV's sign to flush: _read() does that, also after an error
                    moved = True
                    if self._live and self._options.interrupt_callback is not None:
                        self._options.interrupt_callback()
                    self._timestamps.unwrap(packet)
                    if self._timestamps.found:
                        self._decoder.reopen = None  # its times are not the file's any more
                    self._note_end(packet)
                    yield packet
                return
            except av.FFmpegError as error:
                self._fault = explain(error, self.uri, opened=True).what
                if self._live:
                    return

    def _note_end(self, packet: Packet) -> None:
        start = packet.pts if packet.pts is not None else packet.dts
        if start is None or not packet.time_base:
            return
        length = Fraction(packet.duration or 0) * packet.time_base
        end = start * packet.time_base + length
        self._end[packet.stream_index] = max(end, self._end.get(packet.stream_index, end))
        if packet.stream_index == self._video.index:
            self._step = length

    def _trouble(self) -> str:
        """One phrase about everything that was missing or damaged, empty when nothing was."""
        parts = []
        if self._fault:
            parts.append(f"reading failed: {self._fault}")
        elif (short := self._missing()) is not None:
            parts.append(f"it is cut off: {float(short):.1f} s are missing at the end")
        elif self.uri.kind is Kind.FILE and (lost_bytes := missing_bytes(self.uri.path)):
            parts.append(f"it is cut off: {lost_bytes} bytes are missing at the end")
        if self._file_state is not None and file_state(self.uri.path) != self._file_state:
            parts.append("it was changed while it was read: is it still being written?")
        if lost := self._decoder.undecodable:
            parts.append(f"{lost} frame{'s' * (lost > 1)} could not be decoded")
        if damaged := self._decoder.damaged:
            parts.append(f"{damaged} frame{'s' * (damaged > 1)} came out damaged")
        return "; ".join(parts)

    def _missing(self) -> Fraction | None:
        """Seconds between where the packets ended and where the container says they should, None when that is fine."""
        assert self._container is not None
        if not self._container.format.name.startswith(_PROMISING) or self._live:
            return None
        end = self._end.get(self._video.index, Fraction(0))
        slack = max(2 * self._step, Fraction(1, 10))
        matroska = "matroska" in self._container.format.name  # a track's duration is the whole file's there
        if (tag := _clock(self._video.metadata.get("DURATION", ""))) is not None:
            promised = tag
        elif self._video.duration is not None and self._video.time_base is not None and not matroska:
            promised = (self._video.duration + (self._video.start_time or 0)) * self._video.time_base
        elif self._container.duration is not None:  # of the longest stream
            promised = Fraction(self._container.duration, av.time_base)
            end = max(self._end.values(), default=end)
            slack = Fraction(1)
        else:
            return None
        return promised - end if promised - end > slack else None


def _name_of(stream: av.stream.Stream) -> str:
    """A stream in words, for what is not copied of it."""
    if stream.disposition & av.stream.Disposition.attached_pic:
        return "a cover picture"
    if stream.type == "attachment":
        return "an attached file that is no font"
    article = "an" if stream.type[0] in "aeiou" else "a"
    return f"{article} {stream.type} stream (#{stream.index})"


def _seconds(count: int | None, unit: Fraction | None) -> Fraction | None:
    return None if count is None or not unit else count * Fraction(unit)


def _clock(text: str) -> Fraction | None:
    """Seconds from Matroska's "00:01:02.500000000"."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", text)
    return None if match is None else int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3])


def _film_end(video: av.VideoStream) -> Fraction | None:
    """Seconds at which a video stream ends, None if its container does not say."""
    if video.start_time is None or video.duration is None or video.time_base is None:
        return None
    return (video.start_time + video.duration) * video.time_base
