"""Selects a container's video stream, and copies its other streams."""

from __future__ import annotations

from fractions import Fraction

import av
import av.container
import av.stream
from facestream.pipeline.errors import BadInput
from facestream.pipeline.video.codec_headers import rebuilt, without_tags
from facestream.pipeline.video.container_metadata import text_metadata, without_pictures
from facestream.pipeline.video.decode import Packet
from facestream.pipeline.video.uri import Uri

# An AVI names a block size for its sound that makes FFmpeg write constant-rate sound into another, and PyAV cannot
# clear it. A stream set up for an encoder has none; the encoder never runs.
_AVI_ENCODERS = {"mp3": "libmp3lame", "ac3": "ac3", "aac": "aac"}
# By FFmpeg's names. Others hold new headers, tags, pictures beside the sound.
_KEPT_SIDE_DATA = ("skip_samples", "webvtt_settings")
_KEPT_METADATA = ("language",)  # everything else may identify people, places and devices


def best_video(container: av.container.InputContainer, uri: Uri) -> av.VideoStream:
    """The video stream to process: FFmpeg's own choice, never cover art. Raises BadInput if there is none."""
    if container.format.name == "tty":  # FFmpeg renders any text file as a video of a terminal
        raise BadInput("it is text, not a video", uri.redacted)
    attached = av.stream.Disposition.attached_pic
    films = [stream for stream in container.streams.video if not stream.disposition & attached]
    if not films:
        raise BadInput("there is no video stream in it", uri.redacted)
    best = container.streams.best("video")
    if best not in films:
        best = max(films, key=lambda film: film.codec_context.width if film.codec_context else 0)
    assert isinstance(best, av.VideoStream)
    if best.codec_context is None:
        raise BadInput("there is no decoder for its video", uri.redacted, "convert it with ffmpeg first")
    return best


def clone(template_container: av.container.OutputContainer, stream: av.stream.Stream) -> av.stream.Stream:
    """A stream of a separate container with another stream's parameters, for use after that one is closed."""
    twin = template_container.add_stream_from_template(stream, opaque=True)
    twin.metadata.update(stream.metadata)
    twin.disposition = stream.disposition
    if isinstance(stream, av.VideoStream) and isinstance(twin, av.VideoStream) and stream.sample_aspect_ratio:
        twin.codec_context.sample_aspect_ratio = stream.sample_aspect_ratio  # the container's word beats the codec's
    return twin


def is_regenerated(stream: av.stream.Stream, container: av.container.InputContainer, keep_text: bool) -> bool:
    """Data streams that MP4's muxer writes by itself: the chapters' titles, and the time code with keep_text."""
    if stream.type != "data":
        return False
    if getattr(stream, "name", "") == "bin_data" and container.chapters():
        return True
    return keep_text and "timecode" in stream.metadata


def add_side(
    output: av.container.OutputContainer, template: av.stream.Stream, kind: str, keep_text: bool
) -> av.stream.Stream:
    """A stream for the packets of `template`; kind: the container. keep_text: with all its tags, not only the language.

    Raises ValueError where the codec's header cannot be made anew without what else it may hold.
    """
    encoder = None
    if kind == "avi" and template.codec_context is not None:
        encoder = _AVI_ENCODERS.get(template.codec_context.codec.canonical_name)
    stream: av.stream.Stream
    if encoder is not None and isinstance(template, av.AudioStream):
        stream = output.add_stream(encoder, rate=template.codec_context.sample_rate, layout=template.layout)
    else:
        stream = output.add_stream_from_template(template)
        codec = template.codec_context
        if codec is not None and codec.extradata:
            stream.codec_context.extradata = rebuilt(codec.codec.canonical_name, bytes(codec.extradata))
    label(stream, template, keep_text)
    return stream


def label(stream: av.stream.Stream, template: av.stream.Stream, keep_text: bool) -> None:
    """Copy another stream's language and roles to a stream; keep_text: all its tags."""
    kept = text_metadata(template.metadata.items())
    stream.metadata.update({key: text for key, text in kept.items() if keep_text or key in _KEPT_METADATA})
    stream.disposition = template.disposition


def is_filler(packet: Packet, stream: av.stream.Stream) -> bool:
    """MP4 fills the time between two subtitles with empty ones; its muxer makes them anew."""
    return packet.size == 2 and stream.type == "subtitle" and stream.codec_context.name == "mov_text"


def copied(packet: Packet, stream: av.stream.Stream, shift: Fraction) -> Packet | None:
    """A packet with the same bytes and times for another stream; muxing changes the packet it is given. None for a
    packet of timed metadata that holds a picture, and for one of sound that holds only tags; of the side data only what
    a player needs comes along."""
    data: bytes | None = bytes(packet)
    if stream.type == "audio":
        data = without_tags(stream.codec_context.codec.canonical_name, bytes(packet)) or None
    elif stream.type not in ("video", "subtitle"):
        data = without_pictures(bytes(packet))
    if data is None:
        return None
    copy: Packet = av.Packet(data)
    copy.stream = stream
    copy.time_base = packet.time_base
    offset = round(shift / packet.time_base)
    dts = packet.dts if packet.dts is not None else packet.pts
    copy.pts = None if packet.pts is None else packet.pts - offset
    copy.dts = None if dts is None else dts - offset
    copy.duration = packet.duration
    copy.is_keyframe = packet.is_keyframe
    for side in packet.iter_sidedata():
        if side.data_type in _KEPT_SIDE_DATA:
            copy.set_sidedata(side)
    return copy
