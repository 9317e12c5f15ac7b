"""Faces from saved records instead of from the detector."""

from __future__ import annotations

from pathlib import Path

from facestream.pipeline.errors import BadInput
from facestream.pipeline.records import Record
from facestream.pipeline.types import Frame, TrackedFrame


class RecordReplay:
    """Replaces `FacePipeline`: gives each frame the boxes of its record.

    Refuses a video that the records do not belong to: raises BadInput if a frame's size or pts differs, if a frame
    has no record, or if records are left over at the end. MOT files contain neither size nor pts nor frames without
    faces, so there only records beyond the video's end can be detected.
    """

    def __init__(self, records: dict[int, Record], where: Path) -> None:
        self.records = records
        self.where = where
        self.complete = any(r.width is not None for r in records.values())
        self.last = -1

    def push(self, frame: Frame) -> list[TrackedFrame]:
        self.last = frame.index
        row = self.records.get(frame.index)
        if row is None:
            if self.complete:
                raise self._other(f"they have no frame {frame.index}")
            return [TrackedFrame(frame, ())]
        if row.width is not None and (row.width, row.height) != frame.size:
            raise self._other(f"they are for {row.width}x{row.height}, the video has {frame.size[0]}x{frame.size[1]}")
        if row.pts is not None and row.pts != frame.pts:
            raise self._other(f"frame {frame.index} has the pts {frame.pts}, they say {row.pts}")
        return [TrackedFrame(frame, tuple(face.box() for face in row.faces), row.masks)]

    def flush(self) -> list[TrackedFrame]:
        beyond = max(self.records, default=-1)
        if beyond > self.last:
            raise self._other(f"they go on to frame {beyond}, the video ends at {self.last}")
        return []

    def _other(self, why: str) -> BadInput:
        return BadInput(f"the records are of another video: {why}", str(self.where))
