"""Which tracks are grouped as one person: by hair and clothes, or, only when asked for, by a face matcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from facestream.engines.boxes import Array
from facestream.pipeline.config import Config
from facestream.pipeline.evaluate import embedder
from facestream.pipeline.review.command import prepare, scout_of
from facestream.pipeline.review.draft import draft_path

from tests.conftest import facestream, render
from tests.video.test_display import write

MISSING = [name for name in ("dlib", "face_recognition_models", "onnx") if find_spec(name) is None]
needs_matcher = pytest.mark.skipif(bool(MISSING), reason=f"the extra `embedding` is not installed: {MISSING}")
PACK = Path(os.environ.get("FACESTREAM_DATA", "../shared/data")) / "face-pack"
SHOTS = ("3", "3", "15", "8")  # people of benchmarks/identities.txt: two photographs of one, and two others
LONG = 8  # frames of each


def photographs() -> list[tuple[Array, Array]]:
    """RGB 360 x 480 with one face each, and its box; the second one in other colours."""
    lines = (Path(__file__).parents[2] / "benchmarks" / "identities.txt").read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    out = []
    for person in SHOTS:
        at = next(n for n, row in enumerate(rows) if row[0] == person)
        _, name, *box = rows.pop(at)
        if not (PACK / name).exists():
            pytest.skip(f"{PACK / name} is not there: set FACESTREAM_DATA")
        x, y, w, h = (int(v) for v in box)
        picture = cv2.cvtColor(cv2.imread(str(PACK / name)), cv2.COLOR_BGR2RGB)
        zoom = 140 / max(w, h)
        move = np.array([[zoom, 0, 240 - zoom * (x + w / 2)], [0, zoom, 150 - zoom * (y + h / 2)]])
        shown = cv2.warpAffine(picture, move, (480, 360), borderMode=cv2.BORDER_REPLICATE)
        half = np.array([w, h]) * zoom / 2
        middle = np.array([240, 150])
        out.append((shown, np.concatenate([middle - half, middle + half])))
    shown, box = out[1]
    tinted = shown.astype(np.float32) * (0.75, 1.0, 0.85)
    tinted[round(box[3]) + 20 :] = (30, 160, 60)  # other clothes
    out[1] = tinted.astype(np.uint8), box
    return out


def shots(folder: Path) -> tuple[Path, Path]:
    """A video of one photograph after the other, a track each, and its records."""
    found = photographs()
    video = write(folder / "shots.mp4", [picture for picture, _ in found for _ in range(LONG)])
    rows = [
        f"{LONG * n + k + 1},{n + 1},{x0:.1f},{y0:.1f},{x1 - x0:.1f},{y1 - y0:.1f},0.9,-1,-1,-1\n"
        for n, (_, (x0, y0, x1, y1)) in enumerate(found)
        for k in range(LONG)
    ]
    records = folder / "faces.mot"
    records.write_text("".join(rows))
    return video, records


@pytest.mark.data
@needs_matcher
def test_a_matcher_knows_a_person_in_other_clothes_and_its_numbers_are_kept_nowhere(tmp_path: Path) -> None:
    video, records = shots(tmp_path)
    session, _ = prepare(video, records, Config(), False, False)
    session.take_notes(scout_of(session))
    session.save()
    assert session.groups[1] != session.groups[2], "other clothes are to look like another person"
    by_clothes = session.groups
    session.close()
    # The draft's groups are of the other kind: the pass over the video is made again.
    session, scout = prepare(video, records, Config(), False, False, "embedding")
    assert scout is None
    assert session.groups == by_clothes
    session.take_notes(scout_of(session))
    session.save()
    assert session.groups[1] == session.groups[2]
    assert len({session.groups[t] for t in (1, 3, 4)}) == 3
    session.close()
    draft = json.loads(draft_path(records).read_text())
    assert draft["grouped_by"] == "embedding"
    assert draft["groups"] == {str(t): n for t, n in session.groups.items()}
    assert set(draft) == {"records_sha256", "format", "video", "edits", "groups", "grouped_by", "notes"}
    assert set(draft["notes"]) == {"cuts", "blind", "looks", "model"}
    session, scout = prepare(video, records, Config(), False, False, "embedding")
    assert scout is not None  # nothing is left to do
    session.close()


def test_without_being_asked_no_matcher_is_loaded(tmp_path: Path) -> None:
    video = render(tmp_path / "clip.mp4", frames=6)
    records = tmp_path / "faces.mot"
    records.write_text("".join(f"{n + 1},1,60,20,60,70,0.9,-1,-1,-1\n" for n in range(6)))
    code = (
        "import sys; from pathlib import Path; from facestream.pipeline.config import Config\n"
        "from facestream.pipeline.review.command import prepare, scout_of\n"
        "session, _ = prepare(Path(sys.argv[1]), Path(sys.argv[2]), Config(), False, False)\n"
        "session.take_notes(scout_of(session))\n"
        "assert session.groups, 'nobody was grouped'\n"
        "print([m for m in sys.modules if 'dlib' in m or 'embed' in m])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, video, records], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_a_missing_matcher_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from facestream.pipeline.cli.app import main

    monkeypatch.setattr(embedder, "find_spec", lambda name: None)
    video = render(tmp_path / "clip.mp4", frames=3)
    assert main(["review", str(video), "--group-by", "embedding", "--no-browser", "--quiet"]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4"]
    refused = facestream("review", video, "--group-by", "faces")
    assert refused.returncode == 2
