"""Packetises H.264 for RTP (RFC 6184, packetization mode 1), with sender reports (RFC 3550) and SDP.

FFmpeg's packetiser is tied to an encoder: after a change of the frame size players would get another stream, with other
sequence numbers and timestamps. Here the stream continues.
"""

from __future__ import annotations

import base64
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facestream.pipeline.rtsp.audio import AudioPacketizer

PAYLOAD_TYPE = 96
CLOCK = 90000  # Hz
MTU = 1400  # bytes of an RTP packet: fits into an Ethernet frame, with room for tunnels
_NTP_EPOCH = 2208988800  # seconds from 1900 to 1970
_SPS = 7
_PPS = 8
_SEI = 6
_DELIMITER = 9
_FU_A = 28


@dataclass(frozen=True, slots=True)
class Unit:
    """A packetised frame or piece of audio. key: a player can start here; key units have a sender report.

    track: 0 for video, 1 for audio. audio_report: the audio track's sender report for the same time, if there is audio.
    """

    packets: tuple[bytes, ...]
    key: bool
    report: bytes | None = None
    track: int = 0
    audio_report: bytes | None = None

    @property
    def reports(self) -> tuple[tuple[int, bytes], ...]:
        """(track, sender report) pairs, to be sent before the packets."""
        both = (0, self.report), (1, self.audio_report)
        return tuple((track, report) for track, report in both if report is not None)

    @property
    def size(self) -> int:
        return sum(map(len, self.packets))

    def interleaved(self, channels: Mapping[int, tuple[int, int]]) -> bytes:
        """The bytes for sending interleaved on the RTSP connection, RFC 2326 section 10.12. channels: RTP and RTCP
        channel of each track that was set up; other tracks are omitted."""
        parts: list[bytes] = []
        for track, report in self.reports:
            if track in channels:
                parts += (b"$", bytes([channels[track][1]]), len(report).to_bytes(2, "big"), report)
        if self.track in channels:
            channel = bytes([channels[self.track][0]])
            for packet in self.packets:
                parts += (b"$", channel, len(packet).to_bytes(2, "big"), packet)
        return b"".join(parts)


def nal_units(data: bytes) -> list[bytes]:
    """The NAL units of an Annex B byte stream, without start codes."""
    units = []
    at = data.find(b"\0\0\1")
    while at >= 0:
        after = data.find(b"\0\0\1", at + 3)
        unit = data[at + 3 : after if after >= 0 else len(data)].rstrip(b"\0")
        if unit:
            units.append(unit)
        at = after
    return units


class RtpStream:
    """One RTP stream: sequence number, timestamp base and counts."""

    def __init__(self, mtu: int) -> None:
        self.mtu = mtu
        self.ssrc, self.sequence, self.base = secrets.randbits(32), secrets.randbits(16), secrets.randbits(32)
        self.sent = self.octets = 0

    def packet(self, payload: bytes, kind: int, marker: bool, stamp: int) -> bytes:
        """Build the next packet. kind: payload type. stamp: RTP timestamp."""
        head = struct.pack(">BBHII", 0x80, marker << 7 | kind, self.sequence, stamp & 0xFFFFFFFF, self.ssrc)
        self.sequence = (self.sequence + 1) & 0xFFFF
        self.sent += 1
        self.octets += len(payload)
        return head + payload

    def report_at(self, stamp: int, wall_s: float) -> bytes:
        """A sender report of the packets so far. stamp: the RTP timestamp at wall_s."""
        return sender_report(self.ssrc, stamp & 0xFFFFFFFF, wall_s, self.sent, self.octets)


class Packetizer(RtpStream):
    """The video stream, and the audio stream beside it."""

    def __init__(self, mtu: int = MTU) -> None:
        super().__init__(mtu)
        self.sps = self.pps = b""  # the newest ones
        self.audio: AudioPacketizer | None = None

    def pack(self, data: bytes, ticks: int, key: bool, wall_s: float) -> Unit:
        """Packetise an encoded frame (Annex B). ticks: its time in 1/90000 s; wall_s: the same by the wall clock."""
        units = [unit for unit in nal_units(data) if unit[0] & 31 not in (_SEI, _DELIMITER)]
        kinds = {unit[0] & 31 for unit in units}
        self.sps = next((unit for unit in units if unit[0] & 31 == _SPS), self.sps)
        self.pps = next((unit for unit in units if unit[0] & 31 == _PPS), self.pps)
        if key and self.sps and not {_SPS, _PPS} <= kinds:  # a player that joins here needs them
            units = [self.sps, self.pps, *(unit for unit in units if unit[0] & 31 not in (_SPS, _PPS))]
        payloads = [payload for unit in units for payload in self._fragments(unit)]
        stamp = self.base + ticks
        last = len(payloads) - 1
        packets = tuple(self.packet(payload, PAYLOAD_TYPE, n == last, stamp) for n, payload in enumerate(payloads))
        if not key:
            return Unit(packets, key)
        audio_report = self.audio.report(ticks, wall_s) if self.audio is not None else None
        return Unit(packets, key, self.report_at(stamp, wall_s), audio_report=audio_report)

    def _fragments(self, unit: bytes) -> list[bytes]:
        """A NAL unit as RTP payloads: a single one, or FU-A fragments (RFC 6184 section 5.8)."""
        room = self.mtu - 12
        if len(unit) <= room:
            return [unit]
        head = (unit[0] & 0xE0) | _FU_A
        kind = unit[0] & 31
        parts = [unit[at : at + room - 2] for at in range(1, len(unit), room - 2)]
        last = len(parts) - 1
        return [bytes([head, kind | (n == 0) << 7 | (n == last) << 6]) + part for n, part in enumerate(parts)]

    def sdp(self, name: str, address: str = "0.0.0.0") -> str:
        """The stream's SDP (RFC 8866). A keyframe must have been packed before."""
        family = "IP6" if ":" in address else "IP4"
        sets = ",".join(base64.b64encode(part).decode() for part in (self.sps, self.pps))
        level = self.sps[1:4].hex().upper()
        lines = [
            "v=0",
            f"o=- {self.ssrc} 1 IN {family} {address}",
            f"s={name}",
            f"c=IN {family} {address}",
            "t=0 0",
            "a=control:*",
            "a=range:npt=now-",
            f"m=video 0 RTP/AVP {PAYLOAD_TYPE}",
            f"a=rtpmap:{PAYLOAD_TYPE} H264/{CLOCK}",
            f"a=fmtp:{PAYLOAD_TYPE} packetization-mode=1; sprop-parameter-sets={sets}; profile-level-id={level}",
            "a=control:track0",
            *(self.audio.sdp() if self.audio is not None else ()),
        ]
        return "\r\n".join(lines) + "\r\n"


def sender_report(ssrc: int, stamp: int, wall_s: float, sent: int, octets: int) -> bytes:
    """A sender report with a source description, a compound packet as RFC 3550 requires. stamp: RTP timestamp at
    wall_s."""
    ntp = round((wall_s + _NTP_EPOCH) * 2**32) & (2**64 - 1)
    report = struct.pack(">BBHIQIII", 0x80, 200, 6, ssrc, ntp, stamp, sent & 0xFFFFFFFF, octets & 0xFFFFFFFF)
    name = b"facestream"
    item = bytes([1, len(name)]) + name + b"\0"
    item += bytes(-len(item) % 4)
    return report + struct.pack(">BBHI", 0x81, 202, 1 + len(item) // 4, ssrc) + item
