"""Every covered pixel is attributed to one cause."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from facestream.benchmarks.overblur import CAUSES, autopsy, is_on, line
from facestream.pipeline.config import Config
from facestream.pipeline.evaluate.leaks import read_truth
from facestream.pipeline.types import Box, BoxKind, BoxState, TrackedFrame

FACE = (40.0, 40.0, 60.0, 60.0)
FAR = (150.0, 100.0, 170.0, 120.0)


def examined(tmp_path: Path, *frames: list[Box]) -> Any:
    truth = tmp_path / "clip.truth.txt"
    truth.write_text("".join(f"{n},1,40,40,20,20\n" for n in range(1, len(frames) + 1)))
    done: Any = [
        TrackedFrame(SimpleNamespace(index=n, size=(200, 150), time_s=n / 25), tuple(boxes))  # type: ignore[arg-type]
        for n, boxes in enumerate(frames)
    ]
    reel: Any = SimpleNamespace(truth=read_truth(truth))
    return autopsy(reel, Config(), done)


def test_a_cover_of_the_true_box_has_the_ideal_margin_and_nothing_else(tmp_path: Path) -> None:
    part = examined(tmp_path, [Box(1, FACE, 0.9, BoxState.OBSERVED)])
    shares = {cause: area / part.faces for cause, area in part.areas.items() if area}
    assert shares == {"ideal": pytest.approx(Config().cover.scale ** 2 - 1, abs=0.05)}
    assert part.leaks.leaked == 0


def test_false_tracks_are_told_from_tracks_on_faces_in_all_their_frames(tmp_path: Path) -> None:
    part = examined(
        tmp_path,
        [Box(1, FACE, 0.9, BoxState.OBSERVED), Box(2, FAR, 0.6, BoxState.OBSERVED)],
        [Box(1, FACE, 0.9, BoxState.OBSERVED), Box(2, FAR, 0.6, BoxState.COASTED)],
        [Box(1, FACE, 0.9, BoxState.OBSERVED), Box(1, FAR, 0.9, BoxState.BACKFILLED, kind=BoxKind.ALTERNATE)],
    )
    assert part.areas["false, detected"] == part.areas["false, inferred"] == part.areas["alternate"] > 0
    assert [part.areas[cause] for cause in ("observed", "coasted", "backfilled")] == [0, 0, 0]
    assert (part.tracks[2].real, part.tracks[2].detections, part.tracks[2].frames) == (False, 1, 2)
    assert part.tracks[1].real


def test_the_parts_sum_to_what_is_covered(tmp_path: Path) -> None:
    part = examined(tmp_path, [Box(1, (35, 35, 75, 75), 0.9, BoxState.OBSERVED), Box(2, FAR, 0.6, BoxState.OBSERVED)])
    assert sum(part.areas.values()) / part.faces == pytest.approx(part.leaks.overblur)
    assert f"| {1 + part.leaks.overblur:.2f} |" in line("clip", [part])
    assert set(part.areas) == set(CAUSES)


def test_a_body_around_a_face_is_not_on_it() -> None:
    faces = np.array([FACE])
    assert is_on(np.array(FACE), faces)
    assert not is_on(np.array((10, 10, 90, 90.0)), faces), "four times as large"
    assert not is_on(np.array(FAR), faces)
