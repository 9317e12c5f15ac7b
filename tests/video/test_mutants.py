"""Videos with bytes changed, cut out, put in and cut off: what decodes is written, the rest refused in one line."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from facestream.pipeline.errors import UserError
from facestream.pipeline.types import CoveredFrame, Frame, TrackedFrame
from facestream.pipeline.video.encode import EncodeOptions
from facestream.pipeline.video.sink import open_sink
from facestream.pipeline.video.source import open_source

from tests.conftest import render

KINDS = (".mp4", ".mkv", ".webm", ".avi", ".ts", ".flv", ".mov", ".gif")


def whole(folder: Path, suffix: str) -> bytes:
    more: dict[str, Any] = {}
    if suffix == ".webm":
        more = {"codec": "libvpx-vp9", "audio_codec": "libopus"}
    elif suffix == ".gif":
        more = {"codec": "gif", "pix_fmt": "rgb8", "audio": ()}
    return render(folder / f"whole{suffix}", frames=8, metadata={"title": "t"}, **more).read_bytes()


def mutant(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 2, 5, 20))):
        reach = min(len(changed), dice.choice((100, 1000, 1 << 30)))
        at = dice.randrange(max(1, reach))
        if dice.random() < 0.2:  # the end, where some keep their index
            at = max(0, len(changed) - 1 - at)
        how = dice.randrange(5)
        if how < 3:
            changed[at] = dice.choice((0, 255, 127, dice.randrange(256)))
        elif how == 3:
            del changed[at : at + dice.randrange(1, 30)]
        else:
            changed[at:at] = bytes(dice.randrange(256) for _ in range(dice.randrange(1, 30)))
    if dice.random() < 0.15:
        del changed[dice.randrange(len(changed) + 1) :]
    return bytes(changed)


def work(path: Path, target: Path) -> bool:
    """Through source and sink, with nothing to cover; whether there is an output."""
    source = open_source(path)
    sink = None
    try:
        info = source.open()
        sink = open_sink(target, info, EncodeOptions(preset="ultrafast", codec="h264"))
        for item in source.items():
            if isinstance(item, Frame):
                sink.write(CoveredFrame(item.picture, TrackedFrame(item, ())))
            else:
                sink.copy(item)
        sink.close()
        return True
    except UserError as error:
        assert "\n" not in str(error).strip()  # noqa: PT017
        if sink is not None:
            sink.abort()
        return False
    finally:
        source.close()


def hold(tmp_path: Path, suffix: str, seed: int, count: int) -> None:
    dice = random.Random(f"{suffix}{seed}")
    data = whole(tmp_path, suffix)
    (tmp_path / f"whole{suffix}").unlink()
    path, target = tmp_path / f"in{suffix}", tmp_path / "out.mkv"
    for _ in range(count):
        path.write_bytes(mutant(data, dice))
        work(path, target)
        path.unlink()
        target.unlink(missing_ok=True)
        assert not list(tmp_path.iterdir()), "nothing is left half-written"


@pytest.mark.parametrize("suffix", KINDS)
def test_mutated_containers(tmp_path: Path, suffix: str) -> None:
    hold(tmp_path, suffix, 0, 5)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", KINDS)
def test_five_hundred_mutated_containers(tmp_path: Path, suffix: str) -> None:
    hold(tmp_path, suffix, 1, 63)
