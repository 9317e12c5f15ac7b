"""What only a checkout has: `benchmarks/` is not installed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from facestream.engines.errors import BadConfig


def is_checkout() -> bool:
    """Whether benchmarks/ is here."""
    return find_spec("facestream.benchmarks") is not None


def benchmarks(module: str, what: str) -> ModuleType:
    """The module `module` of benchmarks/. what: the flag or command that needs it, for the message.

    BadConfig in an installed package.
    """
    try:
        return import_module(f"facestream.benchmarks.{module}")
    except ModuleNotFoundError as e:
        if e.name not in ("facestream.benchmarks", f"facestream.benchmarks.{module}"):
            raise
        raise BadConfig("is part of a checkout, and not installed", what, "clone the repository") from None
