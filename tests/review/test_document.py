"""Changes to the faces of a video: what stays open, undo, the draft."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from facestream.engines.checked import Wrong
from facestream.pipeline.errors import BadInput
from facestream.pipeline.records import Face, Record
from facestream.pipeline.review.document import Document
from facestream.pipeline.review.draft import Draft, draft_path, hash_of, read_draft, replay, write_draft
from facestream.pipeline.review.edits import (
    Accept,
    AnyEdit,
    Audio,
    Boxes,
    Cover,
    Delete,
    LeaveOpen,
    Mask,
    Merge,
    MoveMask,
    Split,
    Unmask,
)  # fmt: skip
from facestream.pipeline.types import BoxState

SEEN, COASTED, FILLED = BoxState.OBSERVED, BoxState.COASTED, BoxState.BACKFILLED


def face(track: int, x: float, state: BoxState = SEEN, score: float = 0.9) -> Face:
    return Face(track, (x, 10.0, x + 20, 34.0), score, state)


def rows(*tracks: dict[int, Face], frames: int = 40) -> dict[int, Record]:
    return {
        n: Record(frame=n, width=640, height=360, pts=n, time_s=n / 25, faces=tuple(t[n] for t in tracks if n in t))
        for n in range(frames)
    }


def still(track: int, x: float, start: int = 0, end: int = 39) -> dict[int, Face]:
    return {n: face(track, x) for n in range(start, end + 1)}


def document(*tracks: dict[int, Face], frames: int = 40) -> Document:
    return Document(rows(*tracks, frames=frames), 25.0, 1.4)


def opened(made: Document, track: int) -> list[int]:
    return [n for n in range(made.frames) if track in made.boxes(n) and made.is_left_open(n, track)]


def test_somebody_stays_open_where_it_is_certain_and_only_in_the_range() -> None:
    made = document(still(1, 100), still(2, 400))
    made.apply(LeaveOpen(tracks=(1,), start=5, end=20, reason="consent"))
    assert opened(made, 1) == list(range(5, 21))
    assert [f.id for f in made.covered(10)] == [2]
    assert [f.id for f in made.covered(30)] == [1, 2]
    assert made.export()[10].faces == (face(2, 400),)
    made.apply(Cover(tracks=(1,), start=10, end=12))
    assert opened(made, 1) == [*range(5, 10), *range(13, 21)]


@pytest.mark.parametrize(
    ("doubtful", "why"),
    [
        ({n: face(1, 100, COASTED) for n in range(12, 26)}, "guessed for long"),
        ({n: face(1, 100, FILLED) for n in range(12, 26)}, "inferred for long"),
        ({n: face(1, 100, SEEN, 0.3) for n in range(12, 26)}, "doubtful scores"),
        ({n: face(1, 300) for n in range(18, 40)}, "jumped"),
    ],
)
def test_in_any_doubt_a_face_stays_covered(doubtful: dict[int, Face], why: str) -> None:
    made = document(still(1, 100) | doubtful)
    made.apply(LeaveOpen(tracks=(1,), start=0, end=39, reason="consent"))
    open_ = set(opened(made, 1))
    assert open_, why
    if why == "jumped":
        assert not open_ & {16, 17, 18, 19}
    else:
        assert not open_ & set(range(12, 26))
        assert not open_ & {10, 11, 26, 27}  # nor next to it


def test_frames_between_detections_are_no_doubt() -> None:
    made = document({n: face(1, 100, SEEN if n % 2 == 0 else FILLED) for n in range(41)}, frames=41)
    made.apply(LeaveOpen(tracks=(1,), start=0, end=40, reason="consent"))
    assert opened(made, 1) == list(range(41))


def test_who_touches_another_one_stays_covered() -> None:
    walker = {n: face(2, 40 + 4 * n) for n in range(40)}
    made = document(still(1, 100), walker)
    made.apply(LeaveOpen(tracks=(1,), start=0, end=39, reason="consent"))
    near = {n for n in range(40) if abs(walker[n].xyxy[0] - 100) <= 28}
    assert set(opened(made, 1)) == set(range(40)) - near
    assert near


def test_over_a_cut_and_at_another_place_nobody_stays_open() -> None:
    made = document(still(1, 100) | {20: face(1, 100)}, {n: face(-1, 300) for n in range(40)})
    made.set_cuts([20])
    made.apply(LeaveOpen(tracks=(1, -1), start=0, end=39, reason="consent"))
    assert opened(made, -1) == []
    assert not set(opened(made, 1)) & {18, 19, 20, 21}


def test_leaving_open_needs_a_reason() -> None:
    made = document(still(1, 100))
    with pytest.raises(BadInput, match="reason"):
        made.apply(LeaveOpen(tracks=(1,), start=0, end=9, reason="  "))
    assert not made.done


def test_splitting_takes_what_was_decided_along_and_merging_does_not() -> None:
    made = document(still(1, 100), still(2, 400, 0, 9))
    made.apply(LeaveOpen(tracks=(1,), start=0, end=39, reason="consent"))
    made.apply(Split(track=1, frame=20, new=made.next_track()))
    assert made.spans[3] == list(range(20, 40))
    assert opened(made, 1)
    assert opened(made, 3)
    made.apply(Merge(tracks=(2, 3)))
    assert made.spans[2] == [*range(10), *range(20, 40)]
    assert opened(made, 2) == []  # 2 was covered, and is now both: fail closed
    made.undo()
    made.undo()
    assert made.spans[1] == list(range(40))


def test_merging_keeps_both_boxes_of_a_frame() -> None:
    made = document(still(1, 100, 0, 20), still(2, 400, 15, 39))
    made.apply(Merge(tracks=(1, 2)))
    assert len(made.boxes(18)) == 2
    assert len(made.boxes(30)) == 1
    assert list(made.boxes(30)) == [1]


def test_deleting_takes_the_other_place_along() -> None:
    made = document(still(1, 100), {n: face(-1, 300) for n in range(10)})
    made.apply(Delete(tracks=(1,), start=5, end=39))
    assert made.spans == {1: list(range(5)), -1: list(range(5))}


def test_a_drawn_box_is_a_track_with_a_place_in_every_frame() -> None:
    made = document(still(1, 100))
    made.apply(
        Boxes(track=2, frame=5, boxes=((4, (1.0, 2, 3, 4)), (5, (1.0, 2, 3, 4.004)), (6, (1.0, 2, 3, 4))), drawn=True)
    )
    states = [made.boxes(n)[2].state for n in (4, 5, 6)]
    assert states == [FILLED, SEEN, COASTED]
    assert made.boxes(5)[2].xyxy == (1, 2, 3, 4)
    with pytest.raises(BadInput, match="no frame 40"):
        made.apply(Boxes(track=3, frame=40, boxes=((40, (1.0, 2, 3, 4)),), drawn=True))


def test_masks_are_in_the_records_that_are_exported() -> None:
    made = document(still(1, 100))
    made.apply(Mask(label=1, start=3, end=4, points=((10, 20), (50, 60))))
    out = made.export()
    assert out[3].masks == (((10, 20), (50, 20), (50, 60), (10, 60)),)
    assert out[5].masks == ()
    made.apply(Unmask(label=1))
    assert made.export()[3].masks == ()


def test_a_mask_moves_evenly_from_key_frame_to_key_frame() -> None:
    made = document(still(1, 100))
    made.apply(Mask(label=1, start=2, end=30, frame=10, points=((50, 60), (10, 20))))
    made.apply(MoveMask(label=1, frame=20, points=((110, 20), (150, 60))))
    made.apply(MoveMask(label=1, frame=25, points=((110, 120), (150, 120), (150, 180), (110, 180))))
    lefts = {n: made.polygons_at(n)[0][0] for n in (2, 10, 15, 20, 22, 25, 30)}
    assert lefts == {
        2: (10, 20), 10: (10, 20), 15: (60, 20), 20: (110, 20), 22: (110, 60), 25: (110, 120), 30: (110, 120),
    }  # fmt: skip
    assert made.export()[15].masks == (((60, 20), (100, 20), (100, 60), (60, 60)),)
    assert made.polygons_at(1) == made.polygons_at(31) == ()
    made.apply(MoveMask(label=1, frame=2, points=((0, 0), (40, 40))))  # before all others
    assert made.polygons_at(6)[0][0] == (5, 10)
    made.undo()
    made.undo()
    assert made.polygons_at(30)[0][0] == (110, 20)
    made.apply(Mask(label=2, start=0, end=39, points=((0, 0), (9, 0), (0, 9))))
    for wrong, why in (
        (MoveMask(label=3, frame=5, points=((0, 0), (1, 1))), "no mask 3"),
        (MoveMask(label=1, frame=31, points=((0, 0), (1, 1))), "does not reach to frame 31"),
        (MoveMask(label=2, frame=5, points=((0, 0), (1, 1))), "another number of corners"),
    ):
        with pytest.raises(BadInput, match=why):
            made.apply(wrong)
    with pytest.raises(Wrong, match="2 points each"):
        Mask(label=1, end=9, points=((0, 0), (9, 9)), keys=((5, ((0, 0), (9, 0), (0, 9))),))


def everything(made: Document) -> str:
    """All that a document holds, as text."""
    open_ = {t: [(r.start, r.end, r.reason) for r in ranges] for t, ranges in sorted(made.open.items())}
    faces = {n: [made.boxes(n)[t] for t in sorted(made.boxes(n))] for n in range(made.frames)}
    left = {t: opened(made, t) for t in sorted(made.spans)}
    masks = sorted(made.masks.items())
    return repr((sorted(made.spans.items()), open_, faces, masks, sorted(made.accepted), made.audio, left))


def some_edit(made: Document, rng: random.Random) -> AnyEdit:
    tracks = sorted(made.spans)
    track = rng.choice(tracks) if tracks else 1
    start, end = sorted((rng.randrange(40), rng.randrange(40)))
    box = (float(rng.randrange(500)), 10.0, 600.0, 60.0)
    return rng.choice(
        [
            Cover(tracks=(track,), start=start, end=end),
            LeaveOpen(tracks=(track,), start=start, end=end, reason="r"),
            Delete(tracks=(track,), start=start, end=end),
            Split(track=track, frame=start, new=made.next_track()),
            Merge(tracks=(track, rng.choice(tracks or [1]))),
            Boxes(track=made.next_track(), frame=start, boxes=tuple((f, box) for f in range(start, end)), drawn=True),
            Boxes(track=track, frame=start, boxes=((start, box),)),
            Mask(label=made.next_mask(), start=start, end=end, points=((0.0, 0.0), (9.0, 9.0))),
            MoveMask(label=1, frame=start, points=((end + 0.5, 0.5), (end + 9.5, 9.5))), Unmask(label=1),
            Accept(key=f"k{start}"), Audio(audio="drop"),
        ]
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(25))
def test_undo_redo_and_the_draft_give_the_same_again(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    tracks = still(1, 100), still(2, 130, 10, 30), still(5, 400, 3, 39), {n: face(-5, 200) for n in range(5, 9)}
    made = document(*tracks)
    history = [everything(made)]
    while len(made.done) < 12:
        before = everything(made)
        try:
            made.apply(some_edit(made, rng))
        except BadInput:
            assert everything(made) == before
            continue
        history.append(everything(made))
    for state in reversed(history[:-1]):
        made.undo()
        assert everything(made) == state
    assert made.undo() is None
    for state in history[1:]:
        made.redo()
        assert everything(made) == state
    records = tmp_path / "r.jsonl"
    records.write_text("x")
    path = draft_path(records)
    write_draft(path, Draft(hash_of(records), edits=tuple(s.edit for s in made.done)))
    again = document(*tracks)
    draft = read_draft(path, records)
    assert draft is not None
    replay(again, draft.edits, path)
    assert everything(again) == history[-1]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"records_sha256": 3}', '{"records_sha256": "x", "edits": [{"kind": "no"}]}']
)
def test_a_draft_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    records = tmp_path / "r.jsonl"
    records.write_text("x")
    draft_path(records).write_text(text)
    with pytest.raises(BadInput, match=r"draft") as error:
        read_draft(draft_path(records), records)
    assert "\n" not in str(error.value)
    assert draft_path(records).read_text() == text


def test_a_draft_of_other_records_is_refused(tmp_path: Path) -> None:
    records = tmp_path / "r.jsonl"
    records.write_text("x")
    write_draft(draft_path(records), Draft(hash_of(records)))
    records.write_text("y")
    with pytest.raises(BadInput, match="other records"):
        read_draft(draft_path(records), records)


def test_the_draft_holds_no_picture(tmp_path: Path) -> None:
    records = tmp_path / "r.jsonl"
    records.write_text("x")
    write_draft(draft_path(records), Draft(hash_of(records), edits=(Accept(key="k"),)))
    assert set(json.loads(draft_path(records).read_text())) == {
        "records_sha256", "format", "video", "edits", "groups", "grouped_by", "notes",
    }  # fmt: skip
