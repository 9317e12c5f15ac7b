"""Loops a clip until it has enough frames, by copying the video's packets; without audio.

python benchmarks/loop_clip.py IN FRAMES OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import av


def loop(source: Path, frames: int, out: Path) -> int:
    """Write whole repetitions of a file's video until there are at least `frames` frames; returns their number."""
    with av.open(str(source)) as clip, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(clip.streams.video[0])
        # Read again for each repetition: muxing changes a packet.
        spans = [(p.dts, p.dts + (p.duration or 1)) for p in clip.demux(video=0) if p.dts is not None]
        if not spans:
            raise SystemExit(f"{source}: there is no frame in it")
        step = max(end for _, end in spans) - min(begin for begin, _ in spans)
        rounds = -(-frames // len(spans))
        for turn in range(rounds):
            clip.seek(0)
            for packet in clip.demux(video=0):
                if packet.dts is None or packet.pts is None:
                    continue
                packet.dts = packet.dts + turn * step
                packet.pts = packet.pts + turn * step
                packet.stream = stream
                target.mux(packet)
    return rounds * len(spans)


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[2].isdigit():
        sys.exit((__doc__ or "").strip())
    print(loop(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])), "frames")
