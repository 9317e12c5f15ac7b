"""The frames of a track in which its identity is certain: only there may a face stay uncovered."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

from facestream.pipeline.records import Face
from facestream.pipeline.review.geometry import iou
from facestream.pipeline.types import BoxState

BRACKET_S = 0.2  # a frame without a detection is certain when one lies within so many seconds on both sides
CERTAIN = 0.5  # score from which a detection says that a face is there
SAME_PLACE = 0.2  # IoU of two neighbouring detections under which the track may have jumped to somebody else
MARGIN = 2  # frames around a doubtful one that are not certain either


def certain_frames(faces: dict[int, Face], rate: float, cuts: list[int]) -> frozenset[int]:
    """Of a track's frames, frame -> face in order, those that are certain. cuts: frames with which a scene begins."""
    frames = list(faces)
    seen = [f for f, face in faces.items() if face.state is BoxState.OBSERVED and face.score >= CERTAIN]
    reach = max(1, round(BRACKET_S * rate))
    doubtful: set[int] = set()
    for frame in frames:
        at = bisect_right(seen, frame)
        before = seen[at - 1] if at else None
        after = before if before == frame else seen[at] if at < len(seen) else None
        if before is None or after is None or frame - before > reach or after - frame > reach:
            doubtful.add(frame)
    for last, now in pairwise(seen):
        jumped = iou(faces[last].xyxy, faces[now].xyxy) < SAME_PLACE
        if jumped or any(last < cut <= now for cut in cuts):
            doubtful |= {f for f in frames if last <= f <= now}
    around = {f + d for f in doubtful for d in range(-MARGIN, MARGIN + 1)}
    return frozenset(f for f in frames if f not in around)
