"""The review document: tracks by frame, uncovered ranges and masks, edited by the reviewer, with undo."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from facestream.pipeline.errors import BadInput
from facestream.pipeline.records import Face, Record
from facestream.pipeline.review.certainty import certain_frames
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
    corners_of,
)  # fmt: skip
from facestream.pipeline.review.geometry import grown, rounded, touches
from facestream.pipeline.review.identity import key_of, named
from facestream.pipeline.types import BoxState, Polygon
from msgspec import structs

WHOLE = 1 << 40  # a frame behind all others


@dataclass(frozen=True, slots=True)
class OpenRange:
    """Frames in which somebody stays open, both ends included, why, and who decided that when."""

    start: int
    end: int
    reason: str
    by: str
    at: str


@dataclass(slots=True)
class Step:
    """An applied edit: how to undo it, the changed tracks, and the first and last changed frame."""

    edit: AnyEdit
    inverse: list[Callable[[], None]] = field(default_factory=list)
    touched: set[int] = field(default_factory=set)
    first: int = WHOLE
    last: int = -1

    def touch(self, first: int, last: int, track: int | None = None) -> None:
        """Note what changes."""
        self.first = min(self.first, first)
        self.last = max(self.last, last)
        if track is not None:
            self.touched.add(track)


class Document:
    """Faces by frame and track. Every change goes through `apply`, so that `undo` can take it back.

    rows: frame -> record, all frames from 0 to the last. rate: frames/s. scale: by which covers are larger than boxes.
    cuts: frames with which a new scene begins, as far as they are known.
    """

    def __init__(self, rows: dict[int, Record], rate: float, scale: float) -> None:
        self.rows = rows
        self.frames = max(rows, default=-1) + 1
        self.rate = rate
        self.scale = scale
        self.cuts: list[int] = []
        self.by_frame: dict[int, dict[int, Face]] = {}
        self.spans: dict[int, list[int]] = defaultdict(list)  # track -> its frames, in order
        for index in sorted(rows):
            faces = rows[index].faces
            if faces:
                self.by_frame[index] = {key_of(face): face for face in faces}
            for face in faces:
                self.spans[key_of(face)].append(index)
        self.spans = dict(self.spans)
        self.open: dict[int, tuple[OpenRange, ...]] = {}
        self.masks: dict[int, Mask] = {}
        self.accepted: dict[str, Accept] = {}
        self.drawn: dict[int, Boxes] = {}
        self.audio = "keep"
        self.done: list[Step] = []
        self.undone: list[AnyEdit] = []
        self._certain: dict[int, frozenset[int]] = {}

    # What is there

    def boxes(self, frame: int) -> dict[int, Face]:
        """track -> face of a frame."""
        return self.by_frame.get(frame, {})

    def next_track(self) -> int:
        """An id that no track has or had."""
        made = [s.edit.new for s in self.done if isinstance(s.edit, Split)]
        return max([0, *map(abs, self.spans), *made, *self.drawn]) + 1

    def next_mask(self) -> int:
        """A number that no mask has."""
        return max(self.masks, default=0) + 1

    def runs(self, track: int) -> list[tuple[int, int, str]]:
        """A track's stretches of one state: first frame, last frame, state."""
        out: list[tuple[int, int, str]] = []
        for frame in self.spans.get(track, ()):
            state = str(self.by_frame[frame][track].state)
            if out and out[-1][2] == state and out[-1][1] == frame - 1:
                out[-1] = (out[-1][0], frame, state)
            else:
                out.append((frame, frame, state))
        return out

    def is_left_open(self, frame: int, track: int) -> bool:
        """Whether this face leaves uncovered: somebody said so, the track is certain here, and no other cover or
        box touches it. In any doubt it stays covered."""
        ranges = self.open.get(track)
        if not ranges or not any(r.start <= frame <= r.end for r in ranges):
            return False
        if frame not in self._certain_frames(track):
            return False
        own = grown(self.boxes(frame)[track].xyxy, self.scale)
        return not any(
            touches(own, grown(face.xyxy, self.scale)) for other, face in self.boxes(frame).items() if other != track
        )

    def covered(self, frame: int) -> list[Face]:
        """The faces of a frame that are covered."""
        return [face for track, face in self.boxes(frame).items() if not self.is_left_open(frame, track)]

    def masks_at(self, frame: int) -> list[Mask]:
        """The masks of a frame."""
        return [mask for mask in self.masks.values() if mask.start <= frame <= mask.end]

    def polygons_at(self, frame: int) -> tuple[Polygon, ...]:
        """The masks of a frame, where they lie in it."""
        return tuple(mask.corners_at(frame) for mask in self.masks_at(frame))

    def export(self) -> dict[int, Record]:
        """Records of what is covered, of every frame."""
        out = {}
        for index, row in self.rows.items():
            masks = self.polygons_at(index)
            out[index] = structs.replace(row, faces=tuple(self.covered(index)), masks=(*row.masks, *masks))
        return out

    def _certain_frames(self, track: int) -> frozenset[int]:
        """Frames of a track in which it is beyond doubt who it is."""
        if (known := self._certain.get(track)) is not None:
            return known
        faces = {frame: self.by_frame[frame][track] for frame in self.spans.get(track, ())}
        self._certain[track] = found = certain_frames(faces, self.rate, self.cuts) if track > 0 else frozenset()
        return found

    # What is changed

    def apply(self, edit: AnyEdit) -> Step:
        """Apply an edit; returns what it changed. Raises BadInput and changes nothing if it is not possible."""
        step = Step(edit)
        do = {
            Cover: self._cover, LeaveOpen: self._leave_open, Delete: self._delete, Split: self._split,
            Merge: self._merge, Boxes: self._boxes, Mask: self._mask, MoveMask: self._move_mask, Unmask: self._unmask,
            Accept: self._accept, Audio: self._audio,
        }[type(edit)]  # fmt: skip
        do(edit, step)  # type: ignore[operator]
        self.done.append(step)
        self.undone.clear()
        return self._touched(step)

    def undo(self) -> Step | None:
        """Undo the last edit; returns what that changed, None if there is none."""
        if not self.done:
            return None
        step = self.done.pop()
        for inverse in reversed(step.inverse):
            inverse()
        self.undone.append(step.edit)
        return self._touched(step)

    def redo(self) -> Step | None:
        """Redo the last undone edit."""
        if not self.undone:
            return None
        rest = self.undone[:-1]
        step = self.apply(self.undone[-1])
        self.undone = rest
        return step

    def _touched(self, step: Step) -> Step:
        for track in step.touched:
            self._certain.pop(track, None)
        return step

    def set_cuts(self, cuts: list[int]) -> None:
        """Set the frames with which scenes begin."""
        self.cuts = sorted(cuts)
        self._certain.clear()

    def known(self, tracks: Iterable[int]) -> tuple[int, ...]:
        """These tracks. BadInput for one that is not there."""
        chosen = tuple(tracks)
        if not chosen:
            raise BadInput("no track is named", "review")
        for track in chosen:
            if track not in self.spans:
                raise BadInput(f"there is no track {track}", "review")
        return chosen

    def _change(self, step: Step, track: int, faces: dict[int, Face | None]) -> None:
        """Set (frame -> face) or remove (frame -> None) boxes of a track, so that it can be undone."""
        old = {frame: self.boxes(frame).get(track) for frame in faces}
        if old == faces:
            return
        self._set(track, faces)
        step.touch(min(faces), max(faces), track)
        step.inverse.append(lambda: self._set(track, old))

    def _set(self, track: int, faces: dict[int, Face | None]) -> None:
        deleted = {frame for frame, face in faces.items() if face is None}
        for frame, face in faces.items():
            row = self.by_frame.setdefault(frame, {})
            if face is None:
                row.pop(track, None)
            else:
                row[track] = face
            if not row:
                del self.by_frame[frame]
        frames = set(self.spans.get(track, ())) | (faces.keys() - deleted)
        if left := sorted(frames - deleted):
            self.spans[track] = left
        else:
            self.spans.pop(track, None)

    def _between(self, track: int, start: int, end: int) -> list[int]:
        span = self.spans.get(track, [])
        return span[bisect_right(span, start - 1) : bisect_right(span, end)]

    def _set_open(self, step: Step, track: int, ranges: tuple[OpenRange, ...]) -> None:
        old = self.open.get(track, ())

        def put(value: tuple[OpenRange, ...]) -> None:
            if value:
                self.open[track] = value
            else:
                self.open.pop(track, None)

        if old != ranges:
            put(ranges)
            span = self.spans.get(track) or [0]
            step.touch(span[0], span[-1], track)
            step.inverse.append(lambda: put(old))

    def _cover(self, edit: Cover, step: Step) -> None:
        for track in self.known(edit.tracks):
            self._set_open(step, track, _without(self.open.get(track, ()), edit.start, edit.end))

    def _leave_open(self, edit: LeaveOpen, step: Step) -> None:
        if not edit.reason.strip():
            raise BadInput("leaving somebody open needs a reason", "review")
        for track in self.known(edit.tracks):
            left = _without(self.open.get(track, ()), edit.start, edit.end)
            new = OpenRange(edit.start, edit.end, edit.reason.strip(), edit.by, edit.at)
            self._set_open(step, track, tuple(sorted((*left, new), key=lambda r: r.start)))

    def _delete(self, edit: Delete, step: Step) -> None:
        for track in self.known(edit.tracks):
            for one in (track, -track):
                self._change(step, one, dict.fromkeys(self._between(one, edit.start, edit.end)))

    def _split(self, edit: Split, step: Step) -> None:
        (track,) = self.known([edit.track])
        if edit.new in self.spans or edit.new <= 0:
            raise BadInput(f"there is a track {edit.new} already", "review")
        later = self._between(track, edit.frame, WHOLE)
        if not later or len(later) == len(self.spans[track]):
            raise BadInput(f"track {track} does not go on across frame {edit.frame}", "review")
        self._rename(step, track, edit.new, later)
        left = self.open.get(track, ())
        self._set_open(step, edit.new, _without(left, 0, edit.frame - 1))
        self._set_open(step, track, _without(left, edit.frame, WHOLE))

    def _merge(self, edit: Merge, step: Step) -> None:
        into, *others = self.known(edit.tracks)
        if not others:
            raise BadInput("merging needs two tracks", "review")
        for track in others:
            free = [f for f in self.spans[track] if into not in self.boxes(f)]
            self._rename(step, track, into, free)
            if free:  # whoever was left open on his own is not known to be the other: fail closed
                self._set_open(step, track, ())

    def _rename(self, step: Step, track: int, new: int, frames: list[int]) -> None:
        faces = {frame: self.boxes(frame)[track] for frame in frames}
        self._change(step, track, dict.fromkeys(frames))
        self._change(step, new, {frame: named(face, new) for frame, face in faces.items()})

    def _boxes(self, edit: Boxes, step: Step) -> None:
        if edit.drawn and edit.track in self.spans:
            raise BadInput(f"there is a track {edit.track} already", "review")
        if not edit.drawn:
            self.known([edit.track])
        if edit.track == 0 or not edit.boxes:
            raise BadInput("a box needs a track and a place", "review")
        if beyond := [f for f, _ in edit.boxes if f >= self.frames]:
            raise BadInput(f"there is no frame {beyond[0]}", "review")
        faces: dict[int, Face | None] = {}
        for frame, box in edit.boxes:
            state = BoxState.OBSERVED if frame == edit.frame else BoxState.COASTED
            state = BoxState.BACKFILLED if frame < edit.frame else state
            faces[frame] = Face(edit.track, rounded(box), 1.0, state)
        self._change(step, edit.track, faces)
        if edit.drawn:
            self.drawn[edit.track] = edit
            step.inverse.append(lambda: self._forget(edit.track))

    def _forget(self, track: int) -> None:
        self.drawn.pop(track, None)

    def _mask(self, edit: Mask, step: Step) -> None:
        if edit.label <= 0:
            raise BadInput("a mask needs a number", "review")
        old = self.masks.get(edit.label)
        self.masks[edit.label] = edit
        step.touch(edit.start, edit.end)
        step.inverse.append(lambda: self._restore(edit.label, old))

    def _move_mask(self, edit: MoveMask, step: Step) -> None:
        mask = self.masks.get(edit.label)
        if mask is None:
            raise BadInput(f"there is no mask {edit.label}", "review")
        if not mask.start <= edit.frame <= mask.end:
            raise BadInput(f"mask {edit.label} does not reach to frame {edit.frame}", "review")
        keys = mask.key_frames()
        corners = corners_of(edit.points)
        if len(corners) != len(next(iter(keys.values()))):
            raise BadInput(f"mask {edit.label} has another number of corners", "review")
        (first, points), *others = sorted((keys | {edit.frame: corners}).items())
        self.masks[edit.label] = structs.replace(mask, frame=first, points=points, keys=tuple(others))
        step.touch(mask.start, mask.end)
        step.inverse.append(lambda: self._restore(edit.label, mask))

    def _unmask(self, edit: Unmask, step: Step) -> None:
        old = self.masks.pop(edit.label, None)
        if old is None:
            raise BadInput(f"there is no mask {edit.label}", "review")
        step.touch(old.start, old.end)
        step.inverse.append(lambda: self._restore(edit.label, old))

    def _restore(self, label: int, mask: Mask | None) -> None:
        if mask is None:
            self.masks.pop(label, None)
        else:
            self.masks[label] = mask

    def _accept(self, edit: Accept, step: Step) -> None:
        if edit.key not in self.accepted:
            self.accepted[edit.key] = edit
            step.inverse.append(lambda: self._reject(edit.key))

    def _reject(self, key: str) -> None:
        self.accepted.pop(key, None)

    def _audio(self, edit: Audio, step: Step) -> None:
        old = self.audio
        self.audio = edit.audio
        step.inverse.append(lambda: setattr(self, "audio", old))


def _without(ranges: tuple[OpenRange, ...], start: int, end: int) -> tuple[OpenRange, ...]:
    """Ranges less the frames from start to end."""
    out = []
    for r in ranges:
        for first, last in ((r.start, min(r.end, start - 1)), (max(r.start, end + 1), r.end)):
            if first <= last:
                out.append(OpenRange(first, last, r.reason, r.by, r.at))
    return tuple(dict.fromkeys(out))
