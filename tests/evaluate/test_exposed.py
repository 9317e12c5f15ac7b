from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.pipeline.evaluate.exposed import ROWS, TILE, Filmstrip, timeline
from facestream.pipeline.evaluate.tally import FaceFrame, Tally
from facestream.pipeline.types import Frame
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.source import open_source

from tests.pack import DEMO, demo_truth


def tally(tracks: dict[int, list[float]]) -> Tally:
    out = Tally()
    for track, shares in tracks.items():
        out.face_frames[track] = [FaceFrame(i, share, 100, i / 25) for i, share in enumerate(shares)]
    return out


def pixels(path: Path) -> Array:
    image = cv2.imread(str(path))
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def test_the_timeline_shows_when_each_track_leaks(tmp_path: Path) -> None:
    timeline(tally({7: [1.0] * 60 + [0.2] * 40, 3: [1.0] * 100}), tmp_path / "t.png")
    image = pixels(tmp_path / "t.png")
    red = (image == (230, 60, 50)).all(2)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    assert rows.max() < 36 + 16  # the leaking track comes first
    assert 150 + 600 <= columns.min() <= 152 + 600  # from frame 60 of 100, on a thousand pixels
    assert columns.max() >= 148 + 1000
    assert (image[36 + 16 + 5, 200:1100] == 110).all(), "the other is covered throughout"


def test_the_filmstrip_shows_the_longest_runs_first_with_what_was_seen(tmp_path: Path) -> None:
    source = open_source(str(DEMO), SourceOptions())
    source.open()
    frames = [item for item, _ in zip((i for i in source.items() if isinstance(i, Frame)), range(30), strict=False)]
    source.close()
    face = np.array(demo_truth()[29][0])
    strip, counted = Filmstrip(), tally({1: [1.0] * 27 + [0.5], 2: [1.0] * 20 + [0.1] * 10})
    for track, rows in counted.face_frames.items():
        for face_frame in rows:
            strip.add(frames[face_frame.frame], track, face, np.zeros((0, 4)), face_frame.share)
    assert set(strip.tiles) == {(1, 27), *((2, i) for i in range(20, 30))}
    strip.save(counted, tmp_path / "worst.png")
    image = pixels(tmp_path / "worst.png")
    assert image.shape == (2 * (TILE + 18), 10 * TILE, 3)
    first, second = image[18 : 18 + TILE], image[TILE + 36 :]
    assert all(first[:, i * TILE : (i + 1) * TILE].std() > 10 for i in range(10)), "ten frames of the longer run"
    assert second[:, :TILE].std() > 10
    assert (second[:, TILE:] == 30).all(), "one of the shorter"
    middle = strip.tiles[2, 29].rgb[TILE // 2 - 15 : TILE // 2 + 15, TILE // 2 - 15 : TILE // 2 + 15]
    assert middle[..., 0].mean() > middle[..., 2].mean() + 15, "skin is in the middle"


def test_many_runs_are_cut_and_none_is_said(tmp_path: Path) -> None:
    Filmstrip().save(tally({i: [0.0] * (i + 1) for i in range(20)}), tmp_path / "many.png")
    assert pixels(tmp_path / "many.png").shape[0] == ROWS * (TILE + 18)
    Filmstrip().save(tally({1: [1.0]}), tmp_path / "none.png")
    assert pixels(tmp_path / "none.png").max() > 150  # a sentence
