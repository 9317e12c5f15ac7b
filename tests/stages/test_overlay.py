"""Boxes drawn on every pixel format, with the faces under them covered or uncovered as configured."""

from __future__ import annotations

import av
import numpy as np
import pytest
from facestream.pipeline.config import Config
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.stages.overlay import Drawer
from facestream.pipeline.types import Box, BoxState, Frame, TrackedFrame

from tests.live.test_fail_closed import SECRET, frame


def drawn(drawer: Drawer, pix_fmt: str = "yuv420p") -> av.VideoFrame:
    shown = frame(0).picture.reformat(format=pix_fmt)
    box = Box(7, (38.0, 38.0, 62.0, 62.0), 0.9, BoxState.OBSERVED)
    return drawer.cover(TrackedFrame(Frame(0, 0, TICK, shown), (box,))).picture


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "nv12", "yuv444p10le", "yuvj422p"])
def test_a_box_and_its_id_are_drawn_around_the_face_alone(pix_fmt: str) -> None:
    plain = frame(0).picture.to_ndarray(format="gray").astype(int)
    shown = drawn(Drawer(None), pix_fmt).to_ndarray(format="gray").astype(int)
    changed = np.abs(shown - plain) > 20
    assert changed[38, 38:63].all()
    assert changed[38:63, 62].all()
    assert changed[15:36, 36:60].sum() > 10  # the id
    assert not changed[SECRET, SECRET].any()
    assert not changed[70:, :].any()


def test_with_a_cover_the_face_is_gone_and_the_box_is_there() -> None:
    shown = drawn(Drawer(Anonymizer(Config().cover))).to_ndarray(format="gray").astype(int)
    assert np.ptp(shown[SECRET, SECRET]) < 60
    assert np.abs(shown[38, 40:60] - 170).max() < 12


def test_without_boxes_nothing_is_drawn() -> None:
    shown = Drawer(None).cover(TrackedFrame(frame(0), ())).picture
    assert (shown.to_ndarray() == frame(0).picture.to_ndarray()).all()
