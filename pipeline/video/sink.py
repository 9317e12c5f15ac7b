"""Covered frames into a file, with the source's sound and subtitles beside them.

The file is written under a hidden name in the folder it belongs in and gets its own name when it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import av
import av.container
import av.stream
import numpy as np
from facestream.pipeline.errors import BadInput, SinkLost
from facestream.pipeline.types import CoveredFrame, SidePacket, StreamInfo
from facestream.pipeline.url import redact
from facestream.pipeline.video.audio import NAMES, AudioTranscoder, encoder_of
from facestream.pipeline.video.container_metadata import HOLD_ATTACHMENTS, HOLD_CHAPTERS, add_chapters, text_metadata
from facestream.pipeline.video.decode import Packet
from facestream.pipeline.video.encode import (
    CONTAINERS,
    Container,
    EncodeOptions,
    add_video,
    as_stored,
    container_for,
    container_options,
    encoder_for,
    for_encoder,
)
from facestream.pipeline.video.hardware import HARDWARE
from facestream.pipeline.video.marks import Marks, mark
from facestream.pipeline.video.output import Temporary, check
from facestream.pipeline.video.picture import duplicate
from facestream.pipeline.video.pipes import STDOUT, StandardOutput
from facestream.pipeline.video.planes import upright, upright_picture
from facestream.pipeline.video.streams import add_side, copied, is_filler, label
from facestream.pipeline.video.telemetry import has_place, text_of
from facestream.pipeline.video.uri import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from facestream.pipeline.video.still import ImageSink

# A file that starts later than this starts at zero in another container: some store the wait as a blank picture.
_LATE_START_S = 10
_MPEG_AUDIO = {"mp1", "mp2", "mp3"}  # one stream type in MPEG-TS, told apart by their packets
_UNMARKED = ("libvpx-vp9", "libsvtav1")  # whose pixel aspect ratio does not reach Matroska's muxer
# Encoders that write the closed captions of the frames they are given.
_CAPTIONING = ("libx264", "h264_nvenc", "hevc_nvenc", "h264_qsv", "h264_videotoolbox", "hevc_videotoolbox")
_MOST_DELAY_S = 600  # by which a picture may be stored before it is shown
_NO_ROOM = {errno.ENOSPC: "the disk is full", errno.EFBIG: "the file grew too large", errno.EDQUOT: "over the quota"}


class Sink(Protocol):
    """Takes covered frames and side packets. After the last one call close(), after a failure abort()."""

    warnings: list[str]

    def write(self, covered: CoveredFrame) -> None: ...

    def copy(self, packet: SidePacket) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


def open_sink(
    path: str | os.PathLike[str], info: StreamInfo, options: EncodeOptions | None = None
) -> FileSink | ImageSink:
    """A sink for one file, its temporary file made.

    Raises BadInput for a path that cannot be written, see check_output(), and BadConfig for options that cannot be met.
    """
    options = options or EncodeOptions()
    target = check_output(path, options, [info.source])
    if target == STDOUT:
        container = CONTAINERS[
            ".ts" if info.container == "mpegts" and options.codec in (None, "h264", "hevc") else ".mkv"
        ]
        return FileSink(StandardOutput(), container, encoder_for(container, info, options), info, options)
    if target.suffix.lower() in IMAGE_SUFFIXES:
        if info.still is None:
            raise BadInput("a video cannot be written as a picture", str(target), "name a video file, as out.mp4")
        from facestream.pipeline.video.still import ImageSink  # which takes Pillow: for videos it is spared

        return ImageSink(Temporary(target), info)
    container = container_for(target)
    encoder = encoder_for(container, info, options)
    return FileSink(Temporary(target), container, encoder, info, options)


def check_output(
    path: str | os.PathLike[str], options: EncodeOptions, inputs: Iterable[str | os.PathLike[str]] = ()
) -> Path:
    """The output's path, after all that can be known before any work starts. Raises BadInput."""
    target = Path(path)
    if target == STDOUT:
        return target
    if not os.path.isdir(target) and target.suffix.lower() not in IMAGE_SUFFIXES:
        container_for(target)
    check(target, options.overwrite, inputs)
    return target


class FileSink:
    """A video file.

    Time stamps stay the source's. What a container cannot hold of them: Matroska counts milliseconds, MPEG-TS and FLV
    cannot start below zero (all streams are moved together), AVI has one frame rate. Live sources start at zero.
    """

    def __init__(
        self,
        temporary: Temporary | StandardOutput,
        container: Container,
        encoder: str,
        info: StreamInfo,
        options: EncodeOptions,
    ) -> None:
        self.warnings: list[str] = [f"not copied: {what}" for what in info.left_out]
        self._path = temporary.target
        self._temporary = temporary
        self._info = as_stored(info, container.format)
        self._turns = self._info is not info
        self._kind = container
        self._encoder = encoder
        self._options = options
        self._output: av.container.OutputContainer | None = None
        self._side_streams: dict[int, av.stream.Stream] = {}
        self._to_encode: set[int] = set()
        self._encoded: dict[int, AudioTranscoder] = {}
        self._places = 0  # subtitles that hold coordinates
        self._unreadable = 0  # packets of timed metadata left out because a picture is in them
        self._holdable = [side for side in info.side_streams if self._plan(side)]
        self._note_extras()
        self._waiting: list[SidePacket] = []  # until the first frame tells what the header must say
        self._shift = Fraction(0)  # seconds taken off every time stamp
        self._last_pts: int | None = None
        self._last_dts: dict[int, int] = {}
        self._late = 0

    @property
    def unfinished(self) -> Path:
        """The file under the name that it has until it is complete."""
        return self._temporary.path

    def write(self, covered: CoveredFrame) -> None:
        """Encode a frame. Frames come in the order of their times; one that does not is moved just behind the last.

        Raises BadInput where the first frame cannot be encoded at all, SinkLost where the file cannot be written.
        """
        picture = covered.picture
        alpha = covered.tracked.frame.alpha
        if self._turns:
            picture = upright_picture(picture, covered.tracked.frame)
            alpha = None if alpha is None else np.ascontiguousarray(upright(alpha, covered.tracked.frame))
        if self._output is None:
            if picture.pts is None:  # a live source's first frame: where it belongs cannot be known
                return
            self._start(picture)
        picture = self._in_time(for_encoder(picture, self._video, alpha))
        try:
            for packet in self._video.encode(picture):
                self._mux_video(packet)
        except (av.FFmpegError, ValueError) as error:
            raise self._lost(error) from None

    def copy(self, packet: SidePacket) -> None:
        """Copy an audio or subtitle packet. The packet itself is left as it is, for other sinks. Raises SinkLost."""
        if self._output is None:
            self._waiting.append(packet)
            return
        index = packet.packet.stream_index
        if index in self._encoded:
            self._transcode(self._encoded[index], packet.packet)
            return
        stream = self._side_streams.get(index)
        if stream is None or is_filler(packet.packet, stream):
            return
        copy = copied(packet.packet, stream, self._shift)
        if copy is None:
            self._unreadable += stream.type != "audio"
            return
        if not self._in_order(copy):
            return
        if stream.type == "subtitle":
            self._places += has_place(text_of(bytes(packet.packet)))
        try:
            self._output.mux(copy)
        except (av.FFmpegError, ValueError) as error:
            raise self._lost(error) from None

    def _transcode(self, transcoder: AudioTranscoder, packet: Packet | None) -> None:
        assert self._output is not None
        try:
            for made in transcoder.encode(packet, self._shift):
                self._output.mux(made)
        except (av.FFmpegError, ValueError) as error:
            raise self._lost(error) from None

    def close(self) -> None:
        """Finish the file and give it its name. Raises SinkLost, and then leaves nothing, where that fails."""
        if self._output is None:
            self.abort()
            raise SinkLost("no frame arrived, nothing was written", str(self._path))
        try:
            self._drain()
            for transcoder in self._encoded.values():
                self._transcode(transcoder, None)
            self._output.close()
            self._mark()
            if self._path != STDOUT and not self._options.overwrite and self._path.exists():
                raise FileExistsError(errno.EEXIST, "another program wrote the output meanwhile")
            self._temporary.commit()
        except (av.FFmpegError, OSError, ValueError) as error:
            self.abort()
            raise self._lost(error) from None
        if self._places:
            self.warnings.append(f"{self._places} subtitles hold coordinates: read them before you publish")
        if self._unreadable:
            self.warnings.append(f"{self._unreadable} packets of timed metadata hold pictures and are left out")
        if self._late:
            self.warnings.append(f"{self._late} side packets came without a usable time and are left out")

    def _mark(self) -> None:
        """Write into the finished file how its pictures are to be shown, where the muxer does not."""
        info = self._info
        kind = self._kind.format
        marks = info.marks or Marks()
        matroska = kind in ("matroska", "webm")
        aspect = info.pixel_aspect if matroska and self._encoder in _UNMARKED and info.pixel_aspect != 1 else None
        if aspect is None and not marks:
            return
        can_mark = matroska or kind in ("mp4", "mov")
        if can_mark and self._path != STDOUT and mark(self._temporary.path, kind, aspect, marks):
            return
        lost = [f"pixel aspect ratio ({aspect})"] if aspect is not None else []
        if marks:
            lost.append("360-degree or stereoscopic projection")
        self.warnings.append(f"the {' and the '.join(lost)} is not marked in the output")

    def _drain(self) -> None:
        for packet in self._video.encode(None):
            self._mux_video(packet)

    def abort(self) -> None:
        """Leave nothing behind. May follow anything, and may be called twice."""
        if self._output is not None:
            with contextlib.suppress(av.FFmpegError, OSError, ValueError):  # the trailer of a file that goes anyway
                self._output.close()
        self._temporary.discard()

    def _start(self, picture: av.VideoFrame) -> None:
        """Write the header, now that a picture shows what is in it."""
        muxer = container_options(self._kind, self._info)
        if self._options.keep_metadata and self._kind.format in ("mp4", "mov"):
            muxer["movflags"] = muxer.get("movflags", "") + "+use_metadata_tags"
        output = av.open(os.fspath(self._temporary.path), "w", format=self._kind.format, container_options=muxer)
        try:
            self._video = add_video(output, self._kind, self._encoder, self._info, picture, self._options)
            for side in self._holdable:
                if side.index in self._to_encode:
                    self._encoded[side.index] = self._add_encoder(output, side)
                    continue
                self._side_streams[side.index] = add_side(output, side, self._kind.format, self._options.keep_metadata)
            self._start_shift(picture)
            self._add_extras(output)
            output.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            if getattr(error, "errno", None) in _NO_ROOM:
                raise self._lost(error) from None
            size = f"{picture.width}x{picture.height} {picture.format.name}"
            what = f"{self._encoder} cannot encode {size} into {self._kind.format} ({_reason(error)})"
            absent = "is its device there? Else " if self._encoder in HARDWARE else ""
            raise BadInput(what, str(self._path), f"{absent}choose another codec or suffix") from None
        self._output = output
        self._most_delay = round(_MOST_DELAY_S / self._info.time_base)
        waiting = self._waiting
        self._waiting = []
        for packet in waiting:
            self.copy(packet)

    def _start_shift(self, picture: av.VideoFrame) -> None:
        start = (picture.pts or 0) * self._info.time_base
        if self._info.live:
            self._shift = start
        elif start > _LATE_START_S and self._kind.format not in self._info.container.split(","):
            self.warnings.append(f"the source starts at {float(start):.0f} s; the output starts at 0")
            self._shift = start

    def _note_extras(self) -> None:
        """Say what the container or the encoder cannot hold of what stands beside the streams."""
        info = self._info
        kind = self._kind.format
        if info.chapters and kind not in HOLD_CHAPTERS:
            self.warnings.append(f"the chapters are left out: {kind} does not hold them")
        if info.attachments and kind not in HOLD_ATTACHMENTS:
            self.warnings.append(f"the attached fonts are left out: {kind} does not hold them")
        if info.hdr is not None and not info.hdr.params(self._encoder):
            self.warnings.append(f"the HDR light levels are left out: {self._encoder} does not write them")
        if info.captions and (self._turns or self._encoder not in _CAPTIONING):
            what = "rotated pixels have none" if self._turns else f"{self._encoder} does not write them"
            self.warnings.append(f"the closed captions are left out: {what}")
        if info.interlaced and self._encoder != "libx264":
            self.warnings.append(f"the interlaced pictures are not marked so: {self._encoder} does not do that")

    def _add_extras(self, output: av.container.OutputContainer) -> None:
        info = self._info
        if info.chapters and self._kind.format in HOLD_CHAPTERS:
            add_chapters(output, info.chapters, self._shift, self._options.keep_metadata)
        if self._kind.format in HOLD_ATTACHMENTS:
            for file in info.attachments:
                output.add_attachment(file.name, file.mimetype, file.data)
        if self._options.keep_metadata:
            output.metadata.update(text_metadata(info.metadata))
            if info.video is not None:
                self._video.metadata.update(text_metadata(info.video.metadata.items()))

    def _in_time(self, picture: av.VideoFrame) -> av.VideoFrame:
        """A picture with a time behind the last one's: encoders take no other."""
        pts = picture.pts
        last = self._last_pts
        if last is not None and (pts is None or pts <= last):
            pts = last + 1
            picture = duplicate(picture)  # the caller's may go to other sinks
            picture.pts = pts
        self._last_pts = pts
        return picture

    def _in_order(self, copy: Packet) -> bool:
        """Whether a side packet's time fits behind the last one's of its stream; notes it."""
        index = copy.stream_index
        dts = copy.dts
        if dts is not None and dts < 0 and self._shift:
            return False  # from before the first frame of a source whose clock starts anywhere
        last = self._last_dts.get(index)
        again = last is not None and dts is not None and (dts < last or (dts == last and copy.stream.type == "audio"))
        if dts is None or again:
            self._late += 1
            return False
        self._last_dts[index] = dts
        return True

    def _mux_video(self, packet: Packet) -> None:
        assert self._output is not None
        if self._shift:
            offset = round(self._shift / packet.time_base)
            packet.pts = (packet.pts or 0) - offset
            packet.dts = (packet.dts or 0) - offset
        if packet.pts is not None and packet.dts is not None and not 0 <= packet.pts - packet.dts < self._most_delay:
            packet.dts = packet.pts  # x265 makes one up where there is a single picture
        if self._kind.format == "avi":
            self._snap(packet)
        self._output.mux(packet)

    def _snap(self, packet: Packet) -> None:
        """Put a packet on AVI's grid, where two frames of a varying rate may fall on one point."""
        grid = self._video.time_base
        assert grid is not None
        tick = round((packet.dts or 0) * packet.time_base / grid)
        last = self._last_dts.get(self._video.index)
        tick = tick if last is None else max(tick, last + 1)
        self._last_dts[self._video.index] = tick
        packet.pts = packet.dts = tick
        packet.duration = 1
        packet.time_base = grid

    def _plan(self, side: av.stream.Stream) -> bool:
        """Whether a stream goes into the output, as it is or (`_to_encode`) encoded anew; says what does not."""
        name = side.codec_context.codec.canonical_name if side.codec_context is not None else str(side.index)
        kind = self._kind.format
        audio = self._options.audio
        if side.type != "audio":
            if not self._can_hold(side):
                self.warnings.append(f"the {name} {side.type} stream is left out: {kind} does not hold it")
                return False
            return True
        if audio == "drop":
            return False
        if audio == "keep" and self._can_hold(side):
            return True
        made = encoder_of(kind)
        if made is not None and side.index in self._info.audio_decoders and self._can_encode(side):
            self._to_encode.add(side.index)
            if audio == "keep":
                self.warnings.append(f"the {name} sound becomes {NAMES[made]}: {kind} does not hold it")
            return True
        why = f"{kind} does not hold it" if audio == "keep" or made is None else "it cannot be decoded here"
        if audio == "distort" and made is not None:
            why += ", and a voice must not go out as it is"
        self.warnings.append(f"the {name} audio stream is left out: {why}")
        return False

    def _can_hold(self, side: av.stream.Stream) -> bool:
        """Whether the container takes a stream: header, packets and trailer are written into memory and read again."""
        samples = self._info.samples.get(side.index, ())
        file = io.BytesIO()
        try:
            with av.open(file, "w", format=self._kind.format, options=dict(self._kind.options)) as trial:
                stream = add_side(trial, side, self._kind.format, False)
                trial.start_encoding()
                for packet in samples:
                    if (copy := copied(packet, stream, Fraction(0))) is not None and not is_filler(packet, stream):
                        trial.mux(copy)
            if side.type != "audio" or not samples:
                return True
            file.seek(0)
            with av.open(file) as back:
                decoder = back.streams.audio[0].codec_context
                assert side.codec_context is not None
                names = {decoder.codec.canonical_name, side.codec_context.codec.canonical_name} if decoder else {""}
                return (len(names) == 1 and "" not in names) or names <= _MPEG_AUDIO
        except (av.FFmpegError, ValueError, IndexError, OSError):
            return False

    def _can_encode(self, side: av.stream.Stream) -> bool:
        try:
            with av.open(io.BytesIO(), "w", format=self._kind.format) as trial:
                self._add_encoder(trial, side)
                trial.start_encoding()
            return True
        except (av.FFmpegError, ValueError):
            return False

    def _add_encoder(self, output: av.container.OutputContainer, side: av.stream.Stream) -> AudioTranscoder:
        distort = self._options.audio == "distort"
        transcoder = AudioTranscoder(output, self._kind.format, self._info.audio_decoders[side.index], distort)
        label(transcoder.stream, side, self._options.keep_metadata)
        return transcoder

    def _lost(self, error: Exception) -> SinkLost:
        return SinkLost(f"writing failed: {_reason(error)}", str(self._path))


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    return _NO_ROOM.get(number or 0) or redact(getattr(error, "strerror", None) or error)
