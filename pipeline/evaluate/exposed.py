"""Pictures of what leaked: when, as a timeline of each track, and how it looked, as a filmstrip of the worst runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.pipeline.evaluate.tally import TAU, Tally
from facestream.pipeline.types import Frame
from facestream.pipeline.video.planes import rgb_view

TILE = 120  # pixels of a filmstrip's tile
KEPT = 2_000  # tiles kept while a video goes through: 86 MB
ROWS = 8
COLUMNS = 10
_BACK = (30, 30, 30)
_SEEN = (110, 110, 110)
_OPEN = (230, 60, 50)
_HALF = (240, 170, 60)
_TEXT = (220, 220, 220)
_FACE = (80, 230, 90)
_COVER = (80, 140, 255)


@dataclass(frozen=True, slots=True)
class Tile:
    """A face that leaks: RGB [TILE, TILE, 3] around it with its ellipse, and how much of it was covered."""

    rgb: Array
    share: float


class Filmstrip:
    """Collects a tile of each face-frame that leaks."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], Tile] = {}

    def add(self, frame: Frame, track: int, xyxy: Array, covers: Array, share: float) -> None:
        """xyxy [4]: the face, drawn in green. covers xyxy [N, 4]: what is covered, in blue; displayed pixels."""
        if share >= TAU or len(self.tiles) >= KEPT:
            return
        centre = (xyxy[:2] + xyxy[2:]) / 2
        reach = max(8.0, float((xyxy[2:] - xyxy[:2]).max()))
        scale = TILE / (2 * reach)
        view = rgb_view(frame, (1920, 1920))
        small = [view.rgb.shape[1] / frame.size[0], view.rgb.shape[0] / frame.size[1]]
        zoom = np.array([[scale / small[0], 0.0], [0.0, scale / small[1]]])
        shift = TILE / 2 - scale * centre
        rgb = cv2.warpAffine(view.rgb, np.concatenate([zoom, shift[:, None]], 1), (TILE, TILE), borderValue=_BACK)
        for box, colour in [*((c, _COVER) for c in covers), (xyxy, _FACE)]:
            x, y = (box[:2] + box[2:]) / 2 * scale + shift
            w, h = (box[2:] - box[:2]) / 2 * scale
            if -w < x < TILE + w and -h < y < TILE + h:
                cv2.ellipse(rgb, (round(x), round(y)), (max(1, round(w)), max(1, round(h))), 0, 0, 360, colour, 1)
        self.tiles[track, frame.index] = Tile(rgb, share)

    def save(self, tally: Tally, path: Path) -> None:
        """A row for each of the longest exposed runs: frames in order, at most COLUMNS, evenly drawn from the run."""
        runs = sorted(((run, track) for track, run in tally.runs()), key=lambda r: -len(r[0]))[:ROWS]
        sheet = np.full((max(1, len(runs)) * (TILE + 18), COLUMNS * TILE, 3), _BACK, np.uint8)
        if not runs:
            _put_text(sheet, "no face leaks", 6, 70)
        for row, (run, track) in enumerate(runs):
            top = row * (TILE + 18)
            _put_text(sheet, f"track {track}: {len(run)} frames from frame {run[0].frame}", 4, top + 13)
            picks = np.unique(np.linspace(0, len(run) - 1, min(COLUMNS, len(run))).round().astype(int))
            for column, pick in enumerate(picks):
                tile = self.tiles.get((track, run[pick].frame))
                if tile is None:
                    continue
                area = sheet[top + 18 : top + 18 + TILE, column * TILE : (column + 1) * TILE]
                area[:] = tile.rgb
                _put_text(area, f"{run[pick].frame}: {tile.share:.0%}", 3, TILE - 5)
        _write(path, sheet)


def timeline(tally: Tally, path: Path, max_tracks: int = 40) -> None:
    """A bar a track, the leakiest first: grey where it is in the picture, orange where a part of it leaks, red
    where more than half does."""
    tracks = sorted(tally.face_frames.items(), key=lambda t: (-sum(s.share < TAU for s in t[1]), t[0]))
    rows_shown = tracks[:max_tracks]
    last = max((s.frame for _, rows in tracks for s in rows), default=0)
    left = 150
    width = 1000
    high = 16
    sheet = np.full((36 + high * max(1, len(rows_shown)) + 22, left + width + 20, 3), _BACK, np.uint8)
    clean = sum(all(s.share >= TAU for s in rows) for _, rows in tracks)
    _put_text(sheet, f"{len(tracks)} tracks, {clean} covered throughout; frames 0 to {last}", 6, 20)
    for row, (track, rows) in enumerate(rows_shown):
        y = 36 + row * high
        leaks = sum(s.share < TAU for s in rows)
        _put_text(sheet, f"{track}: {leaks}/{len(rows)}", 6, y + 12)
        for face_frame in sorted(rows, key=lambda s: -s.share):  # what leaks is drawn last, so that it shows
            x0 = left + face_frame.frame * width // (last + 1)
            x1 = max(x0 + 1, left + (face_frame.frame + 1) * width // (last + 1))
            colour = _OPEN if face_frame.share < 0.5 else _HALF if face_frame.share < TAU else _SEEN
            sheet[y + 3 : y + high - 2, x0:x1] = colour
    _write(path, sheet)


def _put_text(sheet: Array, text: str, x: int, y: int) -> None:
    cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, _TEXT, 1, cv2.LINE_AA)


def _write(path: Path, rgb: Array) -> None:
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes())
