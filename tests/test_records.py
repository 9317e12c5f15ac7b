from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest
from facestream.engines.errors import BadConfig
from facestream.pipeline.errors import BadInput
from facestream.pipeline.records import RecordSink, head, lines, read_records, record
from facestream.pipeline.types import Box, BoxKind, BoxState, Frame, TrackedFrame


def tracked(index: int, rotation: int = 0) -> TrackedFrame:
    frame = Frame(index, 512 * index, Fraction(1, 15360), av.VideoFrame(64, 32, "yuv420p"), rotation)
    return TrackedFrame(frame, (Box(3, (1.234567, 2.0, 30.5, 40.0), 0.876543, BoxState.COASTED),))


def test_a_line_is_as_the_contract_says(tmp_path: Path) -> None:
    sink = RecordSink(tmp_path / "out.jsonl", overwrite=False)
    sink.write(tracked(2), "clip.mp4")
    sink.commit()
    assert not (tmp_path / "out.jsonl").exists()  # not before it is whole
    sink.close()
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "source": "clip.mp4", "frame": 2, "pts": 1024, "time_s": 0.066667, "width": 64, "height": 32,
        "faces": [{"id": 3, "xyxy": [1.23, 2.0, 30.5, 40.0], "score": 0.8765, "state": "coasted"}],
    }  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


def test_sizes_are_those_of_the_displayed_picture(tmp_path: Path) -> None:
    sink = RecordSink(tmp_path / "out.jsonl", overwrite=False)
    sink.write(tracked(0, rotation=90), "x")
    sink.close()
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert (row["width"], row["height"]) == (32, 64)


def test_a_source_that_fails_leaves_no_lines(tmp_path: Path) -> None:
    sink = RecordSink(tmp_path / "out.jsonl", overwrite=False)
    sink.write(tracked(0), "good")
    sink.commit()
    sink.write(tracked(0), "bad")
    sink.write(tracked(1), "bad")
    sink.rollback()
    sink.write(tracked(0), "fine")
    sink.close()
    rows = [json.loads(line)["source"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == ["good", "fine"]


def test_nothing_is_left_after_abort_and_nothing_is_overwritten(tmp_path: Path) -> None:
    sink = RecordSink(tmp_path / "out.jsonl", overwrite=False)
    sink.write(tracked(0), "x")
    sink.abort()
    assert not list(tmp_path.iterdir())
    (tmp_path / "out.jsonl").write_text("old")
    with pytest.raises(BadInput, match="exists already"):
        RecordSink(tmp_path / "out.jsonl", overwrite=False)
    assert (tmp_path / "out.jsonl").read_text() == "old"


def written(path: Path) -> Path:
    sink = RecordSink(path, overwrite=False)
    for i in range(3):
        boxes = (Box(1, (1.0, 2.0, 30.5, 40.0), 0.9, BoxState.OBSERVED), Box(4, (3.25, 2, 9, 9), 0.3, BoxState.COASTED))
        frame = Frame(i, 512 * i, Fraction(1, 15360), av.VideoFrame(64, 32, "yuv420p"))
        sink.write(TrackedFrame(frame, boxes if i != 1 else ()), "clip.mp4")
    sink.close()
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".mot"])
def test_what_was_written_is_read_again(tmp_path: Path, ending: str) -> None:
    rows = read_records(written(tmp_path / f"r{ending}"))
    assert sorted(rows) == ([0, 2] if ending == ".mot" else [0, 1, 2])  # MOT has no rows for empty frames
    boxes = [face.box() for face in rows[2].faces]
    assert [b.id for b in boxes] == [1, 4]
    assert boxes[1].xyxy == pytest.approx((3.25, 2, 9, 9))
    assert boxes[1].score == pytest.approx(0.3)
    if ending != ".mot":
        assert boxes[1].state is BoxState.COASTED
        assert (rows[1].pts, rows[1].width, rows[1].height, rows[1].source) == (512, 64, 32, "clip.mp4")


def test_csv_is_a_table_with_a_row_a_face(tmp_path: Path) -> None:
    text = written(tmp_path / "r.csv").read_text().splitlines()
    assert text[0] == "source,frame,pts,time_s,width,height,id,x1,y1,x2,y2,score,state"
    assert text[1] == "clip.mp4,0,0,0.0,64,32,1,1.0,2.0,30.5,40.0,0.9,observed"
    assert text[3] == "clip.mp4,1,512,0.033333,64,32,,,,,,,"


def test_a_face_added_by_hand_needs_only_id_and_box(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"frame": 0, "faces": [{"id": 9, "xyxy": [1, 2, 3, 4]}]}\n\n')
    (face,) = read_records(tmp_path / "r.jsonl")[0].faces
    assert face.box() == Box(9, (1, 2, 3, 4), 1.0, BoxState.OBSERVED)


@pytest.mark.parametrize(
    ("name", "text", "where", "what"),
    [
        ("r.jsonl", '{"frame": 0}\n{"frame": 1,\n', "r.jsonl:2", "not JSON"),
        ("r.jsonl", '{"frame": -1}\n', "r.jsonl:1", "frame"),
        ("r.jsonl", '{"frame": 0, "face": []}\n', "r.jsonl:1", "face"),
        ("r.jsonl", '{"frame": 0, "faces": [{"id": 1, "xyxy": [5, 1, 2, 3]}]}\n', "r.jsonl:1", "left of"),
        ("r.jsonl", '{"frame": 0, "faces": [{"id": 1, "xyxy": [1, 1, NaN, 3]}]}\n', "r.jsonl:1", "finite"),
        ("r.jsonl", '{"frame": 0, "faces": [{"id": 1, "xyxy": [1, 1, 2]}]}\n', "r.jsonl:1", "xyxy"),
        ("r.jsonl", '{"frame": 0}\n{"frame": 0}\n', "r.jsonl:2", "twice"),
        ("r.jsonl", '{"frame": 0, "faces": [{"id": 1, "xyxy": [1, 1, 2, 2]}, {"id": 1, "xyxy": [1, 1, 2, 2]}]}\n',
         "r.jsonl:1", "id twice"),
        ("r.csv", "frame,id\n0,1\n", "r.csv:1", "first line"),
        ("r.csv", "source,frame,pts,time_s,width,height,id,x1,y1,x2,y2,score,state\n,0,,,,,1,a,2,3,4,,\n",
         "r.csv:2", "xyxy"),
        ("r.mot", "1,1,10,10,5,5\n2,1,ten,10,5,5\n", "r.mot:2", "frame,id,left"),
        ("r.mot", "0,1,10,10,5,5\n", "r.mot:1", "frame"),
    ],
)  # fmt: skip
def test_malformed_records_name_file_and_line(tmp_path: Path, name: str, text: str, where: str, what: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=what) as caught:
        read_records(tmp_path / name)
    assert where in str(caught.value)


def test_of_several_sources_the_videos_own_records_are_taken(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("".join(f'{{"source": "in/{s}.mp4", "frame": 0, "pts": {s}}}\n' for s in (1, 2)))
    assert read_records(tmp_path / "r.jsonl", "elsewhere/2.mp4")[0].pts == 2
    with pytest.raises(BadInput, match="none of them"):
        read_records(tmp_path / "r.jsonl", "3.mp4")


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"\.jsonl"):
        RecordSink(tmp_path / "r.xml", overwrite=False)


def two_places() -> TrackedFrame:
    """A track at two places, another one, and a cover of the whole frame."""
    face = Box(1, (10.0, 10.0, 20.0, 20.0), 0.9, BoxState.COASTED)
    other = Box(1, (100.0, 50.0, 120.0, 70.0), 0.8, BoxState.BACKFILLED, kind=BoxKind.ALTERNATE)
    next_one = Box(2, (30.0, 30.0, 40.0, 40.0), 0.7, BoxState.OBSERVED)
    cover = Box(0, (-80.0, -60.0, 240.0, 180.0), 0.0, BoxState.COASTED, kind=BoxKind.WHOLE_FRAME)
    return TrackedFrame(
        Frame(0, 0, Fraction(1, 25), av.VideoFrame(160, 120, "yuv420p")), (face, other, next_one, cover)
    )


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_boxes_that_are_no_face_of_their_own_come_back_as_what_they_are(tmp_path: Path, ending: str) -> None:
    tracked = two_places()
    path = tmp_path / f"r{ending}"
    path.write_text(head(ending) + lines(record(tracked, "v.mp4"), ending))
    (row,) = read_records(path).values()
    assert [face.box() for face in row.faces] == [replace(box, association=None) for box in tracked.boxes]
    faces = record(tracked, "v.mp4")["faces"]
    assert [face.get("kind") for face in faces] == [None, "alternate", None, "whole_frame"]
    assert min(face["id"] for face in faces) >= 0


def test_mot_has_one_box_a_track_and_never_a_negative_id(tmp_path: Path) -> None:
    rows = [line.split(",") for line in lines(record(two_places(), "v.mp4"), ".mot").splitlines()]
    assert [int(row[1]) for row in rows] == [1, 2, 0]
    assert [float(v) for v in rows[0][2:6]] == [10, 10, 110, 60]  # around both places: none is left open
    path = tmp_path / "r.mot"
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    (row,) = read_records(path).values()
    assert [face.id for face in row.faces] == [1, 2, 0]


def test_records_of_before_the_kinds_are_read_as_they_were_meant(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    box = [10, 10, 20, 20]
    faces = [{"id": 3, "xyxy": box}, {"id": -3, "xyxy": box, "state": "backfilled"}, {"id": 0, "xyxy": box}]
    path.write_text(json.dumps({"frame": 0, "faces": faces}) + "\n")
    (row,) = read_records(path).values()
    kinds = [(3, BoxKind.FACE), (3, BoxKind.ALTERNATE), (0, BoxKind.WHOLE_FRAME)]
    assert [(face.id, face.kind) for face in row.faces] == kinds


def test_an_id_twice_is_still_refused_where_both_were_observed(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    faces = [{"id": 3, "xyxy": [10, 10, 20, 20]}, {"id": 3, "xyxy": [30, 10, 40, 20]}]
    path.write_text(json.dumps({"frame": 0, "faces": faces}) + "\n")
    with pytest.raises(BadInput, match="an id twice"):
        read_records(path)
