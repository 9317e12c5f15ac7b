"""A monotonic timeline for a live source, whatever its own timestamps do."""

from __future__ import annotations

from fractions import Fraction

TICK = Fraction(1, 90000)  # RTP's clock for video, RFC 6184 section 8.2.1
SLACK_S = 3.0  # seconds by which a source's timestamps may lead or trail the arrival of its frames


class LiveClock:
    """Strictly increasing ticks of 1/90000 s since `start`.

    They follow the source's timestamps, which do not jitter. If these are missing, jump, restart after a reconnect or
    drift, the arrival time is used instead. start, now: seconds of the same monotonic clock.
    """

    def __init__(self, start: float) -> None:
        self.start = start
        self._offset: float | None = None
        self._last = -1

    def tick(self, time_s: float | None, now: float) -> int:
        """The time of a frame that arrives now. time_s: its timestamp in seconds, None if it has none."""
        arrival = now - self.start
        if time_s is None:
            at = arrival
        else:
            if self._offset is None or abs(time_s + self._offset - arrival) > SLACK_S:
                self._offset = arrival - time_s
            at = time_s + self._offset
        self._last = max(self._last + 1, round(at / TICK))
        return self._last

    def place(self, time_s: float) -> int | None:
        """The time of something other than a frame, such as audio; None before the first frame with a timestamp."""
        return None if self._offset is None else round((time_s + self._offset) / TICK)

    def restart(self) -> None:
        """The source was reopened: its timestamps are unrelated to the earlier ones."""
        self._offset = None
