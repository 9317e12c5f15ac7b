"""Logging with the standard library's `logging`: one line per event on stderr.

Modules log to `logging.getLogger(__name__)`, under the logger "facestream". As a library, nothing is shown unless the
program configures logging; the command line calls `configure`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TextIO

from facestream.pipeline.url import redact

LEVELS = ("debug", "info", "warning", "error")
ROOT = logging.getLogger("facestream")
ROOT.addHandler(logging.NullHandler())


class TextFormatter(logging.Formatter):
    """`2026-11-30 21:04:05.678 warning: door: connection lost`, in local time. Passwords are redacted."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).isoformat(" ", "milliseconds")
        camera = getattr(record, "camera", "")
        name = f"{camera}: " if camera else ""
        text = f"{when} {record.levelname.lower()}: {name}{record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return redact(text)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (ISO 8601, UTC), level, logger, message; camera and exception if any."""

    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if camera := getattr(record, "camera", ""):
            row["camera"] = redact(camera)
        if record.exc_info:
            row["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(row, ensure_ascii=False)


class _Handler(logging.StreamHandler[TextIO]):
    def emit(self, record: logging.LogRecord) -> None:
        with beside_bars():
            super().emit(record)


@contextmanager
def beside_bars() -> Iterator[None]:
    """Around what is printed: progress bars on the terminal make room for it."""
    tqdm = sys.modules.get("tqdm")  # where no bar is drawn, its import is spared
    with tqdm.tqdm.external_write_mode() if tqdm is not None else nullcontext():
        yield


def configure(level: str = "info", as_json: bool = False) -> None:
    """Log events of at least this level (one of LEVELS) to stderr, as text or JSON Lines."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    ROOT.handlers[:] = [handler]
    ROOT.setLevel(level.upper())


def fail(message: object) -> None:
    """Print an error of a command: part of its output, so without a timestamp; as JSON if the log is."""
    if any(isinstance(handler.formatter, JsonFormatter) for handler in ROOT.handlers):
        ROOT.error("%s", message)
    else:
        with beside_bars():
            print(f"facestream: error: {redact(message)}", file=sys.stderr)
