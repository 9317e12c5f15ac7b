"""What went wrong and when it was over, for other programs: JSON lines in a file, or POSTed to a webhook.

An event holds no picture and no secret: {"time", "camera", "event", "over", "detail"}.
"""

from __future__ import annotations

import json
import queue
import re
import threading
import urllib.request
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from facestream.pipeline.errors import BadInput
from facestream.pipeline.url import parse_url, redact

WAITING = 256  # events that wait for a slow webhook; then the oldest are dropped
TIMEOUT_S = 5.0
_KINDS = (
    ("camera_down", r"connecting|reconnecting|stalled|failed"),
    ("recording_lost", r"recording lost"),
    ("output_lost", r"output lost"),
    ("detector_blind", r"(frames|pictures) are |.*covered|the detector"),
    ("worker_stuck", r".*(hangs|has died|none has left)"),
)


def kind_of(problem: str) -> str:
    """The name of a problem's kind."""
    return next((kind for kind, pattern in _KINDS if re.match(pattern, problem)), "trouble")


class EventFeed:
    """Tells where a problem begins and where it ends. target: a file's name, or http(s)://."""

    def __init__(self, target: str, on_event: Callable[[str], None] = lambda message: None) -> None:
        """Raises BadInput where it cannot be written."""
        self._on_event = on_event
        self._known: dict[tuple[str, str], str] = {}
        self._file: IO[str] | None = None
        self._url = ""
        self._waiting: queue.Queue[str] = queue.Queue(WAITING)
        if re.match(r"https?://", target, re.IGNORECASE):
            url = parse_url(target)
            self._url = url.without_user
            self._headers = {"Content-Type": "application/json"}
            if url.user:
                self._headers["Authorization"] = f"Bearer {url.password or url.user}"
            self._redacted = url.redacted
            threading.Thread(target=self._send, name="webhook", daemon=True).start()
        else:
            try:
                self._file = Path(target).open("a", encoding="utf-8")  # noqa: SIM115  open for the whole run
            except OSError as error:
                raise BadInput(f"the events cannot be written ({error.strerror})", target) from None

    def update(self, problems: Iterable[tuple[str, str]]) -> None:
        """All that is wrong now: (camera, problem)."""
        now = {(camera, kind_of(problem)): redact(problem) for camera, problem in problems}
        for key in now.keys() - self._known.keys():
            self._put(*key, over=False, detail=now[key])
        for key in self._known.keys() - now.keys():
            self._put(*key, over=True, detail=self._known[key])
        self._known = now

    def _put(self, camera: str, kind: str, over: bool, detail: str) -> None:
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": when, "camera": camera, "event": kind, "over": over, "detail": detail})
        if self._file is not None:
            try:
                self._file.write(line + "\n")
                self._file.flush()
            except OSError as error:
                self._on_event(f"an event cannot be written ({error.strerror})")
            return
        if self._waiting.full():
            self._waiting.get_nowait()
        self._waiting.put_nowait(line)

    def _send(self) -> None:
        while True:
            line = self._waiting.get()
            request = urllib.request.Request(self._url, line.encode(), self._headers)
            try:
                urllib.request.urlopen(request, timeout=TIMEOUT_S).close()
            except (OSError, ValueError) as error:
                self._on_event(
                    f"{self._redacted} does not take events ({redact(getattr(error, 'reason', None) or error)})"
                )
