"""Records of faces: written and read as JSON Lines, CSV or MOT, by the file's suffix."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from facestream.engines.checked import Wrong, checked
from facestream.engines.errors import BadConfig
from facestream.pipeline.errors import BadInput, SinkLost
from facestream.pipeline.types import XYXY, Box, BoxKind, BoxState, Polygon, TrackedFrame
from facestream.pipeline.video.output import Temporary, check
from msgspec import Meta, Struct, structs
from msgspec.structs import force_setattr

ENDINGS = (".jsonl", ".csv", ".mot", ".txt")
COLUMNS = ("source", "frame", "pts", "time_s", "width", "height", "id", "x1", "y1", "x2", "y2", "score", "state")


class Face(Struct, frozen=True, forbid_unknown_fields=True):
    """A box in a record. score and state may be omitted in boxes added by hand.

    kind: written only for boxes that are not faces, and only in JSON Lines; see `kinds_of`.
    """

    id: int
    xyxy: XYXY
    score: Annotated[float, Meta(ge=0, le=1)] = 1.0
    state: BoxState = BoxState.OBSERVED
    kind: BoxKind = BoxKind.FACE

    def __post_init__(self) -> None:
        if not all(isfinite(v) for v in self.xyxy):
            raise Wrong("xyxy", "must be finite numbers")
        if self.xyxy[2] <= self.xyxy[0] or self.xyxy[3] <= self.xyxy[1]:
            raise Wrong("xyxy", "x1, y1 must lie left of and above x2, y2")
        if self.id == 0 and self.kind is BoxKind.FACE:
            force_setattr(self, "kind", BoxKind.WHOLE_FRAME)
        elif self.id < 0:  # of an earlier version
            force_setattr(self, "kind", BoxKind.ALTERNATE)
            force_setattr(self, "id", -self.id)

    def box(self) -> Box:
        return Box(self.id, self.xyxy, self.score, self.state, kind=self.kind)


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """A frame's faces; xyxy in pixels of the displayed frame, time in seconds, pts in the source's time base.

    wall_s: capture time by the camera's clock, Unix seconds; only in JSON Lines, if the camera sends it.
    masks: polygons that are covered in this frame; only in JSON Lines, if there are any.
    """

    frame: Annotated[int, Meta(ge=0)]
    source: str = ""
    pts: int | None = None
    time_s: float | None = None
    wall_s: float | None = None
    width: Annotated[int, Meta(gt=0)] | None = None
    height: Annotated[int, Meta(gt=0)] | None = None
    faces: tuple[Face, ...] = ()
    masks: tuple[Polygon, ...] = ()

    def __post_init__(self) -> None:
        for number, corners in enumerate(self.masks):
            if len(corners) < 3 or not all(isfinite(v) for corner in corners for v in corner):
                raise Wrong(f"masks.{number}", "must be three corners or more, [x, y] each")
        for name, value in (("time_s", self.time_s), ("wall_s", self.wall_s)):
            if value is not None and not isfinite(value):
                raise Wrong(name, "must be a finite number")


def record(tracked: TrackedFrame, source: str) -> dict[str, Any]:
    """A frame's record as JSON values."""
    frame = tracked.frame
    width, height = frame.size
    time_s = frame.time_s
    masks = [[[round(v, 2) for v in corner] for corner in mask] for mask in tracked.masks]
    return {
        "source": source,
        "frame": frame.index,
        "pts": frame.pts,
        "time_s": None if time_s is None else round(time_s, 6),
        **({} if frame.wall_s is None else {"wall_s": round(frame.wall_s, 6)}),
        "width": width,
        "height": height,
        "faces": [
            {
                "id": b.id,
                "xyxy": [round(v, 2) for v in b.xyxy],
                "score": round(b.score, 4),
                "state": str(b.state),
                **({} if b.kind is BoxKind.FACE else {"kind": str(b.kind)}),
            }
            for b in tracked.boxes
        ],
        **({"masks": masks} if masks else {}),
    }


def lines(row: dict[str, Any], ending: str) -> str:
    """The text of a record in a format of ENDINGS. In CSV, a frame without faces is a row with empty face fields."""
    if ending == ".jsonl":
        return json.dumps(row, ensure_ascii=False) + "\n"
    if ending == ".csv":
        import csv

        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        head = [row[k] for k in COLUMNS[:6]]
        faces = [(f["id"], *f["xyxy"], f["score"], f["state"]) for f in row["faces"]]
        writer.writerows([*head, *face] for face in faces or [("",) * 7])
        return text.getvalue()
    out = ""
    for f in _one_box_a_track(row["faces"]):
        x0, y0, x1, y1 = f["xyxy"]
        out += f"{row['frame'] + 1},{f['id']},{x0},{y0},{x1 - x0:.2f},{y1 - y0:.2f},{f['score']},-1,-1,-1\n"
    return out


def _one_box_a_track(faces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For MOT, which allows one box per track and frame: the box around all positions of each track."""
    found: dict[int, dict[str, Any]] = {}
    for face in faces:
        one = found.setdefault(face["id"], face)
        if one is not face:
            left, top, right, bottom = one["xyxy"]
            x0, y0, x1, y1 = face["xyxy"]
            around = [min(left, x0), min(top, y0), max(right, x1), max(bottom, y1)]
            found[face["id"]] = {**one, "xyxy": around, "score": max(one["score"], face["score"])}
    return list(found.values())


def ending_of(path: Path) -> str:
    """The format of a records file, by its suffix. Raises BadConfig."""
    if (ending := path.suffix.lower()) not in ENDINGS:
        raise BadConfig("records end in .jsonl, .csv or .mot", str(path))
    return ending


def head(ending: str) -> str:
    """The header of a file in this format."""
    return ",".join(COLUMNS) + "\n" if ending == ".csv" else ""


class RecordSink:
    """Writes records of one or more sources to a file; its suffix selects the format."""

    def __init__(self, path: Path, overwrite: bool) -> None:
        self.ending = ending_of(path)
        check(path, overwrite)
        self.temporary = Temporary(path)
        self.file = self.temporary.path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
        self.file.write(head(self.ending))
        self.mark = self.file.tell()

    def write(self, tracked: TrackedFrame, source: str) -> None:
        try:
            self.file.write(lines(record(tracked, source), self.ending))
        except OSError as e:
            raise self._lost(e) from None

    def commit(self) -> None:
        """Keep what was written so far: a source is finished."""
        self.mark = self.file.tell()

    def rollback(self) -> None:
        """Remove what was written since the last commit: a source failed."""
        try:
            self.file.seek(self.mark)
            self.file.truncate()
        except OSError as e:
            raise self._lost(e) from None

    def close(self) -> None:
        try:
            self.file.close()
        except OSError as e:
            self.temporary.discard()
            raise self._lost(e) from None
        self.temporary.commit()

    def abort(self) -> None:
        with contextlib.suppress(OSError):  # what waits to be written has no room on the disk
            self.file.close()
        self.temporary.discard()

    def _lost(self, error: OSError) -> SinkLost:
        return SinkLost(f"cannot write the records ({error.strerror})", str(self.temporary.target))


def read_records(path: Path, source: str | None = None) -> dict[int, Record]:
    """Read records: frame -> record. Raises BadInput with file and line for malformed, duplicate or misplaced ones.

    source: the video that they are for; a file with records of several sources must contain its name.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as e:
        raise BadInput(f"cannot read the records ({e})", str(path)) from None
    parse = {".jsonl": _json_rows, ".csv": _csv_rows}.get(path.suffix.lower(), _mot_rows)
    rows = list(parse(text, path))
    sources = {row.source for _, row in rows}
    if len(sources) > 1:
        named = {s for s in sources if s == source} or {s for s in sources if Path(s).name == Path(source or "").name}
        if len(named) != 1:
            raise BadInput(f"holds {len(sources)} sources, none of them is {source}", str(path))
        rows = [(line, row) for line, row in rows if row.source in named]
    out: dict[int, Record] = {}
    for line, row in rows:
        if row.frame in out:
            raise BadInput(f"frame {row.frame} comes twice", f"{path}:{line}")
        row = kinds_of(row)
        keys = [(face.id, face.kind) for face in row.faces]
        if len(set(keys)) != len(keys):
            raise BadInput(f"frame {row.frame} has an id twice", f"{path}:{line}", "each face its own")
        out[row.frame] = row
    return out


def kinds_of(row: Record) -> Record:
    """The record with the kind of each box. If it is not written (CSV), a second box of a track in a frame that was
    not observed is an alternate position."""
    faces: list[Face] = []
    known: set[tuple[int, BoxKind]] = set()
    for face in row.faces:
        again = (face.id, face.kind) in known and face.kind is BoxKind.FACE
        if again and face.state is not BoxState.OBSERVED:
            face = structs.replace(face, kind=BoxKind.ALTERNATE)
        known.add((face.id, face.kind))
        faces.append(face)
    return structs.replace(row, faces=tuple(faces))


def _validated(line: int, path: Path, value: Any) -> tuple[int, Record]:
    try:
        return line, checked(value, Record, strict=False)  # all that a CSV file holds is text
    except Wrong as e:
        raise BadInput(str(e), f"{path}:{line}") from None


def _json_rows(text: str, path: Path) -> Iterable[tuple[int, Record]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                value = json.loads(line)
            except json.JSONDecodeError as e:
                raise BadInput(f"not JSON ({e.msg}, column {e.colno})", f"{path}:{number}") from None
            yield _validated(number, path, value)


def _csv_rows(text: str, path: Path) -> Iterable[tuple[int, Record]]:
    import csv

    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise BadInput("the first line must be " + ",".join(COLUMNS), f"{path}:1")
    frames: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
    for row in reader:
        head = {k: row[k] or None for k in COLUMNS[1:6]} | {"source": row["source"] or ""}
        line, value = frames.setdefault((head["source"] or "", row["frame"] or ""), (reader.line_num, head))
        faces = value.setdefault("faces", [])
        if row["id"]:
            face = {"id": row["id"], "xyxy": [row[k] for k in ("x1", "y1", "x2", "y2")]}
            faces.append(face | {k: row[k] for k in ("score", "state") if row[k]})
            _validated(reader.line_num, path, value | {"faces": faces[-1:]})
    for line, value in frames.values():
        yield _validated(line, path, value)


def _mot_rows(text: str, path: Path) -> Iterable[tuple[int, Record]]:
    frames: dict[int, tuple[int, list[Any]]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = [float(v) for v in line.split(",")[:7]]
            frame, track, left, top, width, height, score = values if len(values) > 6 else [*values, 1.0]
        except ValueError:
            raise BadInput("not frame,id,left,top,width,height,score,...", f"{path}:{number}") from None
        face = {"id": int(track), "xyxy": [left, top, left + width, top + height], "score": min(max(score, 0), 1)}
        _validated(number, path, {"frame": int(frame) - 1, "faces": [face]})
        frames.setdefault(int(frame) - 1, (number, []))[1].append(face)
    for index, (number, faces) in frames.items():
        yield _validated(number, path, {"frame": index, "faces": faces})
