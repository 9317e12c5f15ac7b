"""The program's log: the standard library's `logging`, one line an event on standard error.

Modules log to `logging.getLogger(__name__)`, below the logger "facestream". As a library nothing is shown unless the
program that uses it sets up logging; the command line calls `configure`.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from facestream.pipeline.url import redact

LEVELS = ("debug", "info", "warning", "error")
ROOT = logging.getLogger("facestream")
ROOT.addHandler(logging.NullHandler())


class TextFormatter(logging.Formatter):
    """`2026-11-30 21:04:05.678 warning: door: connection lost`, in local time. Passwords are hidden."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).isoformat(" ", "milliseconds")
        camera = getattr(record, "camera", "")
        name = f"{camera}: " if camera else ""
        text = f"{when} {record.levelname.lower()}: {name}{record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return redact(text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message; camera and exception where there is one."""

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


def configure(level: str = "info", as_json: bool = False) -> None:
    """Show events from this level up (one of LEVELS) on standard error, as text or as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    ROOT.handlers[:] = [handler]
    ROOT.setLevel(level.upper())


def fail(message: object) -> None:
    """A line about what a command could not do: part of its output, so it has no time. JSON where the log is."""
    if any(isinstance(handler.formatter, JsonFormatter) for handler in ROOT.handlers):
        ROOT.error("%s", message)
    else:
        print(f"facestream: error: {redact(message)}", file=sys.stderr)


def say(kind: str, message: object) -> None:
    """An event of a camera, or of the kind "error" or "warning"."""
    if kind == "error":
        fail(message)
    elif kind == "warning":
        ROOT.warning("%s", message)
    else:
        ROOT.info("%s", message, extra={"camera": kind})
