"""Real-time pacing of sources that are faster than real time (files, HLS), and removal of repeated frames."""

from __future__ import annotations

LATE_S = 0.25  # a frame later than this resets the pace, so that the following ones do not come all at once
AHEAD_S = 3.0  # so does a frame due later than this: its timestamps have jumped
TAIL_S = 0.5  # the last frames before a connection loss never left the decoder; they are old by now too
REPLAY_S = 60.0  # longer than any playlist; older timestamps belong to another timeline


class Pace:
    """Computes when frames are due, from their timestamps. segmented: an HLS stream, which arrives in bursts.

    A playlist starts with frames of some time ago, and after each reconnect with the same ones.
    """

    def __init__(self) -> None:
        self.segmented = False
        self._due_s: float | None = None  # of time 0
        self._last_s: float | None = None  # the newest time of a segmented stream

    def restart(self, segmented: bool) -> None:
        """Start a new connection."""
        self.segmented = segmented
        self._due_s = None

    def seen(self, time_s: float | None) -> bool:
        """Whether a frame with this timestamp was delivered before the connection was lost."""
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
            self._due_s = now - time_s
            wait = 0.0
        return max(0.0, wait)
