"""Hardware decoders and encoders: which exist, which are usable here, and each encoder's options for quality and
speed."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import av
import av.codec.hwaccel
from av.codec.hwaccel import HWAccel
from facestream.pipeline.errors import BadConfig

# FFmpeg's device types that decode into host memory, and the suffix of their encoders ("": these need device frames).
DEVICES = {"cuda": "nvenc", "qsv": "qsv", "videotoolbox": "videotoolbox", "vaapi": "", "d3d11va": "amf"}

# FFmpeg's encoder name -> codec.
HARDWARE = {
    f"{codec}_{maker}": codec
    for maker, codecs in {
        "nvenc": ("h264", "hevc", "av1"),
        "qsv": ("h264", "hevc", "av1", "vp9"),
        "amf": ("h264", "hevc", "av1"),
        "videotoolbox": ("h264", "hevc"),
        "v4l2m2m": ("h264", "hevc"),
    }.items()
    for codec in codecs
}


def check(encoder: str) -> None:
    """Raises BadConfig for an encoder that this FFmpeg was built without. A missing device is found only on opening."""
    if encoder not in av.codecs_available:
        known = [name for name in HARDWARE if name in av.codecs_available]
        raise BadConfig(f"this FFmpeg was built without {encoder}", "codec", "it has " + " ".join(known))


def options(encoder: str, crf: float, speed: int) -> dict[str, str]:
    """The encoder's options for a quality (crf, on x264's scale) and a speed (0 to 8, fastest first)."""
    quality = f"{crf:.0f}"
    if encoder.endswith("_nvenc"):  # s12m_tc would write the frames' time code: when it was filmed
        return {"preset": f"p{1 + min(6, speed * 6 // 8)}", "rc": "vbr", "cq": quality, "b": "0", "s12m_tc": "0"}
    if encoder.endswith("_qsv"):
        return {
            "preset": ("veryfast", "faster", "fast", "medium", "slow")[min(4, speed // 2)],
            "global_quality": quality,
        }
    if encoder.endswith("_amf"):
        preset = ("speed", "balanced", "quality")[min(2, speed // 3)]
        return {"quality": preset, "rc": "cqp", "qp_i": quality, "qp_p": quality}
    if encoder.endswith("_videotoolbox"):
        return {"q:v": f"{max(1, min(100, 100 - 2 * crf)):.0f}", "realtime": "1" if speed < 3 else "0"}
    return {}


@cache
def missing(device: str) -> str:
    """Why a device type cannot decode here, empty if it can. Cached: the check is slow."""
    if device not in av.codec.hwaccel.hwdevices_available():
        return "this FFmpeg was built without it"
    try:
        HWAccel(device).create(av.Codec("h264", "r"))
    except (av.FFmpegError, NotImplementedError, RuntimeError) as error:
        reason = getattr(error, "strerror", "") or type(error).__name__
        return f"no such device answers ({reason})"
    return ""


def device_of(setting: str) -> str:
    """The device to use here for a setting of `decode.hardware`; empty: the CPU."""
    if setting == "auto":
        return next((device for device in DEVICES if not missing(device)), "")
    return "" if setting == "off" or missing(setting) else setting


def decoder(setting: str) -> HWAccel | None:
    """The hwaccel argument for av.open. Streams that the device does not support are decoded on the CPU."""
    device = device_of(setting)
    return HWAccel(device, allow_software_fallback=True) if device else None


@cache
def opens(encoder: str) -> bool:
    """Whether an encoder works here: only opening it shows that."""
    if encoder not in av.codecs_available:
        return False
    try:
        context = av.CodecContext.create(encoder, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.time_base = 320, 192, Fraction(1, 30)
        known = [kind.name for kind in av.Codec(encoder, "w").video_formats or ()]
        context.pix_fmt = "yuv420p" if "yuv420p" in known or not known else known[0]
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True


def encoder_of(setting: str, codec: str, otherwise: str) -> str:
    """The device's encoder for a codec (h264, hevc, ...), where it has one that works; else another."""
    device = device_of(setting)
    name = f"{codec}_{DEVICES.get(device) or 'none'}"
    return name if name in HARDWARE and opens(name) else otherwise


def describe(setting: str) -> str:
    """One line for the log about what the setting led to; empty when nothing was asked for."""
    if setting == "off":
        return ""
    device = device_of(setting)
    if not device:
        asked = ", ".join(f"{name}: {missing(name)}" for name in (DEVICES if setting == "auto" else [setting]))
        return f"decoding and encoding on the CPU ({asked})"
    made = [codec for codec in ("h264", "hevc", "av1") if encoder_of(setting, codec, "")]
    return f"decoding on {device}, encoding {', '.join(made) + ' there' if made else 'on the CPU'}"
