from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
from av.codec.hwaccel import HWAccel
from facestream.pipeline.config import read
from facestream.pipeline.errors import BadConfig
from facestream.pipeline.video import hardware
from facestream.pipeline.video.encode import EncodeOptions, container_for, encoder_for, format_for
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.source import open_source

from tests.conftest import facestream, picture, render


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
    assert hardware.options("h264_nvenc", 20, 0) == {"preset": "p1", "rc": "vbr", "cq": "20", "b": "0", "s12m_tc": "0"}
    assert hardware.options("h264_nvenc", 20, 8)["preset"] == "p7"
    for name in hardware.HARDWARE:
        for speed in range(9):
            assert all(isinstance(v, str) for v in hardware.options(name, 20.4, speed).values())
    assert hardware.options("hevc_qsv", 23, 2)["global_quality"] == "23"


ABSENT = sorted(device for device in hardware.DEVICES if hardware.missing(device))


@pytest.mark.skipif("cuda" not in ABSENT, reason="there is a GPU that decodes")
def test_without_a_card_all_runs_on_the_cpu_and_one_line_says_so(tmp_path: Path) -> None:
    video, settings = render(tmp_path / "in.mp4", frames=6), tmp_path / "mine.toml"
    settings.write_text('[decode]\nhardware = "cuda"\n')
    outputs = []
    for more in ([], ["--config", settings]):
        outputs.append(tmp_path / f"out{len(more)}.mp4")
        done = facestream("anonymize", video, "-o", outputs[-1], "--quiet", *more)
        assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "hardware" in line]
    assert "info: hardware: decoding and encoding on the CPU (cuda: " in line
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if an NVIDIA GPU answered whose NVENC knows H.264 and HEVC; nothing is decoded by it."""
    monkeypatch.setattr(hardware, "missing", lambda device: "" if device == "cuda" else "no such device answers")
    monkeypatch.setattr(hardware, "opens", lambda name: name in ("h264_nvenc", "hevc_nvenc"))


@pytest.mark.usefixtures("with_gpu")
def test_a_card_decodes_and_encodes_what_it_can() -> None:
    assert [hardware.device_of(s) for s in ("off", "auto", "cuda", "qsv")] == ["", "cuda", "cuda", ""]
    assert hardware.describe("off") == ""
    assert hardware.describe("auto") == "decoding on cuda, encoding h264, hevc there"
    assert hardware.describe("vaapi") == "decoding and encoding on the CPU (vaapi: no such device answers)"
    assert hardware.decoder("off") is hardware.decoder("qsv") is None
    assert isinstance(hardware.decoder("cuda"), HWAccel)
    info: Any = SimpleNamespace(video=None)
    mp4, webm = container_for(Path("a.mp4")), container_for(Path("a.webm"))
    asked = read(None, {"decode.hardware": "cuda"})
    options = asked.encode.options(False, asked.decode.hardware)
    assert encoder_for(mp4, info, options) == "h264_nvenc"
    assert encoder_for(mp4, info, replace(options, codec="hevc")) == "hevc_nvenc"
    assert encoder_for(mp4, info, replace(options, codec="av1")) == "libsvtav1"  # this GPU's NVENC has none
    assert encoder_for(webm, info, options) == "libvpx-vp9"
    assert encoder_for(mp4, info, replace(options, hardware="off")) == "libx264"


@pytest.mark.usefixtures("with_gpu")
@pytest.mark.parametrize("hosted", [True, False])
def test_sources_are_opened_with_the_decoder(hosted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is not there: what counts is what FFmpeg is asked for."""
    video, opened, real = render(tmp_path / "in.mp4", frames=3), [], av.open

    def note(*arguments: Any, **more: Any) -> Any:
        opened.append(more.pop("hwaccel", None))
        return real(*arguments, **more)

    monkeypatch.setattr(av, "open", note)
    source = open_source(str(video), SourceOptions(hardware="cuda" if hosted else "off"))
    source.open()
    source.close()
    assert isinstance(opened[0], HWAccel) == hosted


def test_what_does_not_open_is_not_chosen() -> None:
    assert hardware.opens("libx264")
    assert not hardware.opens("h264_magic")
    with pytest.raises(BadConfig, match=r"decode\.hardware is 'gpu'"):
        read(None, {"decode.hardware": "gpu"})
