from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
from facestream.benchmarks.loop_clip import loop

from tests.conftest import render


def test_a_clip_goes_round_without_a_gap(tmp_path: Path) -> None:
    source = render(tmp_path / "in.mp4", frames=12)
    assert loop(source, 30, tmp_path / "out.mp4") == 36
    with av.open(str(source)) as clip, av.open(str(tmp_path / "out.mp4")) as long:
        once = [frame.to_ndarray() for frame in clip.decode(video=0)]
        frames = list(long.decode(video=0))
    assert len(frames) == 36
    assert len({b.pts - a.pts for a, b in pairwise(frames)}) == 1  # type: ignore[operator]
    assert (frames[24].to_ndarray() == once[0]).all()
    assert (frames[35].to_ndarray() == once[11]).all()
