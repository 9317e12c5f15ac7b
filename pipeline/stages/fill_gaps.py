"""Gap filling: covers between two detections of a track, and after its last one."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
from facestream.engines.boxes import Array, grow_xyxy, union_xyxy
from facestream.pipeline.stages.delay_line import BufferedFrame, DelayLine
from facestream.pipeline.stages.settings import DEFAULTS, Heuristics
from facestream.pipeline.stages.track_memory import TrackMemory
from facestream.pipeline.stages.track_through import track_through
from facestream.pipeline.types import Box, BoxState, xyxy


class GapFiller:
    """Fills gaps. When a track is detected again, the boxes predicted in between are enlarged to contain the linear
    interpolation between the two detections; in a short gap (frames without a detection) interpolation is enough."""

    def __init__(self, line: DelayLine, memory: TrackMemory, heuristics: Heuristics = DEFAULTS) -> None:
        self.line = line
        self.memory = memory
        self.heuristics = heuristics
        self.settings = heuristics.fill_gaps

    def fill(self, box: Box) -> bool:
        """Interpolate between this detection, in the newest frame, and the one before; returns False if that frame no
        longer waits. A longer gap may connect two faces, so there this face is tracked backwards as well."""
        frames = self.line.frames
        settings = self.settings
        last = len(frames) - 1
        for start in range(last - 1, -1, -1):
            if frames[start].scene != frames[last].scene:
                continue  # a flash between two detections; no track continues over a cut
            old = self.line.face(start, box.id)
            if old is not None and old.state is BoxState.OBSERVED:
                break
        else:
            return False
        short = last - start <= settings.short_gap
        back: dict[int, Array] = {}
        if not short:
            chain = [frames[at] for at in range(last, max(start, last - 1 - settings.max_followed), -1)]
            places = track_through(chain, np.array(box.xyxy), lost=0, heuristics=self.heuristics) or ()
            back = dict(zip(range(last - 1, start, -1), places, strict=False))
        for at in range(start + 1, last):
            share = (at - start) / (last - start)
            place = (1 - share) * np.array(old.xyxy) + share * np.array(box.xyxy)
            guess = self.line.face(at, box.id)
            if short:
                place = grow_xyxy(place, 1 + settings.short_growth)
            elif guess is not None:  # never smaller than the cover without look-ahead
                place = union_xyxy(place, np.array(guess.xyxy))
            made = replace(box, xyxy=xyxy(place), state=BoxState.BACKFILLED)
            if at in back:
                self.line.put_both(at, made, replace(made, xyxy=xyxy(back[at])), settings.merge_iou)
            else:
                self.line.put(at, made)
        return True

    def follow_on(self, leaving: BufferedFrame) -> None:
        """Track the faces of a leaving frame that are not detected in the waiting frames: template matching replaces
        the tracker's predictions there."""
        frames = self.line.frames
        ahead = islice(frames, self.settings.max_followed)
        after = [at for at, waiting in enumerate(ahead) if waiting.scene == leaving.scene]
        for box in leaving.boxes.values():
            guess = self.line.face(after[0], box.id) if after else None
            if box.state is not BoxState.OBSERVED or guess is None or guess.state is not BoxState.COASTED:
                continue
            chain = [leaving, *(frames[at] for at in after)]
            places = track_through(chain, np.array(box.xyxy), lost=0, heuristics=self.heuristics)
            for at, place in zip(after, places or (), strict=False):
                self.line.put(at, replace(guess, xyxy=xyxy(place)))
                self.memory.known_s[box.key] = frames[at].frame.time_s or 0.0
