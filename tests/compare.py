"""Reads the streams and packets of a file, for comparing an output with its source."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av


def shown(path: Path) -> list[tuple[Fraction, Fraction]]:
    """Each decoded frame's time and length in seconds, as any reader sees them."""
    with av.open(str(path)) as file:
        film = file.streams.video[0]
        return [(f.pts * film.time_base, f.duration * film.time_base) for f in file.decode(film) if f.pts is not None]


def times(path: Path) -> list[Fraction]:
    return [at for at, _ in shown(path)]


def packets(path: Path, kind: str) -> list[list[tuple[Any, ...]]]:
    """pts, duration and bytes of every packet, for each stream of a kind."""
    with av.open(str(path)) as file:
        streams = [stream for stream in file.streams if stream.type == kind]
        lists: dict[int, list[tuple[Any, ...]]] = {stream.index: [] for stream in streams}
        for packet in file.demux():
            if packet.size and packet.stream_index in lists:
                lists[packet.stream_index].append((packet.pts, packet.duration, bytes(packet)))
        return list(lists.values())


def looks(path: Path) -> dict[str, Any]:
    """What a player knows of the video stream."""
    with av.open(str(path)) as file:
        film = file.streams.video[0]
        frame = next(file.decode(film))
        return {
            "time_base": film.time_base,
            "size": (film.width, film.height),
            "format": frame.format.name,
            "rotation": frame.rotation % 360,
            "aspect": film.sample_aspect_ratio,
            "colours": (frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc),
        }
