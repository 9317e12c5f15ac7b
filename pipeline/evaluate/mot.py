"""Tracking measured against truth: MOT-style folders in, HOTA, MOTA, IDF1 and id switches out.

A folder holds `SEQ/det/det.txt` (`frame,-1,left,top,width,height,score`), `SEQ/gt/gt.txt`
(`frame,id,left,top,width,height,counts,class,visibility`), `SEQ/seqinfo.ini` and maybe `SEQ/gmc.txt`
(`frame a b tx c d ty`: the 2x3 affine of the camera's motion from the frame before). Frames count
from 1 there and from 0 here; boxes are pixels. Scores are trackeval's, which leaves out boxes on
MOT17's distractors (reflections, statues, people who sit in cars) as the benchmark does.

Our tracker hands on every detection, which a benchmark of tracking punishes as false alarms. So
these boxes are scored, in the manner of ByteTrack's published setting (Zhang et al., ECCV 2022):

- detections with a score under FLOOR are not given to the tracker;
- of its boxes only observed ones count, no coasted ones, and no tentative ones: of a track those from
  its first observation with a score of `new_track_score` on (ByteTrack begins tracks at 0.7 and shows what
  continues them at any score);
- with `interpolate_s`, gaps of a track of up to so many seconds are filled on a straight line.
"""

from __future__ import annotations

import configparser
import contextlib
import io
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.types import Detections
from facestream.pipeline.config import TrackerConfig
from facestream.pipeline.errors import BadInput
from facestream.pipeline.stages.track import Tracker
from facestream.pipeline.types import AssociationStage

FLOOR = 0.1
# ByteTrack's on MOT17: they belong to the detector, and the tracker's defaults to the shipped one
HIGH = 0.6
BIRTH = 0.7
CLASSES = range(1, 14)  # MOT17's, 1 is a pedestrian


@dataclass(frozen=True, slots=True)
class Sequence:
    """One folder of detections.

    found: float64 [N, 6], frame (from 0), left, top, right, bottom, score; sorted by frame.
    affines: float64 [frames, 2, 3], from the frame before to this one; None without them.
    rate: frames/s. size: width and height in pixels.
    """

    name: str
    frames: int
    rate: float
    size: tuple[int, int]
    found: Array
    affines: Array | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """HOTA, MOTA and IDF1 in percent; IDSW is a count."""

    HOTA: float
    MOTA: float
    IDF1: float
    IDSW: int


def read_sequences(detections: Path, truth: Path, cmc: bool = False) -> tuple[list[Sequence], list[str]]:
    """Every sequence that has detections and truth, by name; and the names of those with only one of them.

    seqinfo.ini and gmc.txt may lie in either folder. BadInput names the file and line that is wrong.
    """
    for folder in (detections, truth):
        if not folder.is_dir():
            raise BadInput("not a folder", str(folder))
    given = {p.parent.parent.name for p in detections.glob("*/det/det.txt")}
    known = {p.parent.parent.name for p in truth.glob("*/gt/gt.txt")}
    if not given & known:
        raise BadInput("no SEQ/det/det.txt that has a SEQ/gt/gt.txt", f"{detections}, {truth}")
    sequences = []
    for name in sorted(given & known):
        frames, rate, size = read_info(_either(f"{name}/seqinfo.ini", truth, detections))
        found = _read_found(detections / name / "det/det.txt", frames)
        affines = _read_affines(_either(f"{name}/gmc.txt", detections, truth), frames) if cmc else None
        _check_truth(truth / name / "gt/gt.txt", frames)
        sequences.append(Sequence(name, frames, rate, size, found, affines))
    return sequences, sorted(given ^ known)


def track(sequence: Sequence, config: TrackerConfig) -> Array:
    """Every observed box that is not tentative: float64 [N, 7], frame (from 0), id, left, top, right, bottom, score;
    by frame."""
    tracker = Tracker(config)
    found = sequence.found[sequence.found[:, 5] >= FLOOR]
    starts = np.searchsorted(found[:, 0], np.arange(sequence.frames + 1))
    rows = []
    for frame in range(sequence.frames):
        given = found[starts[frame] : starts[frame + 1]]
        affine = None if sequence.affines is None else sequence.affines[frame]
        detections = Detections(given[:, 1:5].astype(np.float32), given[:, 5].astype(np.float32))
        boxes = tracker.update(detections, frame / sequence.rate, sequence.size, affine)
        rows += [
            (frame, b.id, *b.xyxy, b.score) for b in boxes if b.association not in (None, AssociationStage.TENTATIVE)
        ]
    return np.array(rows, float).reshape(-1, 7)


def interpolated(rows: Array, longest: int) -> Array:
    """Rows of `track` with gaps of at most `longest` frames filled on a straight line, by track and frame."""
    rows = rows[np.lexsort((rows[:, 0], rows[:, 1]))]
    step = np.diff(rows[:, 0])
    filled = [rows]
    for at in np.flatnonzero((np.diff(rows[:, 1]) == 0) & (step > 1) & (step <= longest + 1)):
        share = np.arange(1, step[at])[:, None] / step[at]
        filled.append((1 - share) * rows[at] + share * rows[at + 1])
    whole = np.concatenate(filled)
    whole[:, :2] = np.rint(whole[:, :2])
    return whole[np.lexsort((whole[:, 0], whole[:, 1]))]


def evaluate(
    sequences: list[Sequence], truth: Path, config: TrackerConfig, interpolate_s: float = 0.0
) -> dict[str, Score]:
    """Track and score: a Score for each sequence, and for all of them together under `all`."""
    tracks = {s.name: interpolated(track(s, config), frames_in(interpolate_s, s.rate)) for s in sequences}
    return score(tracks, {s.name: s.frames for s in sequences}, truth)


def frames_in(seconds: float, rate: float) -> int:
    return math.floor(seconds * rate + 1e-6)


def score(tracks: dict[str, Array], frames: dict[str, int], truth: Path) -> dict[str, Score]:
    """trackeval's figures for rows of `track`, by sequence, and `all`. BadInput when the library is missing."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trackeval = _trackeval()
        data = Path(folder) / "ours" / "data"
        data.mkdir(parents=True)
        for name, rows in tracks.items():
            table = np.concatenate([rows[:, :4], rows[:, 4:6] - rows[:, 2:4], rows[:, 6:]], 1)
            table[:, 0] += 1
            np.savetxt(data / f"{name}.txt", table, fmt="%d,%d,%.3f,%.3f,%.3f,%.3f,%.4f,-1,-1,-1")
        dataset = trackeval.datasets.MotChallenge2DBox(
            {
                "GT_FOLDER": str(truth), "TRACKERS_FOLDER": folder, "TRACKERS_TO_EVAL": ["ours"],
                "SKIP_SPLIT_FOL": True, "SEQ_INFO": dict(frames), "PRINT_CONFIG": False,
            }
        )  # fmt: skip
        metrics = trackeval.metrics
        judges = [metrics.HOTA(), metrics.CLEAR({"PRINT_CONFIG": False}), metrics.Identity({"PRINT_CONFIG": False})]
        results: list[dict[str, Any]] = [{} for _ in judges]
        for name in tracks:
            sequence = dataset.get_preprocessed_seq_data(dataset.get_raw_seq_data("ours", name), "pedestrian")
            for judge, result in zip(judges, results, strict=True):
                result[name] = judge.eval_sequence(sequence)
        whole = [judge.combine_sequences(result) for judge, result in zip(judges, results, strict=True)]
    scores = {name: _as_score(*(result[name] for result in results)) for name in tracks}
    return {**scores, "all": _as_score(*whole)}


def _as_score(hota: dict[str, Any], clear: dict[str, Any], identity: dict[str, Any]) -> Score:
    return Score(
        HOTA=100 * float(np.mean(hota["HOTA"])),
        MOTA=100 * float(clear["MOTA"]),
        IDF1=100 * float(identity["IDF1"]),
        IDSW=int(clear["IDSW"]),
    )


def _trackeval() -> Any:
    try:
        import trackeval
    except ImportError:
        raise BadInput("evaluate tracks needs the library trackeval", "pip install 'facestream[evaluate]'") from None
    return trackeval


def _either(name: str, *folders: Path) -> Path:
    """The file in the first folder that has it, else where it was expected."""
    return next((f / name for f in folders if (f / name).exists()), folders[0] / name)


def read_info(path: Path) -> tuple[int, float, tuple[int, int]]:
    """Frames, frames/s, and the picture's width and height."""
    parser = configparser.ConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
        info = parser["Sequence"]
        frames = int(info["seqLength"])
        rate = float(info["frameRate"])
        size = int(info["imWidth"]), int(info["imHeight"])
        if not (frames > 0 and rate > 0 and min(size) > 0):
            raise ValueError("seqLength, frameRate, imWidth and imHeight must be positive")
    except OSError as e:
        raise BadInput(f"cannot read it ({e.strerror})", str(path)) from None
    except configparser.Error as e:
        raise BadInput(" ".join(str(e).split()), str(path)) from None
    except (KeyError, ValueError) as e:
        raise BadInput(f"needs [Sequence] with seqLength, frameRate, imWidth and imHeight ({e})", str(path)) from None
    return frames, rate, size


def _read_found(path: Path, frames: int) -> Array:
    table, lines = _read_table(path, 7, ",", "frame,id,left,top,width,height,score", frames)
    _check_sides(path, table, lines)
    rows = np.concatenate([table[:, :1] - 1, table[:, 2:4], table[:, 2:4] + table[:, 4:6], table[:, 6:]], 1)
    return rows[np.argsort(rows[:, 0], kind="stable")]


def _read_affines(path: Path, frames: int) -> Array:
    table, lines = _read_table(path, 7, None, "frame a b tx c d ty", frames)
    flat = table[:, 1] * table[:, 5] - table[:, 2] * table[:, 4]
    if (flat <= 1e-6).any():
        raise BadInput("no motion of a camera: it flattens or mirrors", f"{path}:{lines[int((flat <= 1e-6).argmax())]}")
    affines = np.tile(np.eye(2, 3), (frames, 1, 1))
    affines[table[:, 0].astype(int) - 1] = table[:, 1:].reshape(-1, 2, 3)
    return affines


def _check_truth(path: Path, frames: int) -> None:
    """What would otherwise stop trackeval in a less friendly way."""
    table, lines = _read_table(path, 8, ",", "frame,id,left,top,width,height,counts,class,visibility", frames)
    _check_sides(path, table, lines)
    wrong = ~np.isin(table[:, 7], CLASSES)
    if wrong.any():
        raise BadInput("the class is not 1 to 13 (MOT17's)", f"{path}:{lines[int(wrong.argmax())]}")
    _, first = np.unique(table[:, :2], axis=0, return_index=True)
    if len(first) < len(table):
        again = np.setdiff1d(np.arange(len(table)), first)[0]
        raise BadInput("an id comes twice in a frame", f"{path}:{lines[again]}")


def _check_sides(path: Path, table: Array, lines: list[int]) -> None:
    wrong = (table[:, 4:6] <= 0).any(1)
    if wrong.any():
        raise BadInput("width and height must be positive", f"{path}:{lines[int(wrong.argmax())]}")


def _read_table(path: Path, columns: int, comma: str | None, form: str, frames: int) -> tuple[Array, list[int]]:
    """The first columns of each line, float64 [N, columns], and the line numbers. The first column is a frame."""
    try:
        text = [(n, line) for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if line.strip()]
    except (OSError, UnicodeDecodeError) as e:
        raise BadInput(f"cannot read it ({getattr(e, 'strerror', None) or e})", str(path)) from None
    rows = []
    for number, line in text:
        try:
            row = [float(v) for v in line.split(comma)[:columns]]
        except ValueError:
            row = []
        if len(row) < columns or not all(map(math.isfinite, row)):
            raise BadInput(f"not {form}", f"{path}:{number}")
        if row[0] != int(row[0]) or not 1 <= row[0] <= frames:
            raise BadInput(f"frame {row[0]:g} is not one of 1 to {frames} (seqinfo.ini)", f"{path}:{number}")
        rows.append(row)
    return np.array(rows, float).reshape(-1, columns), [number for number, _ in text]
