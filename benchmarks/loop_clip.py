"""A clip played over and over until it has enough frames: the video's packets, as they are, without sound.

python benchmarks/loop_clip.py IN FRAMES OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import av


def loop(source: Path, frames: int, out: Path) -> int:
    """Write whole rounds of a file's video until there are at least `frames` frames; returns how many there are."""
    with av.open(str(source)) as clip, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(clip.streams.video[0])
        # Each is read anew for each round: muxing changes a packet.
        spans = [(p.dts, p.dts + (p.duration or 1)) for p in clip.demux(video=0) if p.dts is not None]
        if not spans:
            raise SystemExit(f"{source}: there is no frame in it")
        step, rounds = max(end for _, end in spans) - min(begin for begin, _ in spans), -(-frames // len(spans))
        for turn in range(rounds):
            clip.seek(0)
            for packet in clip.demux(video=0):
                if packet.dts is None or packet.pts is None:
                    continue
                packet.dts, packet.pts = packet.dts + turn * step, packet.pts + turn * step
                packet.stream = stream
                target.mux(packet)
    return rounds * len(spans)


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[2].isdigit():
        sys.exit((__doc__ or "").strip())
    print(loop(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])), "frames")
