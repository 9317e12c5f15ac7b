"""Small clips rendered with PyAV, each with one property that tends to get lost."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

SIZE = (160, 120)
_QUICK = {"libx264": {"preset": "ultrafast"}, "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"}}


def facestream(*arguments: str | Path, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "facestream", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **more)  # type: ignore[call-overload]


def picture(index: int, size: tuple[int, int] = SIZE, pix_fmt: str = "yuv420p") -> av.VideoFrame:
    """A gradient with a bright square that moves with the index."""
    width, height = size
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = np.linspace(0, 255, width)[None, :]
    rgb[..., 1] = np.linspace(0, 255, height)[:, None]
    left = 4 * index % (width - 24)
    rgb[20:44, left : left + 24, 2] = 255
    return av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt)


def render(
    path: Path,
    *,
    frames: int = 30,
    rate: Fraction | int = 30,
    size: tuple[int, int] = SIZE,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    time_base: Fraction | None = None,
    times: list[int] | None = None,
    start: int = 0,
    audio: tuple[str, ...] = ("und",),
    audio_codec: str = "aac",
    subtitles: str = "",
    rotation: int = 0,
    aspect: Fraction | None = None,
    colours: dict[str, int] | None = None,
    metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    video: bool = True,
) -> Path:
    """Write a clip.

    times: each frame's pts in time_base, else evenly from start. audio: a language for each track, or language:role.
    """
    unit = time_base or 1 / Fraction(rate)
    with av.open(str(path), "w", container_options=muxer or {}) as out:
        out.metadata.update(metadata or {})
        film = None
        if video:
            film = out.add_stream(codec, rate=Fraction(rate), options={**_QUICK.get(codec, {}), **(options or {})})
            assert isinstance(film, av.VideoStream)
            film.width, film.height, film.pix_fmt = *size, pix_fmt
            film.codec_context.time_base = film.time_base = unit
            if aspect is not None:
                film.codec_context.sample_aspect_ratio = aspect
            for name, value in (colours or {}).items():
                setattr(film.codec_context, name, value)
            if rotation:
                film.set_display_rotation(rotation)
        tracks = [_add_audio(out, language, audio_codec) for language in audio]
        texts = out.add_mux_stream(subtitles) if subtitles else None
        if texts is not None:
            texts.time_base = Fraction(1, 1000)
            texts.metadata["language"] = "deu"
        if texts is not None:
            for at in (100, 500):
                out.mux(_text(texts, at, subtitles))
        pts = times or [start + round(i / Fraction(rate) / unit) for i in range(frames)]
        seconds = max(len(pts) / Fraction(rate), Fraction(1, 2))
        for n, track in enumerate(tracks):
            _write_audio(out, track, 220 * (n + 1), round(seconds * 48000), round(start * unit * 48000))
        if film is not None:
            for i, at in enumerate(pts):
                frame = picture(i, size, pix_fmt)
                frame.pts, frame.time_base = at, unit
                for name, value in (colours or {}).items():
                    setattr(frame, name, value)
                out.mux(film.encode(frame))
            out.mux(film.encode(None))
    return path


def _add_audio(out: av.container.OutputContainer, language: str, codec: str) -> av.AudioStream:
    language, _, role = language.partition(":")
    track = out.add_stream(codec, rate=48000, layout="stereo")
    assert isinstance(track, av.AudioStream)
    track.metadata.update({"language": language, "title": "Jane's microphone"})
    if role:
        track.disposition = av.stream.Disposition[role]
    return track


def _write_audio(out: av.container.OutputContainer, track: av.AudioStream, tone: int, samples: int, start: int) -> None:
    wave = (np.sin(2 * np.pi * tone * np.arange(samples) / 48000) * 0.3).astype(np.float32)
    for at in range(0, samples, 1024):
        part = wave[at : at + 1024]
        frame = av.AudioFrame.from_ndarray(np.stack([part, part]), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start + at, Fraction(1, 48000)
        out.mux(track.encode(frame))
    out.mux(track.encode(None))


def _text(stream: Any, at: int, codec: str) -> av.Packet:
    text = f"at {at} ms".encode()
    packet: av.Packet = av.Packet(struct.pack(">H", len(text)) + text if codec == "mov_text" else text)
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts = packet.dts = at
    packet.duration = 300
    packet.is_keyframe = True
    return packet


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """clip(name, **render's arguments): a clip of that file name, rendered once for each set of arguments."""
    made: dict[str, Path] = {}

    def make(name: str = "plain.mp4", **how: Any) -> Path:
        key = f"{name} {sorted(how.items(), key=str)}"
        if key not in made:
            made[key] = render(tmp_path_factory.mktemp("clip") / name, **how)
        return made[key]

    return make


@pytest.fixture
def cut(tmp_path: Path) -> Callable[..., Path]:
    """cut(path, share): a copy of only the first share of a file's bytes."""

    def make(path: Path, share: float) -> Path:
        data = path.read_bytes()
        short = tmp_path / f"cut-{path.name}"
        short.write_bytes(data[: int(len(data) * share)])
        return short

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder to write into; afterwards it must hold no temporary file."""
    made = tmp_path / "out"
    made.mkdir()
    yield made
    assert [path.name for path in made.iterdir() if ".facestream-" in path.name] == []


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Root may read everything: act as nobody, who may come as far as folder."""
    if os.geteuid() != 0:
        yield
        return
    modes = {part: part.stat().st_mode for part in (folder, *folder.parents) if part.stat().st_uid == 0}
    for part, mode in modes.items():
        part.chmod(mode | 0o55)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for part, mode in modes.items():
            part.chmod(mode)
