"""Packetises audio for RTP without re-encoding: AAC (RFC 3640), Opus (RFC 7587), G.711 (RFC 3551)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from facestream.pipeline.errors import SinkLost
from facestream.pipeline.rtsp.rtp import CLOCK, MTU, RtpStream, Unit

PAYLOAD_TYPE = 97
TRACK = 1
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_STATIC = {"pcm_mulaw": ("PCMU", 0), "pcm_alaw": ("PCMA", 8)}  # RFC 3551 table 4, at 8000 Hz and one channel
_PIECE = 160  # bytes of G.711 a channel in a packet: 20 ms at 8000 Hz


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """codec: FFmpeg's name. payload, rtpmap, fmtp: as in the SDP. clock: rate of RTP timestamps, Hz."""

    codec: str
    payload: int
    rtpmap: str
    fmtp: str
    clock: int
    channels: int


def format_of(stream: av.AudioStream) -> AudioFormat:
    """The RTP format of an audio stream. Raises SinkLost if it cannot be sent without re-encoding."""
    context = stream.codec_context
    codec = context.codec.canonical_name
    rate = context.sample_rate
    channels = context.layout.nb_channels
    if codec == "opus":
        return AudioFormat(codec, PAYLOAD_TYPE, "opus/48000/2", f"sprop-stereo={int(channels > 1)}", 48000, channels)
    if codec in _STATIC:
        name, static = _STATIC[codec]
        is_default = rate == 8000 and channels == 1
        map_ = f"{name}/{rate}" + (f"/{channels}" if channels > 1 else "")
        return AudioFormat(codec, static if is_default else PAYLOAD_TYPE, map_, "", rate, channels)
    if codec == "aac":
        config = context.extradata or _aac_config(context.profile, rate, channels)
        if config:
            fmtp = "streamtype=5; profile-level-id=15; mode=AAC-hbr; sizelength=13; indexlength=3; indexdeltalength=3"
            fmtp += f"; config={config.hex().upper()}"
            return AudioFormat(codec, PAYLOAD_TYPE, f"mpeg4-generic/{rate}/{channels}", fmtp, rate, channels)
    raise SinkLost(f"{codec} sound cannot be sent over RTSP as it is")


def _aac_config(profile: str | None, rate: int, channels: int) -> bytes:
    """The AudioSpecificConfig (ISO 14496-3), which ADTS streams lack; empty if it cannot be derived."""
    if profile != "LC" or rate not in _AAC_RATES or not 1 <= channels <= 6:
        return b""
    return struct.pack(">H", 2 << 11 | _AAC_RATES.index(rate) << 7 | channels << 3)


class AudioPacketizer(RtpStream):
    """The RTP stream of the audio track."""

    def __init__(self, form: AudioFormat, mtu: int = MTU) -> None:
        super().__init__(mtu)
        self.form = form

    def pack(self, data: bytes, ticks: int) -> Unit:
        """A packet of the source as RTP packets. ticks: its time on the video's timeline, in 1/90000 s."""
        stamp = self._stamp(ticks)
        kind = self.form.payload
        packets = (self.packet(payload, kind, mark, stamp + later) for payload, later, mark in self._payloads(data))
        return Unit(tuple(packets), False, track=TRACK)

    def report(self, ticks: int, wall_s: float) -> bytes:
        """A sender report: without one, players cannot synchronise audio and video."""
        return self.report_at(self._stamp(ticks), wall_s)

    def _stamp(self, ticks: int) -> int:
        return self.base + round(Fraction(ticks * self.form.clock, CLOCK))

    def _payloads(self, data: bytes) -> Iterator[tuple[bytes, int, bool]]:
        """Payloads, each with its offset in samples and whether it carries the marker bit."""
        if self.form.codec == "opus":
            yield data, 0, False
        elif self.form.codec == "aac":
            if len(data) > 7 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0:  # ADTS: its header repeats the SDP
                data = data[7 if data[1] & 1 else 9 :]
            head = struct.pack(">HH", 16, len(data) << 3 & 0xFFFF)
            room = self.mtu - 16
            for at in range(0, len(data), room):
                yield head + data[at : at + room], 0, at + room >= len(data)
        else:
            piece = _PIECE * self.form.channels
            for at in range(0, len(data), piece):
                yield data[at : at + piece], at // self.form.channels, False

    def sdp(self) -> list[str]:
        form = self.form
        lines = [f"m=audio 0 RTP/AVP {form.payload}", f"a=rtpmap:{form.payload} {form.rtpmap}"]
        lines += [f"a=fmtp:{form.payload} {form.fmtp}"] * bool(form.fmtp)
        return [*lines, f"a=control:track{TRACK}"]
