"""What a camera's own clock says of each picture: RTCP sender reports (RFC 3550 section 6.4.1) through FFmpeg."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facestream.pipeline.video.decode import Packet

OLDEST_S = 946684800.0  # 2000: a clock that says less was never set, or counts from when the camera was started
_KEPT = 64  # packets that a decoder may hold


class CameraClock:
    """Wall-clock times (Unix seconds) of the pictures of one connection.

    There are none before the first report, nor from cameras that send none or whose clock was never set. A clock that
    is set anew jumps here too: it is the camera's word, not ours.
    """

    def __init__(self) -> None:
        self._known: dict[int | None, float] = {}  # pts (None: of the first packet) -> time

    def note(self, packet: Packet) -> None:
        """Take in a packet on its way to the decoder."""
        if not packet.has_sidedata("prft"):
            return
        wall_s = struct.unpack_from("=q", bytes(packet.get_sidedata("prft")))[0] / 1e6
        if wall_s >= OLDEST_S:
            self._known[packet.pts] = wall_s
        while len(self._known) > _KEPT:
            del self._known[next(iter(self._known))]

    def at(self, pts: int | None) -> float | None:
        """The time of the picture with this pts; None where nobody said it."""
        return self._known.pop(pts, None)
