"""A review session: the video, its original and current faces, and the draft."""

from __future__ import annotations

import getpass
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facestream.pipeline.config import Config
from facestream.pipeline.errors import BadInput
from facestream.pipeline.records import Record
from facestream.pipeline.review.document import Document, Step
from facestream.pipeline.review.draft import Draft, draft_path, hash_of, read_draft, replay, write_draft
from facestream.pipeline.review.edits import AnyEdit, Boxes
from facestream.pipeline.review.estimate import Estimate, estimate
from facestream.pipeline.review.following import follow_both_ways
from facestream.pipeline.review.frames import FrameReader
from facestream.pipeline.review.groups import GroupBy, group
from facestream.pipeline.review.risk import Moment, RiskIndex
from facestream.pipeline.review.scout import Notes, Scout
from facestream.pipeline.types import XYXY, BoxState

NEAR = 4  # frames between two detections that count as seen
STATES = {BoxState.OBSERVED: 0, BoxState.COASTED: 1, BoxState.BACKFILLED: 2}


@dataclass(frozen=True, slots=True)
class Clip:
    """size: displayed width and height. rate: frames/s. times: pts by frame."""

    video: Path
    size: tuple[int, int]
    rate: float
    times: list[int | None]
    seconds: list[float | None]


class Session:
    """What the page works on. Methods that change the document are called from one thread alone.

    records: the file that the rows came from; the draft lies beside it. Raises BadInput for a draft that does not fit.
    """

    def __init__(
        self, clip: Clip, rows: dict[int, Record], records: Path, config: Config, group_by: GroupBy = "appearance"
    ) -> None:
        self.clip = clip
        self.records = records
        self.config = config
        self.document = Document(rows, clip.rate, config.cover.scale)
        self.reader = FrameReader(clip.video, clip.times)
        self.spare_reader = FrameReader(clip.video, clip.times)  # for what nobody waits for
        self.draft_file = draft_path(records)
        self.records_sha256 = hash_of(records)
        self.user = _user()
        self.version = 0
        self.notes: Notes | None = None
        self.groups: dict[int, int] = {}
        self.group_by = group_by
        self.grouped_by = group_by  # what the groups are made by, until the pass over the video makes them anew
        self.saved = True
        self._summaries: dict[int, dict[str, Any]] = {}
        self._write_lock = threading.Lock()
        self._written = 0
        draft = read_draft(self.draft_file, records)
        if draft is not None:
            self.notes = draft.notes
            self.groups = draft.groups
            self.grouped_by = draft.grouped_by
            if self.notes:
                self.document.set_cuts(self.notes.cuts)
            replay(self.document, draft.edits, self.draft_file)
        self.risk = RiskIndex(self.document, self.notes or Notes(), clip.size)

    @property
    def needs_pass(self) -> bool:
        """Whether the pass over the video is still to come, or was made for groups of another kind."""
        return self.notes is None or self.grouped_by != self.group_by

    def take_notes(self, scout: Scout) -> None:
        """What a pass over the video found."""
        self.notes = scout.notes
        spans = {t: (s[0], s[-1]) for t, s in self.document.spans.items()}
        self.groups = group({t: a for t, a in scout.features.items() if t in spans}, spans, scout.likeness)
        self.grouped_by = self.group_by
        self.document.set_cuts(self.notes.cuts)
        self.risk.renew(self.notes)
        self._summaries.clear()
        self.version += 1

    # Changes

    def edit(self, edit: AnyEdit) -> Step:
        """Do an edit. Raises BadInput, and changes nothing, for what cannot be."""
        return self._changed(self.document.apply(edit))

    def undo(self) -> Step | None:
        step = self.document.undo()
        return None if step is None else self._changed(step)

    def redo(self) -> Step | None:
        step = self.document.redo()
        return None if step is None else self._changed(step)

    def _changed(self, step: Step) -> Step:
        for track in step.touched:
            self._summaries.pop(track, None)
        self.risk.refresh(step)
        self.version += 1
        self.saved = False
        return step

    def followed(self, frame: int, box: XYXY, track: int | None, follow: bool, by: str = "") -> Boxes:
        """The edit that a box set by hand makes: of a new track, or of one whose box was moved. Takes a second or so;
        reads the document, and changes nothing."""
        if not 0 <= frame < self.document.frames:
            raise BadInput(f"there is no frame {frame}", "review")
        number = self.document.next_track() if track is None else self.document.known([track])[0]

        def known(at: int) -> XYXY | None:
            face = self.document.boxes(at).get(number)
            return None if face is None else face.xyxy

        places = {frame: box}
        if follow:
            places = follow_both_ways(
                self.reader.get, self.document.frames, frame, box, self.clip.rate,
                known if track is not None else (lambda _: None),
            )  # fmt: skip
        boxes = tuple(sorted(places.items()))
        return Boxes(now(), by or self.user, number, frame, boxes, track is None)

    def save(self) -> None:
        """Write the draft."""
        self.write(self.draft(), self.version)

    def draft(self) -> Draft:
        """What there is to save."""
        return Draft(
            records_sha256=self.records_sha256,
            video=self.clip.video.name,
            edits=tuple(step.edit for step in self.document.done),
            groups=self.groups,
            grouped_by=self.grouped_by,
            notes=self.notes,
        )

    def write(self, draft: Draft, version: int) -> None:
        """Write a draft, as it was at this version, unless a later one is written. On any thread."""
        with self._write_lock:
            if version < self._written:
                return
            write_draft(self.draft_file, draft)
            self._written = version
        if version == self.version:
            self.saved = True

    def close(self) -> None:
        """Let go of the video."""
        self.reader.close()
        self.spare_reader.close()

    # What the page shows

    def moments(self) -> list[Moment]:
        return self.risk.moments()

    def estimate(self) -> Estimate | None:
        """How much may be open; None before the second detector."""
        if self.notes is None or not self.notes.second:
            return None
        return estimate(self.document, self.notes, self.risk.open_faces())

    def summary(self, track: int) -> dict[str, Any] | None:
        """What a card and a bar of the timeline show of a track; None for one that is gone."""
        if (known := self._summaries.get(track)) is not None:
            return known
        document = self.document
        span = document.spans.get(track)
        if not span:
            return None
        faces = [(f, document.by_frame[f][track]) for f in span]
        sides = [max(face.xyxy[2] - face.xyxy[0], face.xyxy[3] - face.xyxy[1]) for _, face in faces]
        seen = [(f, face) for f, face in faces if face.state is BoxState.OBSERVED] or faces
        best = max(seen, key=lambda item: item[1].score)
        made = {
            "id": track,
            "start": span[0],
            "end": span[-1],
            "frames": len(span),
            "best": best[0],
            "box": [round(v, 1) for v in best[1].xyxy],
            "score": round(best[1].score, 3),
            "worst": round(min(face.score for _, face in seen), 3),
            "side": round(max(sides)),
            "runs": _tones([(a, b, STATES[BoxState(s)]) for a, b, s in document.runs(track)]),
            "open": [[r.start, r.end, r.reason] for r in document.open.get(track, ())],
            "group": self.groups.get(track, 0),
            "drawn": track in document.drawn,
        }
        self._summaries[track] = made
        return made

    def boxes(self, start: int, end: int) -> dict[int, list[list[float]]]:
        """frame -> [track, x1, y1, x2, y2, score, state, left open] of each face, of frames from start to end."""
        out = {}
        for frame in range(max(0, start), min(self.document.frames - 1, end) + 1):
            faces = self.document.boxes(frame)
            if faces:
                out[frame] = [
                    [t, *f.xyxy, f.score, STATES[f.state], int(self.document.is_left_open(frame, t))]
                    for t, f in faces.items()
                ]
        return out

    def moment_rows(self) -> list[dict[str, Any]]:
        """The list as the page shows it."""
        return [
            {
                "key": m.key, "start": m.start, "end": m.end, "risk": round(m.risk, 3), "frame": m.frame,
                "box": m.box, "tracks": m.tracks, "why": m.describe(), "kind": m.why[0],
                "accepted": m.key in self.document.accepted,
            }
            for m in self.moments()
        ]  # fmt: skip

    def masks(self) -> list[dict[str, Any]]:
        return [
            {"label": m.label, "start": m.start, "end": m.end, "keys": list(m.key_frames().items())}
            for m in self.document.masks.values()
        ]


def _tones(runs: list[tuple[int, int, int]]) -> list[list[int]]:
    """Runs as the timeline shows them: the few frames between two detections count as seen, since every second frame
    or so is not looked at on purpose."""
    out: list[list[int]] = []
    for number, (start, end, state) in enumerate(runs):
        around = runs[number - 1 : number] + runs[number + 1 : number + 2]
        between = state and end - start < NEAR and len(around) == 2 and all(not other for _, _, other in around)
        tone = 0 if between else state
        if out and out[-1][2] == tone and out[-1][1] == start - 1:
            out[-1][1] = end
        else:
            out.append([start, end, tone])
    return out


def now() -> str:
    """The time, ISO 8601, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a name for its user
        return ""
