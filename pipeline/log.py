"""One line about what happens, on standard error."""

from __future__ import annotations

import sys

from facestream.pipeline.url import redact


def say(kind: str, message: object) -> None:
    """Print a line; passwords in it are hidden."""
    print(f"facestream: {kind}: {redact(message)}", file=sys.stderr)
