"""Which container, codec and pixel format an output gets, and a video stream set up for it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.container
import numpy as np
from av.codec.context import Flags
from facestream.engines.boxes import Array
from facestream.pipeline.cores import half_of_cores
from facestream.pipeline.errors import BadConfig, BadInput
from facestream.pipeline.types import StreamInfo
from facestream.pipeline.video import hardware
from facestream.pipeline.video.alpha import flattened, with_alpha
from facestream.pipeline.video.picture import convert, is_subsampled_both_ways, orientation_of


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """codec: h264, hevc, vp9, av1, an encoder of hardware.HARDWARE, or None for the source's own where we can write it.

    crf: CRF on x264's scale, lower is better; other codecs get the value of about the same look.
    preset: x264's names, ultrafast to veryslow, or auto, see x264_options(). threads: 0: as many as pay.
    overwrite: replace an existing output. keep_metadata: text and data streams that may say who, where and with what.
    hardware: a setting of decode.hardware. audio: keep (as it is; encoded anew where the container does not hold it),
    transcode, drop or distort (voices). chroma: 4:4:4 keeps that of RGB sources; auto makes them
    4:2:0, as players want it.
    """

    codec: str | None = None
    crf: float = 23
    preset: str = "auto"
    threads: int = 0
    overwrite: bool = False
    keep_metadata: bool = False
    hardware: str = "off"
    audio: str = "keep"
    chroma: str = "auto"


@dataclass(frozen=True, slots=True)
class Container:
    """A file format: FFmpeg's name for it, the codecs that we write into it (the first by default), its options."""

    format: str
    codecs: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()


_MP4 = Container("mp4", ("h264", "hevc", "av1", "vp9"))
_MPEGTS = Container("mpegts", ("h264", "hevc"))
_M2TS = Container("mpegts", ("h264", "hevc"), (("mpegts_m2ts_mode", "1"),))
CONTAINERS: dict[str, Container] = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": Container("mov", ("h264", "hevc")),
    ".3gp": Container("3gp", ("h264",)),
    # An encoder's priming puts the first sound before zero; FFmpeg would move all streams for that, by milliseconds.
    ".mkv": Container("matroska", ("h264", "hevc", "av1", "vp9"), (("avoid_negative_ts", "disabled"),)),
    ".webm": Container("webm", ("vp9", "av1")),
    ".avi": Container("avi", ("h264",)),
    ".flv": Container("flv", ("h264",)),
    ".ts": _MPEGTS,
    ".m2ts": _M2TS,
    ".mts": _M2TS,
    ".gif": Container("gif", ("gif",)),
}
HOLD_ORIENTATION = ("mp4", "mov", "3gp", "matroska", "webm")
ENCODERS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "av1": "libsvtav1", "gif": "gif"}
_LARGE = 1920 * 1088  # pixels
AUTO = "auto"
_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_ODD_CHROMA = {"yuv420p": "yuv444p", "yuvj420p": "yuvj444p", "yuv420p10le": "yuv444p10le", "nv12": "yuv444p"} | {
    "yuv422p": "yuv444p",
    "yuvj422p": "yuvj444p",
    "yuv422p10le": "yuv444p10le",
}


def container_for(path: Path) -> Container:
    """The container that a file name's suffix asks for. Raises BadInput for a suffix that means none."""
    found = CONTAINERS.get(path.suffix.lower())
    if found is None:
        what = f"{path.suffix} is not a format we write" if path.suffix else "the output has no suffix"
        raise BadInput(what, str(path), "known: " + " ".join(CONTAINERS))
    return found


def encoder_for(container: Container, info: StreamInfo, options: EncodeOptions) -> str:
    """The encoder's FFmpeg name: what the options ask for, else the source's codec, else the container's first.

    Raises BadConfig for a codec or preset that is unknown here, and for a codec that the container cannot hold.
    """
    if options.preset not in (AUTO, *_PRESETS):
        raise BadConfig(f"there is no preset {options.preset}", "preset", "known: " + " ".join((AUTO, *_PRESETS)))
    if options.codec is None:
        source = info.video.codec_context.codec.canonical_name if info.video is not None else ""
        return _encoder(source if source in container.codecs else container.codecs[0], options)
    made = hardware.HARDWARE.get(options.codec, options.codec)
    if made not in ENCODERS:
        raise BadConfig(f"there is no codec {options.codec}", "codec", "known: " + " ".join(ENCODERS))
    if made not in container.codecs:
        supported = ", ".join(container.codecs)
        raise BadConfig(f"{container.format} does not hold {options.codec} here", "codec", f"it holds {supported}")
    if options.codec in hardware.HARDWARE:
        hardware.check(options.codec)
        return options.codec
    return _encoder(options.codec, options)


def _encoder(codec: str, options: EncodeOptions) -> str:
    return hardware.encoder_of(options.hardware, codec, ENCODERS[codec])


def format_for(encoder: str, picture: av.VideoFrame, full_chroma: bool = False) -> str:
    """The pixel format to encode a picture in: its own where the encoder takes it.

    RGB becomes 4:2:0, or keeps its chroma where `full_chroma` asks for it. Else yuvj as yuv (tagged full range), a
    lower depth, less chroma, in this order, and 4:2:0 for nv12 and gray. x264 takes 4:2:0 and 4:2:2
    only in even sizes: an odd-sized picture becomes 4:4:4 and keeps its size.
    """
    name = picture.format.name
    known = {kind.name for kind in av.Codec(encoder, "w").video_formats or ()}
    if not known or "pal8" in known:
        return "pal8" if known else name
    if name == "gbrp" and not full_chroma:
        name = "yuv420p"
    if encoder in ("libx264", "libx265") and (picture.width % 2 or picture.height % 2):
        name = _ODD_CHROMA.get(name, name)
    depth = "12le" if "12le" in name else "10le" if "10le" in name else ""
    base = name.removesuffix(depth).replace("yuvj", "yuv")
    base = {"gbrp": "yuv444p", "nv12": "yuv420p", "gray": "yuv420p"}.get(base, base)
    chromas = [base, "yuv420p"] if base != "yuv420p" else [base]
    if depth and base == "yuv420p" and "p010le" in known:  # what graphics cards call ten bits
        return "p010le"
    depths = {"12le": ("12le", "10le", ""), "10le": ("10le", ""), "": ("",)}[depth]
    return next((f for f in (name, *(c + d for d in depths for c in chromas)) if f in known), "yuv420p")


def add_video(
    output: av.container.OutputContainer,
    container: Container,
    encoder: str,
    info: StreamInfo,
    picture: av.VideoFrame,
    options: EncodeOptions,
) -> av.VideoStream:
    """A video stream for pictures like this one: same size, colour tags, aspect ratio, time base and display matrix."""
    rate = info.rate or Fraction(30)
    chosen = _options(encoder, options, info)
    if container.format == "avi":  # it stores no presentation times
        chosen["bf"] = "0"
    format_name = format_for(encoder, picture, options.chroma == "4:4:4")
    if info.chroma_location is not None and is_subsampled_both_ways(format_name):
        chosen["chroma_sample_location"] = info.chroma_location
    stream = output.add_stream(encoder, rate=rate.limit_denominator(2**16), options=chosen)
    assert isinstance(stream, av.VideoStream)
    ctx = stream.codec_context
    ctx.width = picture.width
    ctx.height = picture.height
    ctx.pix_fmt = format_name
    if info.alpha and encoder == "libvpx-vp9":
        ctx.pix_fmt = "yuva420p"
        stream.metadata["alpha_mode"] = "1"
    # What a time stamp means is settled here, once: never the frame rate, which phones do not keep.
    ctx.time_base = info.time_base
    stream.time_base = 1 / rate if container.format == "avi" else info.time_base
    ctx.flags |= Flags.frame_duration  # else the last frame's length, and so the file's, is a guess
    ctx.thread_count = options.threads or _threads(encoder, options.preset, picture)
    tagged = picture if ctx.pix_fmt == "pal8" else convert(picture, ctx.pix_fmt.replace("yuva", "yuv"))
    ctx.color_range = tagged.color_range
    ctx.colorspace = tagged.colorspace
    ctx.color_primaries = tagged.color_primaries
    ctx.color_trc = tagged.color_trc
    if info.pixel_aspect is not None:
        ctx.sample_aspect_ratio = info.pixel_aspect
    if info.interlaced and encoder == "libx264":
        ctx.flags |= Flags.interlaced_dct | Flags.interlaced_me
        if info.video is not None:  # the container's word; x264 hears it from each picture
            ctx.field_order = info.video.codec_context.field_order
    if encoder == "libx265" and container.format in ("mp4", "mov"):
        ctx.codec_tag = "hvc1"  # Apple's players take no other
    if info.matrix is not None:
        stream.set_display_matrix(info.matrix)
    elif info.rotation:
        stream.set_display_rotation(info.rotation)
    return stream


def as_stored(info: StreamInfo, kind: str) -> StreamInfo:
    """A source's description as a container holds it: pictures are turned where that knows no orientation."""
    if kind in HOLD_ORIENTATION or orientation_of(info.matrix) == (0, False):
        return info
    aspect = info.pixel_aspect
    if aspect is not None and info.rotation in (90, 270):
        aspect = 1 / aspect
    return replace(info, matrix=None, rotation=0, pixel_aspect=aspect, chroma_location=None)


def container_options(container: Container, info: StreamInfo) -> dict[str, str]:
    """The muxer's options: among them the clock of the source's video, which mp4 would else choose by itself."""
    # Exact: no random numbers, so that the same work gives the same bytes, and no version of the program.
    options = {"fflags": "+bitexact"} | dict(container.options)
    if container.format == "gif" and info.loops is not None:
        options["loop"] = str(info.loops)
    if container.format in ("mp4", "mov", "3gp"):
        options["video_track_timescale"] = str(info.time_base.denominator)
        # The unit of edit lists, which hold the start time.
        options["movie_timescale"] = str(max(info.time_base.denominator, 1000))
    if info.live:  # what was written can be played before it is finished, and where it never is
        options["flush_packets"] = "1"
        if container.format in ("mp4", "mov"):
            options["movflags"] = "+frag_keyframe+delay_moov+default_base_moof"
            options["frag_duration"] = "1000000"  # microseconds
        elif container.format in ("matroska", "webm"):
            options["cluster_time_limit"] = "1000"  # milliseconds
    return options


def for_encoder(picture: av.VideoFrame, stream: av.VideoStream, alpha: Array | None = None) -> av.VideoFrame:
    """picture in the stream's pixel format, free of the source's frame types, which x264 would repeat. alpha: its
    opacity, which is kept where the format holds it; else the picture is laid on white."""
    name = stream.codec_context.pix_fmt
    assert name is not None
    if name == "pal8":
        picture = _palette(picture, alpha)
    elif name == "yuva420p":
        opaque = np.full((picture.height, picture.width), 255, np.uint8)
        picture = with_alpha(convert(picture, "yuv420p"), opaque if alpha is None else alpha)
    elif alpha is not None:
        picture = flattened(picture, alpha)
    if name in ("pal8", "yuva420p"):
        pass
    elif picture.format.name != name:
        picture = convert(picture, name)
    if picture.pict_type:
        picture.pict_type = 0
    return picture


def x264_options(preset: str, crf: float) -> dict[str, str]:
    """FFmpeg's options for x264 of a preset.

    auto: superfast, which has no look-ahead, with one of two frames: where the picture stands still that
    halves the file for little time. One B-frame in place of three: some per cent more bytes, a third less memory. No
    thread of its own for looking ahead, which would hold frames as well.
    """
    if preset != AUTO:
        return {"crf": f"{crf:g}", "preset": preset}
    params = "rc-lookahead=2:mbtree=1:sync-lookahead=0"
    return {"crf": f"{crf:g}", "preset": "superfast", "bf": "1", "x264-params": params}


def _threads(encoder: str, preset: str, picture: av.VideoFrame) -> int:
    """Encoder threads where none are asked for; 0 lets the encoder choose, which takes all cores.

    x264 splits a picture into slices for its threads, which costs a sixth more CPU; with `auto`, half of the cores are
    as fast as the detector, but for large pictures.
    """
    if encoder != "libx264" or preset != AUTO or picture.width * picture.height > _LARGE:
        return 0
    return half_of_cores()


def _options(encoder: str, options: EncodeOptions, info: StreamInfo) -> dict[str, str]:
    speed = _PRESETS.index("veryfast" if options.preset == AUTO else options.preset)
    crf = options.crf
    light = info.hdr.params(encoder) if info.hdr is not None else {}
    more = ":".join(f"{key}={value}" for key, value in light.items())
    if encoder == "libx264":
        chosen = x264_options(options.preset, crf)
        params = ":".join(filter(None, (chosen.get("x264-params"), more)))
        return chosen | ({"x264-params": params} if params else {})
    if encoder == "libx265":
        params = "log-level=error" + (f":{more}:hdr10=1" if more else "")
        if (
            options.preset == AUTO
        ):  # each frame thread and each frame of look-ahead holds pictures: 629 -> 382 MB at 1080p
            params += ":frame-threads=1:rc-lookahead=3:bframes=1"
        return {"crf": f"{min(crf + 3, 51):g}", "preset": _PRESETS[speed], "x265-params": params}
    if encoder == "libvpx-vp9":
        speed_options = {"deadline": "realtime" if speed < 4 else "good", "cpu-used": str(8 - speed)}
        return {"crf": f"{min(crf + 9, 63):.0f}", "b": "0", "row-mt": "1", **speed_options}
    if encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # errors only: it prints a banner otherwise
        speed_options = {"crf": f"{min(crf + 12, 63):.0f}", "preset": str(12 - speed)}
        return speed_options | ({"svtav1-params": more} if more else {})
    return hardware.options(encoder, crf, speed) if encoder in hardware.HARDWARE else {}


def _palette(picture: av.VideoFrame, alpha: Array | None) -> av.VideoFrame:
    """picture in the 256 colours that suit it best, which FFmpeg's own conversion does not look for. One of them is for
    what is more transparent than not."""
    from PIL import Image

    image = Image.fromarray(picture.to_ndarray(format="rgb24")).quantize(256 if alpha is None else 255)
    colours = np.zeros((256, 4), np.uint8)
    table = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    colours[:, 0] = 255
    colours[: len(table), 1:] = table
    indices = np.asarray(image)
    if alpha is not None:
        colours[255] = 0
        indices = np.where(alpha < 128, 255, indices).astype(np.uint8)
    indexed: Any = (indices, colours)
    new = av.VideoFrame.from_ndarray(indexed, format="pal8")
    new.pts = picture.pts
    new.time_base = picture.time_base
    new.duration = picture.duration
    return new
