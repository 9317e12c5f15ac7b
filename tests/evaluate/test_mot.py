from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from facestream.pipeline.cli.evaluate import tracks
from facestream.pipeline.config import TrackerConfig
from facestream.pipeline.errors import BadInput
from facestream.pipeline.evaluate import mot

TUNED = TrackerConfig(high_score=mot.HIGH, new_track_score=mot.BIRTH)
trackeval = pytest.importorskip("trackeval", reason="the extra `evaluate` is not installed")


def walkers(folder: Path, name: str = "WALK", frames: int = 30, gap: range = range(0), swing: float = 0.0) -> Path:
    """Three people who walk to the right, all detected but the first one in `gap`; a camera that swings to and fro."""
    sequence = folder / name
    for part in ("det", "gt"):
        (sequence / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    place = np.concatenate([np.zeros((1, 2)), rng.uniform(-swing, swing, (frames - 1, 2))]).cumsum(0)
    found, truth = [], []
    for i in range(frames):
        for who, (x, y) in enumerate(((100, 100), (300, 150), (500, 300)), 1):
            box = f"{x + 3 * i + place[i, 0]:.2f},{y + place[i, 1]:.2f},40,90"
            truth.append(f"{i + 1},{who},{box},1,1,1")
            if who > 1 or i not in gap:
                found.append(f"{i + 1},-1,{box},{0.9 if i % 3 else 0.4}" + ",-1,-1,-1")
    (sequence / "det/det.txt").write_text("\n".join(found) + "\n")
    (sequence / "gt/gt.txt").write_text("\n".join(truth) + "\n")
    steps = np.diff(place, axis=0, prepend=0)
    (sequence / "gmc.txt").write_text("".join(f"{i + 1} 1 0 {x} 0 1 {y}\n" for i, (x, y) in enumerate(steps)))
    info = f"[Sequence]\nname={name}\nseqLength={frames}\nframeRate=30\nimWidth=800\nimHeight=600\n"
    (sequence / "seqinfo.ini").write_text(info)
    return folder


def scores(folder: Path, cmc: bool = False, interpolate_s: float = 0.0) -> dict[str, mot.Score]:
    return mot.evaluate(mot.read_sequences(folder, folder, cmc)[0], folder, TUNED, interpolate_s)


def test_perfect_detections_are_tracked_perfectly_from_their_first_sure_one_on(tmp_path: Path) -> None:
    both = scores(walkers(walkers(tmp_path), "LONG", 60))
    assert sorted(both) == ["LONG", "WALK", "all"]
    for name, missed in {"WALK": 1 / 30, "LONG": 1 / 60, "all": 2 / 90}.items():  # frame 1 has a score of 0.4
        assert pytest.approx(100 * (1 - missed), abs=0.01) == both[name].MOTA
        assert both[name].IDSW == 0
        assert both[name].HOTA > 96


def test_an_id_that_changes_costs_as_trackeval_says(tmp_path: Path) -> None:
    """One of three people has another id in the second half, and a false box stands in every frame."""
    walkers(tmp_path)
    truth = np.loadtxt(tmp_path / "WALK/gt/gt.txt", delimiter=",")
    rows = np.concatenate([truth[:, :2] - (1, 0), truth[:, 2:4], truth[:, 2:4] + truth[:, 4:6], np.ones((90, 1))], 1)
    rows[(rows[:, 1] == 1) & (rows[:, 0] >= 15), 1] = 7
    false = np.array([(i, 9, 700, 500, 740, 590, 1.0) for i in range(30)])
    result = mot.score({"WALK": np.concatenate([rows, false])}, {"WALK": 30}, tmp_path)["WALK"]
    assert result.IDSW == 1
    assert pytest.approx(100 * (1 - 31 / 90)) == result.MOTA
    assert pytest.approx(100 * 2 * 75 / (90 + 120)) == result.IDF1


def test_gaps_are_filled_on_a_straight_line_up_to_a_length(tmp_path: Path) -> None:
    walkers(tmp_path, gap=range(10, 16))
    plain, short, filled = (scores(tmp_path, interpolate_s=s)["all"] for s in (0.0, 0.1, 0.5))
    assert plain.MOTA == short.MOTA == pytest.approx(100 * (1 - 9 / 90))
    assert pytest.approx(100 * (1 - 3 / 90)) == filled.MOTA
    rows = np.array([[0, 1, 0, 0, 10, 10, 0.9], [4, 1, 8, 0, 18, 10, 0.5], [4, 2, 0, 0, 1, 1, 0.9]])
    assert mot.interpolated(rows, 2).tolist() == rows.tolist()
    assert mot.interpolated(rows, 3)[:5, [0, 1, 2]].tolist() == [[i, 1, 2 * i] for i in range(5)]


def test_the_cameras_motion_is_used_when_it_is_given(tmp_path: Path) -> None:
    walkers(tmp_path, swing=90)
    assert scores(tmp_path, cmc=True)["all"].IDF1 > 97
    assert scores(tmp_path)["all"].IDF1 < 80


def test_the_command_prints_each_sequence_and_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    walkers(walkers(tmp_path), "LONG", 60)
    (tmp_path / "MORE/gt").mkdir(parents=True)
    (tmp_path / "MORE/gt/gt.txt").write_text("")
    done = CliRunner().invoke(tracks, [str(tmp_path), str(tmp_path), "--cmc", "--json"])
    lines = done.stdout.strip().splitlines()
    assert done.exception is None
    assert [line.split()[0] for line in lines[:-1]] == ["HOTA", "LONG", "WALK", "all"]
    last = json.loads(lines[-1])
    assert list(last) == ["HOTA", "MOTA", "IDF1", "IDSW"]
    assert last["MOTA"] == pytest.approx(100 * (1 - 2 / 90), abs=0.01)
    assert "MORE" in caplog.text
    doubtful = CliRunner().invoke(tracks, [str(tmp_path), str(tmp_path), "--new-track-score", "0.95", "--json"])
    assert json.loads(doubtful.stdout.splitlines()[-1])["MOTA"] == 0  # no track is ever sure


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("det/det.txt", "1,-1,10,10,20,20,0.9\n1,-1,ten\n", r"det\.txt:2"),
        ("det/det.txt", "99,-1,10,10,20,20,0.9\n", r"frame 99 is not one of 1 to 30"),
        ("det/det.txt", "1,-1,10,10,0,20,0.9\n", r"det\.txt:1"),
        ("det/det.txt", "1.5,-1,10,10,20,20,0.9\n", r"frame 1\.5 is not one of"),
        ("det/det.txt", "0,-1,10,10,20,20,0.9\n", r"frame 0 is not one of"),
        ("det/det.txt", "\n1,-1,10,nan,20,20,0.9\n", r"det\.txt:2"),
        ("det/det.txt", "1,-1,10,10,20,20\n", r"det\.txt:1"),
        ("gt/gt.txt", "1,1,10,10,20,20,1,44,1\n", r"class"),
        ("gt/gt.txt", "1,1,10,10,20,0,1,1,1\n", r"width and height"),
        ("gt/gt.txt", "1,1,1,1,2,2,1,1,1\n1,1,1,1,2,2,1,1,1\n", r"gt\.txt:2"),
        ("gmc.txt", "1 0 0 0 0 0 0\n", r"gmc\.txt:1"),
        ("seqinfo.ini", "[Sequence]\nseqLength=30\n", r"seqinfo\.ini"),
        ("seqinfo.ini", "no section\n", r"seqinfo\.ini"),
        ("seqinfo.ini", "[Sequence]\nseqLength=30\nframeRate=0\nimWidth=8\nimHeight=6\n", r"must be positive"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    walkers(tmp_path)
    (tmp_path / "WALK" / name).write_text(text)
    with pytest.raises(BadInput, match=message):
        mot.read_sequences(tmp_path, tmp_path, cmc=True)


def test_detections_and_truth_may_lie_apart_and_in_any_order(tmp_path: Path) -> None:
    """What both may hold is taken from either; lines may be in any order, and the affines of frames left out."""
    walkers(tmp_path / "found")
    walk = tmp_path / "found/WALK"
    (tmp_path / "truth/WALK").mkdir(parents=True)
    (walk / "gt").rename(tmp_path / "truth/WALK/gt")
    (tmp_path / "found/MORE/det").mkdir(parents=True)
    (tmp_path / "found/MORE/det/det.txt").write_text("")
    lines = (walk / "det/det.txt").read_text().splitlines()
    (walk / "det/det.txt").write_text("\n\n".join(reversed(lines)) + "\n")
    (walk / "gmc.txt").write_text("3 1 0 5 0 1 -2\n")
    (sequence,), alone = mot.read_sequences(tmp_path / "found", tmp_path / "truth", cmc=True)
    assert alone == ["MORE"]
    assert (sequence.frames, sequence.rate, sequence.size) == (30, 30.0, (800, 600))
    assert sequence.found[:, 0].tolist() == [float(i) for i in range(30) for _ in range(3)]
    assert sequence.found[0, 1:].tolist() == [500, 300, 540, 390, 0.4]
    assert sequence.affines is not None
    assert sequence.affines[2].tolist() == [[1, 0, 5], [0, 1, -2]]
    assert (np.delete(sequence.affines, 2, 0) == np.eye(2, 3)).all()
    assert mot.read_sequences(tmp_path / "found", tmp_path / "truth")[0][0].affines is None


def test_what_is_too_faint_is_not_tracked_and_time_is_the_sequences(tmp_path: Path) -> None:
    faint = np.array([[i, 100, 100, 140, 190, 0.05 if i in (10, 11) else 0.9] for i in range(30)], float)
    rows = mot.track(mot.Sequence("A", 30, 30.0, (800, 600), faint), TUNED)
    assert rows[:, 0].tolist() == [i for i in range(30) if i not in (10, 11)]
    gap = np.delete(faint, np.arange(10, 20), 0)
    for rate, ids in ((30.0, {1}), (2.0, {1, 2})):  # a third of a second, and five
        assert set(mot.track(mot.Sequence("A", 30, rate, (800, 600), gap), TUNED)[:, 1].tolist()) == ids
    assert [mot.frames_in(s, rate) for s, rate in ((0.29, 100), (0.5, 25), (0.0, 30))] == [29, 12, 0]


def test_a_folder_without_sequences_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no SEQ/det/det\.txt"):
        mot.read_sequences(tmp_path, tmp_path)
    with pytest.raises(BadInput, match="not a folder"):
        mot.read_sequences(tmp_path / "none", tmp_path)


@pytest.mark.data
@pytest.mark.slow
def test_mot17_is_tracked_as_well_as_by_the_best_other_tracker() -> None:
    """pyxtrackers' ByteTrack has a HOTA of 70.9 on these four sequences."""
    data = Path(os.environ.get("FACESTREAM_DATA", "../shared/data")) / "mot"
    if not data.is_dir():
        pytest.skip(f"{data} is missing")
    result = scores(data)["all"]
    assert result.HOTA > 70.6
    assert result.IDF1 > 82
    assert scores(data, cmc=True, interpolate_s=1.0)["all"].HOTA > 72.1
