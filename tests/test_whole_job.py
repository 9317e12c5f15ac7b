from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from facestream.pipeline.video.truncation import missing_bytes

Clip = Callable[..., Path]


@pytest.mark.parametrize("name", ["plain.mkv", "sound.avi"])
def test_what_was_cut_off_is_counted(clip: Clip, cut: Any, name: str) -> None:
    path = clip(name, frames=6, audio_codec="libmp3lame" if name.endswith("avi") else "aac")
    assert missing_bytes(path) == 0
    short = cut(path, 0.7)
    assert missing_bytes(short) == path.stat().st_size - short.stat().st_size


@pytest.mark.parametrize("data", [b"", b"RIFF", b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\x18\x53\x80\x67"])
def test_headers_that_say_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "odd").write_bytes(data)
    assert missing_bytes(tmp_path / "odd") == 0
    assert missing_bytes(tmp_path / "none") == 0


def test_a_recording_that_was_never_finished_has_no_size(clip: Clip, tmp_path: Path) -> None:
    data = clip("plain.mkv", frames=6).read_bytes()
    at = data.index(b"\x18\x53\x80\x67") + 4
    (tmp_path / "live.mkv").write_bytes(data[:at] + b"\x01" + b"\xff" * 7 + data[at + 8 : -200])
    assert missing_bytes(tmp_path / "live.mkv") == 0
