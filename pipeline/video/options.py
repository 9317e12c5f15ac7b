"""Options of a source, and the FFmpeg options that they become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from facestream.pipeline.video import webcam
from facestream.pipeline.video.uri import Kind, Uri

# Not nobuffer: it throws away what was read to find out what comes, the key picture that a camera begins with among it.
_LIVE_OPTIONS = {
    "flags": "low_delay",
    "probesize": "500000",
    "analyzeduration": "500000",
    "export_side_data": "prft",
}


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """threads: decoder threads, 0 for one for every two cores. Time-outs in seconds, for live sources only.

    data: data streams of files come along too; they may say where each picture was taken.
    tls_verify: rtsps:// and https:// servers must show a certificate that ca_file (or the system) vouches for.
    camera_size (width, height), camera_fps, camera_format (`mjpeg`, `yuyv422`, ...): what is asked of a webcam; None
    and "" leave it the choice. interrupt_callback: called with each packet of a live source; what it raises ends the
    reading.
    hardware: a setting of decode.hardware. max_picture_mb: still pictures that need more memory are refused.
    """

    threads: int = 0
    open_timeout_s: float = 5.0
    read_timeout_s: float = 2.0
    rtsp_transport: str = "auto"
    data: bool = False
    tls_verify: bool = True
    ca_file: str = ""
    camera_size: tuple[int, int] | None = None
    camera_fps: float | None = None
    camera_format: str = ""
    interrupt_callback: Callable[[], None] | None = None
    hardware: str = "off"
    max_picture_mb: int = 4096


def live_options(uri: Uri, options: SourceOptions) -> dict[str, str]:
    """FFmpeg's options for a source that is not a file."""
    chosen = dict(_LIVE_OPTIONS)
    if uri.kind is Kind.RTSP:
        chosen["rtsp_transport"] = options.rtsp_transport
        if options.rtsp_transport == "auto":  # UDP where the camera refuses TCP
            chosen |= {"rtsp_transport": "tcp+udp", "rtsp_flags": "prefer_tcp"}
    if options.tls_verify and uri.text.lower().startswith(("rtsps:", "https:")):
        import ssl  # 4 MB, for who asks for it

        chosen["tls_verify"] = "1"
        if ca_file := options.ca_file or ssl.get_default_verify_paths().cafile:
            chosen["ca_file"] = ca_file
    if uri.kind is Kind.WEBCAM:
        chosen |= webcam.options_of(options.camera_size, options.camera_fps, options.camera_format)
    return chosen
