"""Runs `facestream anonymize` on an hour of video and samples its memory.

    python benchmarks/hour.py OUT [--seconds 3600] [--fps 10] [--size 192x108] [--plot memory.png] [-- FLAGS]

creates OUT/hour.mkv unless it exists (the demo clip's walkers for five seconds of every thirty, a static hall in
between, two audio tracks), runs the command on it, and samples its resident memory from outside. Prints the slope of a
line fitted to the samples after the first tenth of the run, which a leak would raise, and plots them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import av.stream
import cv2
import numpy as np

DEMO = Path(__file__).parent.parent / "tools" / "demo.mp4"
EVERY_S = 30
SOUND = 8_000
SETTLED = 0.1  # share of the run that counts as warm-up


def walkers(fps: int, size: tuple[int, int]) -> list[np.ndarray]:
    """The centre of the demo clip's frames, resampled to this rate and size: uint8 RGB [h, w, 3] each."""
    with av.open(str(DEMO)) as clip:
        film = clip.streams.video[0]
        step = Fraction(film.average_rate or 30) / fps
        pictures = [f.to_ndarray(format="rgb24") for f in clip.decode(film)]
    kept = [pictures[int(n * step)] for n in range(int(len(pictures) / step))]
    height, width = kept[0].shape[:2]
    middle = slice(height // 4, height * 3 // 4), slice(width // 4, width * 3 // 4)
    return [cv2.resize(rgb[middle], size, interpolation=cv2.INTER_AREA) for rgb in kept]


def make_turn(path: Path, fps: int, size: tuple[int, int]) -> None:
    """Write thirty seconds of video: walkers, then the empty hall."""
    scene = walkers(fps, size)
    hall = np.median(scene, axis=0).astype(np.uint8)
    rng = np.random.default_rng(7)
    with av.open(str(path), "w") as out:
        film = out.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": "26", "bf": "0"})
        assert isinstance(film, av.VideoStream)
        film.width, film.height, film.pix_fmt = *size, "yuv420p"
        tracks = [out.add_stream("pcm_s16le", rate=SOUND, layout="mono") for _ in range(2)]
        tone = (np.sin(2 * np.pi * 330 * np.arange(SOUND // fps) / SOUND) * 6000).astype(np.int16)
        for n in range(EVERY_S * fps):
            rgb = scene[n] if n < len(scene) else hall
            noise = rng.integers(0, 6, (*rgb.shape[:2], 1), np.uint8)
            frame = av.VideoFrame.from_ndarray(rgb // 2 + 60 + noise, format="rgb24").reformat(format="yuv420p")
            out.mux(film.encode(frame))
            for track in tracks:
                sound = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
                sound.sample_rate = SOUND
                sound.pts = n * len(tone)
                out.mux(track.encode(sound))
        for stream in (film, *tracks):
            out.mux(stream.encode(None))


def make(path: Path, seconds: int, fps: int, size: tuple[int, int]) -> None:
    """Write the same thirty seconds repeatedly by copying their packets."""
    turn = path.with_suffix(".turn.mkv")
    part = path.with_suffix(".part.mkv")
    make_turn(turn, fps, size)
    with av.open(str(part), "w") as out:
        streams: list[av.stream.Stream] = []
        for again in range(max(1, seconds // EVERY_S)):
            with av.open(str(turn)) as source:
                streams = streams or [out.add_stream_from_template(stream) for stream in source.streams]
                for packet in source.demux():
                    if packet.size and packet.pts is not None and packet.dts is not None and packet.time_base:
                        late = round(again * EVERY_S / packet.time_base)
                        packet.pts = packet.pts + late
                        packet.dts = packet.dts + late
                        packet.stream = streams[packet.stream_index]
                        out.mux(packet)
    turn.unlink()
    part.rename(path)


def resident_mb(pid: int) -> float | None:
    """The process's resident memory; None if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    rss = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(rss[0]) / 1024 if rss else None


def watch(command: list[str], pause_s: float) -> tuple[list[tuple[float, float]], str]:
    """Run a command; returns memory samples (seconds, MB) and its standard output."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    samples = []
    while process.poll() is None:
        if (mb := resident_mb(process.pid)) is not None:
            samples.append((time.monotonic() - began, mb))
        time.sleep(pause_s)
    output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        sys.exit(f"it failed with exit code {process.returncode}")
    return samples, output


def draw(path: Path, samples: np.ndarray, fit: np.ndarray, seconds: int) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3), dpi=90)
    minutes = samples[:, 0] / samples[-1, 0] * seconds / 60
    axes.plot(minutes, samples[:, 1], lw=0.8, label="resident memory")
    axes.plot(minutes, np.polyval(fit, minutes), "--", lw=1, label=f"{fit[0] * 60:+.2f} MB an hour of video")
    axes.set(xlabel="minutes of video, roughly", ylabel="MB", ylim=(0, samples[:, 1].max() * 1.2))
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--fps", type=int, default=10)
    parser.add_argument("--size", default="192x108")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two samples")
    parser.add_argument("--plot", type=Path)
    given = sys.argv[1:]
    cut = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:cut])
    options.out.mkdir(parents=True, exist_ok=True)
    clip = options.out / "hour.mkv"
    if not clip.exists():
        width, height = (int(n) for n in options.size.split("x"))
        make(clip, options.seconds, options.fps, (width, height))
    command = [sys.executable, "-m", "facestream", "anonymize", str(clip), "-o", str(options.out / "covered.mkv")]
    samples, output = watch([*command, "--overwrite", *given[cut + 1 :]], options.pause)
    table = np.array(samples)
    late = table[table[:, 0] > SETTLED * table[-1, 0]]
    fit = np.polyfit(late[:, 0] / table[-1, 0] * options.seconds / 60, late[:, 1], 1)
    if options.plot:
        draw(options.plot, table, fit, options.seconds)
    print(output.strip())
    figures = {
        "samples": len(table),
        "seconds": round(float(table[-1, 0]), 1),
        "median_mb": round(float(np.median(late[:, 1])), 1),
        "largest_mb": round(float(table[:, 1].max()), 1),
        "mb_per_hour_of_video": round(float(fit[0] * 60), 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
