"""Errors of the stream path; those of models are in engines.errors."""

from __future__ import annotations

from facestream.engines.errors import BadConfig, BadInput, EngineMismatch, UserError

__all__ = ["BadConfig", "BadInput", "EngineMismatch", "Refused", "SinkLost", "SourceLost", "UserError"]


class Refused(BadInput):
    """A server that is there and says no: a wrong password, a wrong path. Asking again soon is no use."""


class SourceLost(UserError):
    """A source that delivered frames and then broke: damaged data, a camera gone."""

    exit_code = 1


class SinkLost(UserError):
    """A sink that accepted frames and then broke: disk full, server gone."""

    exit_code = 1
