"""Sources that give their frames faster than these were taken: when each is due, and which has been there before."""

from __future__ import annotations

LATE_S = 0.25  # a frame that is later than this sets the pace anew: what follows must not come all at once
AHEAD_S = 3.0  # so does one that is due later than this: its times have jumped
TAIL_S = 0.5  # the last pictures before a connection was lost never came out of the decoder; they are old by now too
REPLAY_S = 60.0  # no playlist is as long; what is sent from longer ago belongs to another time line


class Pace:
    """The times at which frames are due, from their own times. segmented: an HLS stream, which comes in bursts.

    A playlist begins with pictures of some time ago, and after each new connection with the same ones.
    """

    def __init__(self) -> None:
        self.segmented = False
        self._due_s: float | None = None  # of time 0
        self._last_s: float | None = None  # the newest time of a segmented stream

    def restart(self, segmented: bool) -> None:
        """A new connection."""
        self.segmented, self._due_s = segmented, None

    def seen(self, time_s: float | None) -> bool:
        """Whether the frame of this time was there before the connection was lost."""
        if not self.segmented or time_s is None:
            return False
        if self._due_s is None and self._last_s is not None and -TAIL_S < self._last_s - time_s < REPLAY_S:
            return True
        self._last_s = time_s
        return False

    def wait_s(self, time_s: float | None, now: float) -> float:
        """Seconds until a frame is due, 0 when it is. now: seconds of a monotonic clock."""
        if time_s is None:
            return 0.0
        if self._due_s is None:
            self._due_s = now - time_s
        wait = self._due_s + time_s - now
        if self.segmented and not -LATE_S < wait < AHEAD_S:
            self._due_s, wait = now - time_s, 0.0
        return max(0.0, wait)
