"""Low-latency H.264 encoding for players: no B-frames, no encoder look-ahead, a keyframe every second."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.video.reformatter import VideoReformatter
from facestream.pipeline.errors import BadConfig, SinkLost
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.types import CoveredFrame
from facestream.pipeline.video.picture import convert
from facestream.pipeline.video.planes import upright_picture

_I = 1  # FFmpeg's AV_PICTURE_TYPE_I
SHARE = 0.1  # bits a pixel at most, where no bit rate is given
# x264 by itself makes slices under zerolatency, which some relays take apart.
_X264 = {"tune": "zerolatency", "forced-idr": "1", "x264-params": "sliced-threads=0:threads=1:scenecut=0"}
_OTHERS = {
    "h264_nvenc": {"preset": "p2", "tune": "ull", "forced-idr": "1", "zerolatency": "1"},
    "h264_v4l2m2m": {},
    "h264_qsv": {"forced_idr": "1", "low_power": "1", "async_depth": "1"},
    "h264_amf": {"usage": "ultralowlatency"},
    "h264_videotoolbox": {"realtime": "1"},
}


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """encoder: FFmpeg's name of an H.264 encoder. bitrate: maximum kbit/s, 0 chooses by the frame size.
    crf, preset: x264's. gop_s: keyframe interval in seconds."""

    encoder: str = "libx264"
    bitrate: int = 0
    crf: float = 23
    preset: str = "ultrafast"
    gop_s: float = 1.0


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """An encoded frame: Annex B bytes, its time in units of clock.TICK, whether it is a keyframe."""

    data: bytes
    ticks: int
    key: bool


def check_encoder(name: str) -> None:
    """Raises BadConfig for an encoder that is not H.264 or not in this build of FFmpeg."""
    try:
        known = av.Codec(name, "w").canonical_name == "h264"
    except (av.FFmpegError, ValueError):
        known = False
    if not known:
        raise BadConfig(f"{name!r} is no H.264 encoder here", "run.encoder", "libx264 always is")


class LiveEncoder:
    """Encodes covered frames without delay.

    A new frame size gets a new encoder; the stream continues with new parameter sets.
    """

    def __init__(self, options: LiveOptions, rate: float) -> None:
        """rate: expected frames/s, 0 if unknown."""
        check_encoder(options.encoder)
        self.options = options
        self.rate = Fraction(rate or 30).limit_denominator(1001)
        self._context: Any = None
        self._shape: tuple[int, int] = (0, 0)
        self._last_key: int | None = None
        self._keyframe_requested = False

    def request_keyframe(self) -> None:
        """Request a keyframe, from any thread, for a new viewer. Requests within half a second are merged."""
        self._keyframe_requested = True

    def encode(self, covered: CoveredFrame) -> list[EncodedPicture]:
        """Encode a frame. Raises SinkLost if the encoder fails."""
        picture = to_stream_format(covered)
        if self._context is None or self._shape != (picture.width, picture.height):
            self._open(picture)
        ticks = picture.pts or 0
        age_s = float((ticks - self._last_key) * TICK) if self._last_key is not None else 1e9
        force = age_s >= self.options.gop_s or (self._keyframe_requested and age_s >= 0.5)
        picture.pict_type = _I if force else 0
        if force:
            self._last_key = ticks
            self._keyframe_requested = False
        try:
            return [EncodedPicture(bytes(p), p.pts or 0, bool(p.is_keyframe)) for p in self._context.encode(picture)]
        except (av.FFmpegError, ValueError) as error:
            self._context = None
            raise SinkLost(f"the encoder failed ({error})", self.options.encoder) from None

    def _open(self, picture: av.VideoFrame) -> None:
        options = self.options
        context: Any = av.CodecContext.create(options.encoder, "w")
        context.width = picture.width
        context.height = picture.height
        context.pix_fmt = "yuv420p"
        context.time_base = TICK
        context.framerate = self.rate
        context.gop_size = max(1, round(self.rate * 2 * max(1, round(options.gop_s))))  # ours come first
        context.max_b_frames = 0
        context.color_range = picture.color_range
        context.colorspace = picture.colorspace
        context.color_primaries = picture.color_primaries
        context.color_trc = picture.color_trc
        max_bits = options.bitrate * 1000 or int(picture.width * picture.height * self.rate * SHARE)
        if options.encoder == "libx264":
            context.options = {
                "preset": options.preset,
                "crf": f"{options.crf:g}",
                "maxrate": str(max_bits),
                "bufsize": str(max_bits),
                **_X264,
            }
        else:
            context.bit_rate = max_bits
            context.options = dict(_OTHERS.get(options.encoder, {}))
        try:
            context.open()
        except (av.FFmpegError, ValueError) as error:
            size = f"{picture.width}x{picture.height}"
            raise SinkLost(f"{options.encoder} cannot encode {size} ({error})", "run.encoder") from None
        self._context = context
        self._shape = (picture.width, picture.height)
        self._last_key = None


def to_stream_format(covered: CoveredFrame, scaler: VideoReformatter | None = None) -> av.VideoFrame:
    """The covered picture as every player takes it: 4:2:0, even sides, upright (RTP knows no rotation).

    scaler: as for picture.convert().
    """
    picture = covered.picture
    frame = covered.tracked.frame
    width = picture.width // 2 * 2
    height = picture.height // 2 * 2
    if (width, height) != (picture.width, picture.height):
        picture = (scaler or VideoReformatter()).reformat(picture, width=width, height=height, format="yuv420p")
    else:
        picture = convert(picture, "yuv420p", scaler)
    picture = upright_picture(picture, frame)
    picture.pts = frame.pts
    picture.time_base = frame.time_base
    return picture
