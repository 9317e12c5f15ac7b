"""Who guesses passwords is slowed down, address by address, and counted."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

FREE = 3  # failures that cost no time: a person mistypes
FIRST_S = 0.5  # for the one after these; then twice as long each time
LONGEST_S = 16.0
FORGET_S = 600.0  # after which an address begins anew
ADDRESSES = 4096  # that are remembered; the oldest are forgotten first
SAY_S = 60.0  # between two lines about one address


@dataclass(slots=True)
class Guesses:
    """Of one address. free_s: when the next answer may go out (monotonic)."""

    failures: int = 0
    last_s: float = 0.0
    free_s: float = 0.0
    said_s: float = -SAY_S
    unsaid: int = 0


class LoginGuard:
    """Counts failed log-ins, and says how long an answer to one has to wait. on_event: called with one line."""

    def __init__(
        self, on_event: Callable[[str], None] = lambda message: None, free: int = FREE, longest_s: float = LONGEST_S
    ) -> None:
        """free: failures that cost no time. longest_s: most seconds for one."""
        self.on_event = on_event
        self._free = free
        self._longest_s = longest_s
        self.failed = 0
        self._known: OrderedDict[str, Guesses] = OrderedDict()

    def fail(self, address: str) -> float:
        """Note a failed log-in; seconds until it may be answered. Those at the same time wait one after the other."""
        now = time.monotonic()
        self.failed += 1
        known = self._known.setdefault(address, Guesses())
        self._known.move_to_end(address)
        while len(self._known) > ADDRESSES:
            self._known.popitem(last=False)
        if now - known.last_s > FORGET_S:
            known.failures = 0
        known.failures += 1
        known.last_s = now
        known.unsaid += 1
        if now - known.said_s >= SAY_S:
            self.on_event(f"{known.unsaid} failed log-in{'s' * (known.unsaid > 1)} from {address}")
            known.said_s = now
            known.unsaid = 0
        if known.failures <= self._free:
            return 0.0
        wait_s = min(self._longest_s, FIRST_S * 2.0 ** min(known.failures - self._free - 1, 10))
        known.free_s = max(now, known.free_s) + wait_s
        return known.free_s - now

    def succeed(self, address: str) -> None:
        self._known.pop(address, None)
