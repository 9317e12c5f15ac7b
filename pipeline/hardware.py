"""Encoders in graphics cards and mobile chips: which there are, and what quality and speed are called in each."""

from __future__ import annotations

import av

from pipeline.errors import BadConfig

# FFmpeg's name -> the codec it makes.
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
    """Raise BadConfig for an encoder that this FFmpeg was built without. Whether its device is there shows later."""
    if encoder not in av.codecs_available:
        known = [name for name in HARDWARE if name in av.codecs_available]
        raise BadConfig(f"this FFmpeg was built without {encoder}", "codec", "it has " + " ".join(known))


def options(encoder: str, crf: float, speed: int) -> dict[str, str]:
    """The encoder's own words for a quality (crf, x264's scale) and a speed (0 to 8, fastest first)."""
    quality = f"{crf:.0f}"
    if encoder.endswith("_nvenc"):
        return {"preset": f"p{1 + min(6, speed * 6 // 8)}", "rc": "vbr", "cq": quality, "b": "0"}
    if encoder.endswith("_qsv"):
        return {
            "preset": ("veryfast", "faster", "fast", "medium", "slow")[min(4, speed // 2)],
            "global_quality": quality,
        }
    if encoder.endswith("_amf"):
        pace = ("speed", "balanced", "quality")[min(2, speed // 3)]
        return {"quality": pace, "rc": "cqp", "qp_i": quality, "qp_p": quality}
    if encoder.endswith("_videotoolbox"):
        return {"q:v": f"{max(1, min(100, 100 - 2 * crf)):.0f}", "realtime": "1" if speed < 3 else "0"}
    return {}
