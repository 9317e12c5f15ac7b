"""States of a connection that reconnects, and the backoff between its attempts."""

from __future__ import annotations

import random
from enum import StrEnum

STEADY_S = 5.0  # a connection that lasted this long resets the backoff


class State(StrEnum):
    """What a camera or a connection is doing."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALLED = "stalled"  # connected, but no data arrives
    RECONNECTING = "reconnecting"
    FAILED = "failed"  # needs intervention, such as another password; network sources are still retried occasionally
    ENDED = "ended"  # the end of a file that is not looped


class Backoff:
    """Exponential backoff between reconnect attempts, from `min_s` to `max_s` seconds, with jitter, so that cameras
    that failed together do not reconnect together. `refused_s` after a rejection, which only a person can resolve."""

    def __init__(self, min_s: float = 0.25, max_s: float = 10.0, refused_s: float = 30.0) -> None:
        self.min_s = min_s
        self.max_s = max_s
        self.refused_s = refused_s
        self.tries = 0

    def next(self, refused: bool = False) -> float:
        """Seconds to wait now."""
        if refused:
            return self.refused_s * random.uniform(0.8, 1.0)
        longest = min(self.max_s, self.min_s * 2.0 ** min(self.tries, 30))
        self.tries += 1
        return max(self.min_s, longest * random.uniform(0.5, 1.0))

    def reset(self) -> None:
        """Reset after a connection that lasted long enough."""
        self.tries = 0
