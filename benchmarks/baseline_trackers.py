"""Run another tracker on detections: the part of compare_trackers.py that runs in the baselines' own environment.

    python benchmarks/baseline_trackers.py NAME IN.npz OUT.npz

NAME is one of BASELINES. IN holds for each sequence `NAME/found` (float [N, 6]: frame from 0, left, top, right, bottom,
score; by frame) and `NAME/info` (frames, frames/s). OUT holds `NAME/rows` (float [M, 7]: frame, id, left, top, right,
bottom, 1) and `NAME/ms` (float [frames]: the time of each update). Needs numpy, pyxtrackers and trackers alone.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Update = Callable[[Any], Any]  # [n, 5] corners and score -> [m, 5] corners and id


def pyx_bytetrack(rate: float) -> Update:
    """pyxtrackers' ByteTrack with the thresholds of ByteTrack's own MOT17 setting."""
    from pyxtrackers import BYTETracker

    tracker = BYTETracker(frame_rate=round(rate), track_thresh=0.6, match_thresh=0.9, track_buffer=30)
    return lambda found: tracker.update(found)[:, :5]


def pyx_ocsort(rate: float) -> Update:
    """pyxtrackers' OC-SORT with the threshold of OC-SORT's own MOT17 setting."""
    from pyxtrackers import OCSort

    tracker = OCSort(det_thresh=0.6)
    return lambda found: tracker.update(found)[:, :5]


def roboflow_bytetrack(rate: float) -> Update:
    """trackers' ByteTrack as it comes."""
    from trackers import ByteTrackTracker

    return _roboflow(ByteTrackTracker(frame_rate=rate))


def roboflow_ocsort(rate: float) -> Update:
    """trackers' OC-SORT as it comes."""
    from trackers import OCSORTTracker

    return _roboflow(OCSORTTracker(frame_rate=rate))


def _roboflow(tracker: Any) -> Update:
    import supervision

    def update(found: Any) -> Any:
        boxes = supervision.Detections(
            xyxy=found[:, :4].astype(np.float32),
            confidence=found[:, 4].astype(np.float32),
            class_id=np.zeros(len(found), int),
        )
        out = tracker.update(boxes)
        known = out.tracker_id >= 0
        return np.concatenate([out.xyxy[known], out.tracker_id[known, None]], 1)

    return update


BASELINES = {
    "pyxtrackers ByteTrack": pyx_bytetrack,
    "pyxtrackers OC-SORT": pyx_ocsort,
    "trackers ByteTrack": roboflow_bytetrack,
    "trackers OC-SORT": roboflow_ocsort,
}


def main(name: str, source: str, target: str) -> None:
    given = dict(np.load(source))
    out = {}
    for key in [k.removesuffix("/info") for k in given if k.endswith("/info")]:
        found, (frames, rate) = given[f"{key}/found"], given[f"{key}/info"]
        update = BASELINES[name](float(rate))
        starts = np.searchsorted(found[:, 0], np.arange(frames + 1))
        rows = []
        ms = []
        for frame in range(int(frames)):
            boxes = np.ascontiguousarray(found[starts[frame] : starts[frame + 1], 1:])
            began = time.perf_counter()
            tracks = update(boxes)
            ms.append(1000 * (time.perf_counter() - began))
            # Ids count from 0 with some, and trackeval's truth of a benchmark does not mind.
            rows += [(frame, track, *corners, 1.0) for *corners, track in np.asarray(tracks).tolist()]
        out[f"{key}/rows"] = np.array(rows, float).reshape(-1, 7)
        out[f"{key}/ms"] = np.array(ms)
    np.savez(target, **out)


if __name__ == "__main__":
    main(*sys.argv[1:])
