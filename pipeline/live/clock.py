"""One time line for a live source, whatever its own time stamps do."""

from __future__ import annotations

from collections import deque
from fractions import Fraction

TICK = Fraction(1, 90000)  # RTP's clock for video, RFC 6184 section 8.2.1
JUMP_S = 2.0  # by which a step of a source's times may exceed the time that passed before it counts as a jump
SLACK_S = 0.15  # by which the time line may differ from arrival without being corrected: networks jitter
FAR_S = 3.0  # beyond this, arrival takes over at once
WINDOW_S = 10.0  # over which the rate of a source's clock is estimated
ENOUGH_S = 1.0  # of arrivals, before an estimate is used
RATE_SLACK = 0.03  # by which a rate may differ from 1 before it is taken for wrong
# of an error that is corrected with each frame; of a frame's step, at most
GAIN = 0.1
SLEW = 0.5


class LiveClock:
    """Ticks of 1/90000 s since `start`, always rising.

    Their pace is that of the source's time stamps, which do not jitter. A running fit of these against the arrival of
    the frames finds clocks that run at a wrong rate; what is left of the difference is corrected little by little.
    Where time stamps are missing, stand still, jump or start anew, the time of arrival takes over. start, now: seconds
    of one monotonic clock.
    """

    def __init__(self, start: float) -> None:
        self.start = start
        self._last = -1
        self._at = 0.0  # seconds on the time line of the last frame
        self._seen: deque[tuple[float, float]] = deque()  # time and arrival of frames in the window
        self._time_s: float | None = None
        self._arrival = 0.0
        self._error = 0.0  # arrival less the time line, smoothed
        self._rate = 1.0  # of true seconds to the source's

    def tick(self, time_s: float | None, now: float) -> int:
        """The time of a frame that has come now. time_s: its own time in seconds, None when it has none."""
        arrival = now - self.start
        passed = arrival - self._arrival
        if time_s is None or self._time_s is None:
            self._anchor(arrival)
        else:
            step = time_s - self._time_s
            if step < 0 or step > passed + JUMP_S:
                self._anchor(arrival)
            elif step == 0:
                self._at += max(0.0, passed)  # it stands still
                self._seen.clear()
            else:
                self._advance(step * self._rate, arrival)
        self._time_s = time_s
        self._arrival = arrival
        if time_s is not None:
            self._note(time_s, arrival)
        self._last = max(self._last + 1, round(self._at / TICK))
        return self._last

    def _anchor(self, arrival: float) -> None:
        """Go on from arrival. Where the time line is ahead of it, it waits."""
        self._at = max(self._at, arrival) if self._last >= 0 else arrival
        self._error = 0.0
        self._seen.clear()

    def _advance(self, step: float, arrival: float) -> None:
        self._at += step
        error = arrival - self._at
        self._error += 0.05 * (error - self._error)
        if abs(self._error) > SLACK_S and self._error * error > 0:
            correction = max(-SLEW * step, min(SLEW * step, GAIN * error))
            self._at += correction
            self._error -= correction
        if arrival - self._at > FAR_S:
            self._anchor(arrival)

    def _note(self, time_s: float, arrival: float) -> None:
        """Estimate the rate from the least delays in both halves of the window: delays only ever add."""
        self._seen.append((time_s, arrival))
        while arrival - self._seen[0][1] > WINDOW_S:
            self._seen.popleft()
        if arrival - self._seen[0][1] < ENOUGH_S or len(self._seen) < 8:
            return
        middle = (self._seen[0][1] + arrival) / 2
        early = [entry for entry in self._seen if entry[1] <= middle]
        late = [entry for entry in self._seen if entry[1] > middle]
        first = min(early, key=lambda entry: entry[1] - entry[0])
        second = min(late, key=lambda entry: entry[1] - entry[0])
        if second[0] - first[0] < 0.1:
            return
        rate = (second[1] - first[1]) / (second[0] - first[0])
        # A clock that runs too fast delays its frames more and more: then the last frames tell, not the least delayed.
        if early and late and abs(rate - 1) > RATE_SLACK:
            rate = (late[-1][1] - early[0][1]) / (late[-1][0] - early[0][0])
        self._rate = rate if abs(rate - 1) > RATE_SLACK else 1.0

    def place(self, time_s: float) -> int | None:
        """Where something beside the frames belongs, by its own time; None before the first frame with a time."""
        if self._time_s is None:
            return None
        return round((self._at + (time_s - self._time_s) * self._rate) / TICK)

    def restart(self) -> None:
        """The source was opened anew: its times have nothing to do with those before."""
        self._time_s = None
        self._rate = 1.0
        self._seen.clear()
