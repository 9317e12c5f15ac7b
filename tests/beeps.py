"""A clip that flashes and beeps at the same times, once a second, and the audio-video offset of an output."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE, FPS, LONG_S = 48000, 25, 0.2


def make(path: Path, codec: str, seconds: int = 4) -> Path:
    """Flash and beep from 0.4 to 0.6 s of each second."""
    rate = 8000 if codec.startswith("pcm") else RATE
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "bf": "0", "g": "25"})
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        audio: Any = out.add_stream({"opus": "libopus"}.get(codec, codec), rate=rate, layout="mono")
        step = rate // FPS
        for n in range(seconds * FPS):
            on = 0.4 <= n / FPS % 1 < 0.4 + LONG_S
            shown = av.VideoFrame.from_ndarray(np.full((120, 160), 220 if on else 30, np.uint8), format="gray")
            shown = shown.reformat(format="yuv420p")
            shown.pts, shown.time_base = n, Fraction(1, FPS)
            out.mux(video.encode(shown))
            at = np.arange(n * step, (n + 1) * step) / rate
            wave = (np.sin(2 * np.pi * 1000 * at) * 20000 * on).astype(np.int16)
            sound = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = rate, n * step, Fraction(1, rate)
            out.mux(audio.encode(sound))
        out.mux(video.encode(None))
        out.mux(audio.encode(None))
    return path


def onsets(source: str | Path, seconds: float, **options: str) -> tuple[list[tuple[float, float]], list[float]]:
    """When flashes and beeps begin in so many seconds of it, by its own time."""
    given: dict[str, Any] = {"timeout": (10.0, 10.0)} if str(source).startswith("rtsp") else {}
    light: list[tuple[float, bool]] = []
    noise: list[tuple[float, bool]] = []
    with av.open(str(source), options=options, **given) as container:
        for packet in container.demux(container.streams.video[0], container.streams.audio[0]):
            for part in packet.decode():
                if isinstance(part, av.VideoFrame) and part.time is not None:
                    # Not where the cover is. A fully covered frame is black, which is no flash.
                    light.append((part.time, bool(part.to_ndarray(format="gray")[90:, 90:].mean() > 125)))
                elif isinstance(part, av.AudioFrame) and part.time is not None:
                    wave = np.abs(part.to_ndarray().astype(float).reshape(-1))
                    wave /= 1.0 if part.format.name.startswith("flt") else 32768.0
                    step = part.sample_rate // 200
                    pieces = range(0, len(wave), step)
                    noise += [(part.time + at / part.sample_rate, wave[at : at + step].max() > 0.2) for at in pieces]
            if light and light[-1][0] - light[0][0] > seconds:
                break
    return _begins(light, 0.3), [latest for _, latest in _begins(noise, 1.0)]


def _begins(seen: list[tuple[float, bool]], step: float) -> list[tuple[float, float]]:
    """Where it is on after a quarter of a second in which it was off: the last time when it was off, the first when it
    was on. A busy machine drops pictures, also the first ones of a flash; more than `step` seconds and it counts for
    nothing."""
    found, last, before = [], None, 0.0
    for when, on in sorted(seen):
        if on:
            if (when - last if last is not None else when - seen[0][0]) > 0.25 and when - before < step:
                found.append((before, when))
            last = when
        before = when
    return found


def apart_ms(flashes: list[tuple[float, float]], beeps: list[float]) -> list[float]:
    """By how much each beep lies outside of the time in which its flash began; those without one are left out."""
    pairs = [(flash, beep) for flash in flashes for beep in beeps if abs(beep - flash[1]) < 0.5]
    return [1000 * max(flash[0] - beep, beep - flash[1], 0.0) for flash, beep in pairs]
