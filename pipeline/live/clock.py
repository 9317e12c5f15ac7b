"""One time line for a live source, whatever its own time stamps do."""

from __future__ import annotations

from fractions import Fraction

TICK = Fraction(1, 90000)  # RTP's clock for video, RFC 6184 section 8.2.1
SLACK_S = 3.0  # by which a source's times may lead or trail the arrival of its frames


class LiveClock:
    """Ticks of 1/90000 s since `start`, always rising.

    Their pace is that of the source's time stamps, which do not jitter. Where these are missing, jump, start anew
    after a reconnect or drift away, the time of arrival takes over. start, now: seconds of one monotonic clock.
    """

    def __init__(self, start: float) -> None:
        self.start = start
        self._offset: float | None = None
        self._last = -1

    def tick(self, time_s: float | None, now: float) -> int:
        """The time of a frame that has come now. time_s: its own time in seconds, None when it has none."""
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
        """Where something beside the frames belongs, by its own time; None before the first frame with a time."""
        return None if self._offset is None else round((time_s + self._offset) / TICK)

    def restart(self) -> None:
        """The source was opened anew: its times have nothing to do with those before."""
        self._offset = None
