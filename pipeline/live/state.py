"""Options and status of a camera."""

from __future__ import annotations

from dataclasses import dataclass, field

from facestream.pipeline.connection import State
from facestream.pipeline.video.options import SourceOptions


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """Times in seconds. loop: restart a file at its end. paced: play files and HLS in real time.

    first_frame_s, dead_s: reconnect after this time without a frame, after opening or later. stall_s: the camera counts
    as stalled after this time without a frame. hang_s: abandon the camera's thread after this time without progress.
    refused_wait_s: wait after a wrong password or path. max_backoff_s: longest other wait before reconnecting.
    """

    source: SourceOptions = field(default_factory=SourceOptions)
    loop: bool = False
    paced: bool = True
    first_frame_s: float = 10.0
    dead_s: float = 10.0
    stall_s: float = 1.0
    hang_s: float = 20.0
    refused_wait_s: float = 30.0
    max_backoff_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Status:
    """A camera's status. message: one line without passwords, empty if all is well. since_s: monotonic time.

    frames, damaged: counts of decoded frames, and of those with decoding errors. connects, losses, stalls, hangs:
    counts. width, height: of the displayed frame. rate: frames/s that the source declares, 0 if unknown. live_since_s:
    monotonic time of this connection's first frame. interval_s: typical seconds between arrivals, 0 if unknown.
    """

    name: str
    state: State
    message: str = ""
    since_s: float = 0.0
    frames: int = 0
    damaged: int = 0
    connects: int = 0
    losses: int = 0
    stalls: int = 0
    hangs: int = 0
    width: int = 0
    height: int = 0
    rate: float = 0.0
    live_since_s: float = 0.0
    interval_s: float = 0.0
