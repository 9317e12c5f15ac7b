"""What was found, written beside the video: JSON Lines, one object a frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import SinkLost
from pipeline.output import Temporary, check
from pipeline.types import TrackedFrame


def record(tracked: TrackedFrame, source: str) -> dict[str, Any]:
    """A frame's record; boxes in pixels of the displayed source frame, time in seconds."""
    frame = tracked.frame
    width, height = frame.size
    time_s = frame.time_s
    return {
        "source": source,
        "frame": frame.index,
        "pts": frame.pts,
        "time_s": None if time_s is None else round(time_s, 6),
        "width": width,
        "height": height,
        "faces": [
            {"id": b.id, "xyxy": [round(v, 2) for v in b.xyxy], "score": round(b.score, 4), "state": str(b.state)}
            for b in tracked.boxes
        ],
    }


class JsonlSink:
    """Records of one or more sources in one file."""

    def __init__(self, path: Path, overwrite: bool) -> None:
        check(path, overwrite)
        self.temporary = Temporary(path)
        self.file = self.temporary.path.open("w", encoding="utf-8")
        self.mark = 0

    def write(self, tracked: TrackedFrame, source: str) -> None:
        try:
            self.file.write(json.dumps(record(tracked, source), ensure_ascii=False) + "\n")
        except OSError as e:
            raise self._lost(e) from None

    def commit(self) -> None:
        """What was written so far stays: a source is done."""
        self.mark = self.file.tell()

    def rollback(self) -> None:
        """Take back what was written since the last commit: a source failed."""
        self.file.seek(self.mark)
        self.file.truncate()

    def close(self) -> None:
        try:
            self.file.close()
        except OSError as e:
            self.temporary.drop()
            raise self._lost(e) from None
        self.temporary.keep()

    def abort(self) -> None:
        self.file.close()
        self.temporary.drop()

    def _lost(self, error: OSError) -> SinkLost:
        return SinkLost(f"cannot write the records ({error.strerror})", str(self.temporary.target))
