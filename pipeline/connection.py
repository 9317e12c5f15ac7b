"""States of a connection that is kept alive, and how long it waits before the next try."""

from __future__ import annotations

import random
from enum import StrEnum

STEADY_S = 5.0  # a connection that lasted so long was a good one: the next try comes soon


class State(StrEnum):
    """What a camera or a connection is doing."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALLED = "stalled"  # connected, and nothing comes
    RECONNECTING = "reconnecting"
    FAILED = "failed"  # somebody must do something; a network source is still tried now and then
    ENDED = "ended"  # a file that is not looped


class Backoff:
    """Wait times between tries: doubling from `min_s` to `max_s` seconds, with jitter, so that cameras that went down
    together do not reconnect together. `refused_s` where a server said no: only a person can change that."""

    def __init__(self, min_s: float = 0.25, max_s: float = 10.0, refused_s: float = 30.0) -> None:
        self.min_s, self.max_s, self.refused_s = min_s, max_s, refused_s
        self.tries = 0

    def next(self, refused: bool = False) -> float:
        """Seconds to wait now."""
        if refused:
            return self.refused_s * random.uniform(0.8, 1.0)
        longest = min(self.max_s, self.min_s * 2.0 ** min(self.tries, 30))
        self.tries += 1
        return max(self.min_s, longest * random.uniform(0.5, 1.0))

    def reset(self) -> None:
        """It worked, for long enough to count."""
        self.tries = 0
