"""Errors of the stream path; those of models are in engines.errors."""

from __future__ import annotations

from facestream.engines.errors import BadConfig, BadInput, EngineMismatch, UserError

__all__ = [
    "BadConfig",
    "BadInput",
    "EngineMismatch",
    "InferenceFailed",
    "Refused",
    "SinkLost",
    "SourceLost",
    "UserError",
]


class Refused(BadInput):
    """A server that rejects the request: wrong password, wrong path. Retrying soon is useless."""


class SourceLost(UserError):
    """A source that delivered frames and then failed: damaged data, a disconnected camera."""

    exit_code = 1


class SinkLost(UserError):
    """A sink that accepted frames and then failed: disk full, server gone."""

    exit_code = 1


class InferenceFailed(Exception):
    """The detector gave no result for a frame: it raised, hangs or was too late. The message is one line."""
