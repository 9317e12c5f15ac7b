"""What is asked of a camera, and how it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from facestream.pipeline.connection import State
from facestream.pipeline.video.options import SourceOptions


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """Times in seconds. loop: a file begins anew at its end. paced: files and HLS come as fast as their times say.

    first_frame_s, dead_s: no picture for so long after opening, or later, ends a connection. stall_s: after so long
    without a picture the camera counts as stalled. hang_s: after so long without a sign of life its thread is given up.
    refused_wait_s: the wait after a wrong password or path. max_backoff_s: the longest other wait.
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
    """How a camera is. message: one line without passwords, empty when all is well. since_s: monotonic time.

    frames, damaged: decoded, and of them with errors in the picture. connects, losses, stalls, hangs: how often.
    width, height: of the displayed picture; rate: frames/s that the source claims, 0 when unknown.
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
