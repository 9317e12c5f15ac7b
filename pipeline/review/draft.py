"""The draft: a reviewer's edits so far, stored beside the records. It contains no image."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from facestream.engines.checked import Wrong, checked
from facestream.pipeline.errors import BadInput, SinkLost
from facestream.pipeline.review.document import Document
from facestream.pipeline.review.edits import AnyEdit
from facestream.pipeline.review.groups import GroupBy
from facestream.pipeline.review.scout import Notes
from facestream.pipeline.video.output import Temporary
from msgspec import Struct, to_builtins

FORMAT = 1


class Draft(Struct, frozen=True, forbid_unknown_fields=True):
    """records_sha256: of the records that the edits are about. edits: in the order in which they were made. groups:
    track -> number of the people that look alike. notes: None before the pass over the video that makes them."""

    records_sha256: str
    format: int = FORMAT
    video: str = ""
    edits: tuple[AnyEdit, ...] = ()
    groups: dict[int, int] = {}
    grouped_by: GroupBy = "appearance"
    notes: Notes | None = None


def draft_path(records: Path) -> Path:
    """Where the draft to these records lies."""
    return records.with_name(records.name + ".draft.json")


def hash_of(path: Path) -> str:
    """A file's SHA-256. BadInput where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise BadInput(f"cannot read it ({e.strerror})", str(path)) from None


def read_draft(path: Path, records: Path) -> Draft | None:
    """The draft, None where there is none. BadInput for one that is damaged, or to other records."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as e:
        raise BadInput(f"cannot read the draft ({e.strerror})", str(path)) from None
    except ValueError:
        raise BadInput("the draft is not JSON, or damaged", str(path), "move it away to begin anew") from None
    try:
        draft = checked(value, Draft, strict=False)  # JSON's keys are text
    except Wrong as e:
        raise BadInput(f"the draft cannot be used: {e}", str(path), "move it away to begin anew") from None
    if draft.format != FORMAT or draft.records_sha256 != hash_of(records):
        why = f"the draft was made for other records than {records.name}"
        raise BadInput(why, str(path), "give those, or move the draft away to begin anew")
    return draft


def write_draft(path: Path, draft: Draft) -> None:
    """Write it, whole or not at all; an earlier one is replaced. SinkLost where that fails."""
    text = json.dumps(to_builtins(draft, str_keys=True), ensure_ascii=False) + "\n"
    temporary = Temporary(path)
    try:
        temporary.path.write_text(text, encoding="utf-8")
    except OSError as e:
        temporary.discard()
        raise SinkLost(f"cannot write the draft ({e.strerror})", str(path)) from None
    temporary.commit()


def replay(document: Document, edits: tuple[AnyEdit, ...], where: Path) -> None:
    """Make these edits again. BadInput names the one that does not fit."""
    for number, edit in enumerate(edits, 1):
        try:
            document.apply(edit)
        except BadInput as e:
            raise BadInput(f"edit {number} of the draft does not fit: {e.what}", str(where)) from None
