"""Which track a box of the records belongs to."""

from __future__ import annotations

from facestream.pipeline.records import Face
from facestream.pipeline.types import BoxKind
from msgspec import structs


def key_of(face: Face) -> int:
    """The track that a box belongs to here: an alternate position is a track of its own, with a minus."""
    return -face.id if face.kind is BoxKind.ALTERNATE else face.id


def named(face: Face, track: int) -> Face:
    """The box as one of this track."""
    kind = BoxKind.ALTERNATE if track < 0 else BoxKind.FACE if track else face.kind
    return structs.replace(face, id=abs(track), kind=kind)
