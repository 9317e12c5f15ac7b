"""RTP packets, byte by byte."""

from __future__ import annotations

import struct

from facestream.pipeline.rtsp.rtp import Packetizer, nal_units

SPS, PPS = b"\x67\x42\xc0\x1f\xaa", b"\x68\xce\x3c\x80"
KEY = b"\0\0\0\1" + SPS + b"\0\0\0\1" + PPS + b"\0\0\1\x06\x05sei\0\0\1\x65" + bytes(range(1, 256)) * 20


def test_a_byte_stream_falls_into_its_units() -> None:
    assert [unit[0] for unit in nal_units(KEY)] == [0x67, 0x68, 0x06, 0x65]
    assert nal_units(KEY)[0] == SPS
    assert nal_units(b"") == []


def test_large_units_are_cut_and_can_be_put_together() -> None:
    packer = Packetizer(mtu=500)
    first = packer.sequence
    unit = packer.pack(KEY, 9000, True, 1000.5)
    heads = [struct.unpack(">BBHII", packet[:12]) for packet in unit.packets]
    assert all(len(packet) <= 500 for packet in unit.packets)
    assert [head[2] for head in heads] == [(first + n) & 0xFFFF for n in range(len(heads))]
    assert {head[3] for head in heads} == {(packer.base + 9000) & 0xFFFFFFFF}
    assert [head[1] for head in heads] == [96] * (len(heads) - 1) + [0x80 | 96]  # the marker ends the picture
    bodies = [packet[12:] for packet in unit.packets]
    assert bodies[:2] == [SPS, PPS]
    parts = bodies[2:]
    assert {part[0] for part in parts} == {0x60 | 28}
    assert [part[1] >> 6 for part in parts] == [2, *[0] * (len(parts) - 2), 1]  # begin, middle, end
    whole = bytes([parts[0][0] & 0xE0 | parts[0][1] & 31]) + b"".join(part[2:] for part in parts)
    assert whole == nal_units(KEY)[3]


def test_a_key_picture_never_goes_without_its_parameter_sets() -> None:
    packer = Packetizer()
    packer.pack(KEY, 0, True, 0)
    unit = packer.pack(b"\0\0\1\x65abc", 3000, True, 0)
    assert [packet[12:] for packet in unit.packets] == [SPS, PPS, b"\x65abc"]
    assert len(packer.pack(b"\0\0\1\x41abc", 6000, False, 0).packets) == 1
    assert "profile-level-id=42C01F" in packer.sdp("door")


def test_the_report_ties_the_stream_to_the_wall_clock() -> None:
    packer = Packetizer()
    report = packer.pack(KEY, 9000, True, 1000.5).report
    assert report is not None
    kind, words, ssrc, ntp, stamp, sent, _ = struct.unpack(">xBHIQIII", report[:28])
    assert (kind, words, ssrc, sent) == (200, 6, packer.ssrc, packer.sent)
    assert ntp / 2**32 - 2208988800 == 1000.5
    assert stamp == (packer.base + 9000) & 0xFFFFFFFF
    assert len(report) % 4 == 0
    assert report[29] == 202
