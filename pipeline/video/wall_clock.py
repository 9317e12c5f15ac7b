"""Capture times by the camera's own clock: RTCP sender reports (RFC 3550 section 6.4.1) through FFmpeg."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facestream.pipeline.video.decode import Packet

OLDEST_S = 946684800.0  # year 2000: a clock before that was never set, or counts from the camera's start
_KEPT = 64  # packets that a decoder may hold


class CameraClock:
    """Wall-clock times (Unix seconds) of the frames of one connection.

    None before the first report, and for cameras that send none or whose clock was never set. If the camera's clock is
    adjusted, these times jump as well.
    """

    def __init__(self) -> None:
        self._known: dict[int | None, float] = {}  # pts (None: of the first packet) -> time

    def note(self, packet: Packet) -> None:
        """Read the report in a packet before it is decoded."""
        if not packet.has_sidedata("prft"):
            return
        wall_s = struct.unpack_from("=q", bytes(packet.get_sidedata("prft")))[0] / 1e6
        if wall_s >= OLDEST_S:
            self._known[packet.pts] = wall_s
        while len(self._known) > _KEPT:
            del self._known[next(iter(self._known))]

    def at(self, pts: int | None) -> float | None:
        """The capture time of the frame with this pts; None if unknown."""
        return self._known.pop(pts, None)
