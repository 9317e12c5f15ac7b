"""Encoding of live video for players."""

from __future__ import annotations

import av
import numpy as np
import pytest
from facestream.pipeline.errors import BadConfig
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.live.encode import EncodedPicture, LiveEncoder, LiveOptions
from facestream.pipeline.types import CoveredFrame, Frame, TrackedFrame

from tests.feed import covered, number_of


def decode(coded: list[EncodedPicture]) -> list[av.VideoFrame]:
    decoder = av.CodecContext.create("h264", "r")
    pictures = [p for c in coded for p in decoder.decode(av.Packet(c.data))]
    return [*pictures, *decoder.decode(None)]


def test_each_picture_comes_out_at_once_and_can_be_begun_with_every_second() -> None:
    encoder = LiveEncoder(LiveOptions(gop_s=1.0), 25)
    coded = []
    for n in range(60):
        out = encoder.encode(covered(n, n * 3600))
        assert [c.ticks for c in out] == [n * 3600]
        coded += out
    assert [n for n, c in enumerate(coded) if c.key] == [0, 25, 50]
    assert [number_of(p) for p in decode(coded)] == list(range(60))
    assert {p.pict_type for p in decode(coded)} <= {1, 2}  # I and P
    assert [number_of(p) for p in decode(coded[25:])] == list(range(25, 60))


def test_a_slow_camera_still_gets_its_key_pictures_in_time() -> None:
    encoder = LiveEncoder(LiveOptions(gop_s=1.0), 25)
    coded = [c for n in range(8) for c in encoder.encode(covered(n, n * 45000))]  # two a second, not 25
    assert [c.key for c in coded] == [True, False] * 4


def test_a_wish_makes_one_key_picture() -> None:
    encoder = LiveEncoder(LiveOptions(gop_s=10.0), 25)
    keys = []
    for n in range(40):
        if n in (20, 21, 22):
            encoder.request_keyframe()
        keys += [n for c in encoder.encode(covered(n, n * 3600)) if c.key]
    assert keys == [0, 20, 33]  # the second wish is met half a second after the first


def test_the_bit_rate_is_kept() -> None:
    encoder = LiveEncoder(LiveOptions(bitrate=500), 25)
    coded = [c for n in range(75) for c in encoder.encode(covered(n, n * 3600, noise=True))]
    assert sum(len(c.data) for c in coded) * 8 / 3 < 700e3


@pytest.mark.parametrize(("rotation", "size"), [(0, (160, 120)), (90, (120, 160)), (180, (160, 120))])
def test_what_rtp_cannot_say_is_done_to_the_picture(rotation: int, size: tuple[int, int]) -> None:
    gray = np.zeros((121, 161), np.uint8)
    gray[:60] = 200  # the stored picture's upper half, of odd sides
    picture = av.VideoFrame.from_ndarray(np.stack([gray] * 3, 2), format="rgb24").reformat(format="yuv444p")
    frame = Frame(0, 0, TICK, picture, rotation)
    coded = LiveEncoder(LiveOptions(), 25).encode(CoveredFrame(picture, TrackedFrame(frame, ())))
    (seen,) = decode(coded)
    assert (seen.format.name, seen.width, seen.height) == ("yuv420p", *size)
    shown = seen.to_ndarray(format="gray").astype(int)
    bright = {0: shown[:50], 90: shown[:, :50], 180: shown[-50:]}[rotation]  # turned counter-clockwise
    assert bright.min() > 150
    assert shown.mean() < 130


def test_an_unknown_encoder_is_named() -> None:
    for name in ("nosuch", "libx265"):
        with pytest.raises(BadConfig, match=name):
            LiveEncoder(LiveOptions(encoder=name), 25)
