"""A container's streams: which one is worked on, and how the others come along as they are."""

from __future__ import annotations

from fractions import Fraction

import av
import av.container
import av.stream
from facestream.pipeline.errors import BadInput
from facestream.pipeline.video.container_metadata import text_metadata
from facestream.pipeline.video.decode import Packet
from facestream.pipeline.video.uri import Uri

# An AVI names a block size for its sound that makes FFmpeg write constant-rate sound into another, and PyAV cannot
# clear it. A stream set up for an encoder has none; the encoder never runs.
_AVI_ENCODERS = {"mp3": "libmp3lame", "ac3": "ac3", "aac": "aac"}
_KEPT_METADATA = ("language",)  # all else may say who, where and with what


def best_video(container: av.container.InputContainer, uri: Uri) -> av.VideoStream:
    """The stream to work on: FFmpeg's own choice, never cover art. Raises BadInput where there is none."""
    if container.format.name == "tty":  # FFmpeg renders any text file as a film of a terminal
        raise BadInput("it is text, not a video", uri.shown)
    attached = av.stream.Disposition.attached_pic
    films = [stream for stream in container.streams.video if not stream.disposition & attached]
    if not films:
        raise BadInput("there is no video stream in it", uri.shown)
    best = container.streams.best("video")
    if best not in films:
        best = max(films, key=lambda film: film.codec_context.width if film.codec_context else 0)
    assert isinstance(best, av.VideoStream)
    if best.codec_context is None:
        raise BadInput("there is no decoder for its video", uri.shown, "convert it with ffmpeg first")
    return best


def clone(template_container: av.container.OutputContainer, stream: av.stream.Stream) -> av.stream.Stream:
    """A stream of an open container that only holds what is known of another one, for after that is closed."""
    twin = template_container.add_stream_from_template(stream, opaque=True)
    twin.metadata.update(stream.metadata)
    twin.disposition = stream.disposition
    if isinstance(stream, av.VideoStream) and isinstance(twin, av.VideoStream) and stream.sample_aspect_ratio:
        twin.codec_context.sample_aspect_ratio = stream.sample_aspect_ratio  # the container's word beats the codec's
    return twin


def is_regenerated(stream: av.stream.Stream, container: av.container.InputContainer, words: bool) -> bool:
    """Data streams that MP4's muxer writes by itself: the chapters' titles, and the time code where words are kept."""
    if stream.type != "data":
        return False
    if getattr(stream, "name", "") == "bin_data" and container.chapters():
        return True
    return words and "timecode" in stream.metadata


def add_side(
    output: av.container.OutputContainer, template: av.stream.Stream, kind: str, words: bool
) -> av.stream.Stream:
    """A stream for the packets of `template`; kind: the container. words: with all its tags, not only the language."""
    encoder = None
    if kind == "avi" and template.codec_context is not None:
        encoder = _AVI_ENCODERS.get(template.codec_context.codec.canonical_name)
    stream: av.stream.Stream
    if encoder is not None and isinstance(template, av.AudioStream):
        stream = output.add_stream(encoder, rate=template.codec_context.sample_rate, layout=template.layout)
    else:
        stream = output.add_stream_from_template(template)
    kept = text_metadata(template.metadata.items())
    stream.metadata.update({key: text for key, text in kept.items() if words or key in _KEPT_METADATA})
    stream.disposition = template.disposition
    return stream


def is_filler(packet: Packet, stream: av.stream.Stream) -> bool:
    """MP4 fills the time between two subtitles with empty ones; its muxer makes them anew."""
    return packet.size == 2 and stream.type == "subtitle" and stream.codec_context.name == "mov_text"


def copied(packet: Packet, stream: av.stream.Stream, shift: Fraction) -> Packet:
    """A packet with the same bytes, times and side data for another stream; muxing changes the packet it is given."""
    copy: Packet = av.Packet(bytes(packet))
    copy.stream = stream
    copy.time_base = packet.time_base
    offset = round(shift / packet.time_base)
    dts = packet.dts if packet.dts is not None else packet.pts
    copy.pts = None if packet.pts is None else packet.pts - offset
    copy.dts = None if dts is None else dts - offset
    copy.duration = packet.duration
    copy.is_keyframe = packet.is_keyframe
    for data in packet.iter_sidedata():
        copy.set_sidedata(data)
    return copy
