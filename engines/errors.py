"""Errors a user can act on. The command line prints each as one line and exits with its code."""

from __future__ import annotations


class UserError(Exception):
    """`what` went wrong, `where` (a path, a redacted URI, a key) and what to `do` about it."""

    exit_code = 2

    def __init__(self, what: str, where: str = "", do: str = "") -> None:
        self.what = what
        self.where = where
        self.do = do
        super().__init__(": ".join(part for part in (where, what) if part) + (f" ({do})" if do else ""))


class BadInput(UserError):
    """An input or output that cannot be used: missing, empty, not a video, not writable."""


class BadConfig(UserError):
    """A configuration key or value that is not valid."""


class EngineMismatch(UserError):
    """A model or compiled engine that cannot run here."""
