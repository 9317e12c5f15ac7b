"""How long to wait before the next try."""

from __future__ import annotations

import random


class Backoff:
    """Doubles from `least` to `most` seconds, with jitter, so that cameras that went down together do not come back
    together and take the network with them. `slow` where a server said no: only a person can change that."""

    def __init__(self, least: float = 0.25, most: float = 10.0, slow: float = 30.0) -> None:
        self.least, self.most, self.slow = least, most, slow
        self.tries = 0

    def next(self, refused: bool = False) -> float:
        """Seconds to wait now."""
        if refused:
            return self.slow * random.uniform(0.8, 1.0)
        longest = min(self.most, self.least * 2.0 ** min(self.tries, 30))
        self.tries += 1
        return max(self.least, longest * random.uniform(0.5, 1.0))

    def reset(self) -> None:
        """It worked, for long enough to count."""
        self.tries = 0
