from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from pipeline import hardware
from pipeline.config import read
from pipeline.encode import EncodeOptions, container_for, encoder_for, format_for
from pipeline.errors import BadConfig
from tests.conftest import picture


def test_unknown_names_are_refused_and_known_ones_taken() -> None:
    assert read(None, {"encode.codec": "hevc_nvenc"}).encode.options(False).codec == "hevc_nvenc"
    with pytest.raises(BadConfig, match=r"'h264_magic'.*h264_nvenc"):
        read(None, {"encode.codec": "h264_magic"})
    with pytest.raises(BadConfig, match="built without hevc_videotoolbox") as caught:
        hardware.check("hevc_videotoolbox")  # Apple's, and this is Linux
    assert "\n" not in str(caught.value)


@pytest.mark.skipif("h264_nvenc" not in av.codecs_available, reason="this FFmpeg was built without nvenc")
def test_containers_hold_what_the_encoder_makes() -> None:
    info: Any = SimpleNamespace(video=None)
    assert encoder_for(container_for(Path("a.mkv")), info, EncodeOptions(codec="av1_nvenc")) == "av1_nvenc"
    with pytest.raises(BadConfig, match="webm does not hold h264_nvenc"):
        encoder_for(container_for(Path("a.webm")), info, EncodeOptions(codec="h264_nvenc"))
    assert format_for("hevc_nvenc", picture(0, (32, 32), "yuv420p10le")) == "p010le"
    assert format_for("h264_nvenc", picture(0, (32, 32), "yuv420p")) == "yuv420p"


def test_quality_and_speed_are_said_in_each_ones_words() -> None:
    assert hardware.options("h264_nvenc", 20, 0) == {"preset": "p1", "rc": "vbr", "cq": "20", "b": "0"}
    assert hardware.options("h264_nvenc", 20, 8)["preset"] == "p7"
    for name in hardware.HARDWARE:
        for speed in range(9):
            assert all(isinstance(v, str) for v in hardware.options(name, 20.4, speed).values())
    assert hardware.options("hevc_qsv", 23, 2)["global_quality"] == "23"
