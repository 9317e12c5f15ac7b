"""Rendered clips and their ground truth: boxes match the pixels, and no visible face lacks a box."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest

DATA = Path(os.environ.get("FACESTREAM_DATA", "../shared/data")) / "face-pack"
SIZE = (160, 120)
BOX = (110.0, 70.0, 150.0, 120.0)


@pytest.fixture(scope="module")
def tools() -> SimpleNamespace:
    """The modules that render, by name."""
    names = ("motion", "scene", "stills", "render_truth")
    return SimpleNamespace(**{name: importlib.import_module(f"facestream.benchmarks.{name}") for name in names})


@pytest.fixture(scope="module")
def small(tools: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The clip without data: its folder, its entry of the index, its truth as a table."""
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    folder = tmp_path_factory.mktemp("small")
    entry = tools.scene.write(tools.render_truth.small(), folder, 0)
    return SimpleNamespace(folder=folder, entry=entry, truth=np.loadtxt(folder / "small.truth.txt", delimiter=","))


def marked(tools: SimpleNamespace, round_face: bool = False, enlarged: int = 1, *, opaque: bool = True) -> Any:
    """A black sprite of 240 x 180 with a white face at BOX: a square, or the ellipse that fills it."""
    canvas = np.zeros((180 * enlarged, 240 * enlarged), np.float32)
    x0, y0, x1, y1 = (int(v) * enlarged for v in BOX)
    if round_face:
        y, x = np.mgrid[: 180 * enlarged, : 240 * enlarged] + 0.5
        inside = ((x - (x0 + x1) / 2) / (x1 - x0) * 2) ** 2 + ((y - (y0 + y1) / 2) / (y1 - y0) * 2) ** 2 <= 1
        canvas[inside] = 1
    else:
        canvas[y0:y1, x0:x1] = 1
    alpha = np.ones_like(canvas) if opaque else canvas
    return tools.scene.Sprite(np.dstack([canvas] * 3 + [alpha]), [BOX], (240, 180))


def white(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the white in a picture: its centre, weighted, and the box around what is at least half white."""
    grey = rgb.mean(2)
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]] + 0.5
    rows, columns = np.flatnonzero((grey > 0.5).any(1)), np.flatnonzero((grey > 0.5).any(0))
    centre = np.array([(x * grey).sum(), (y * grey).sum()]) / grey.sum()
    return centre, np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


MOVES = ["pan", "zoom", "shake", "turn", "shrunk", "defocus", "fine"]


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("exposure", [0.0, 0.03])
def test_the_marked_face_lies_under_its_box(tools: SimpleNamespace, move: str, exposure: float) -> None:
    scene, motion = tools.scene, tools.motion
    face = marked(tools, move in ("shake", "turn"), 2 if move == "fine" else 1)
    still = motion.view(face, SIZE, (0, 0.55, 0.55, 1.2), margin=20)
    poses: dict[str, Callable[[], Any]] = {
        "pan": lambda: motion.view(face, SIZE, (0, 0.4, 0.4, 1.3), (1, 0.8, 0.7, 1.3)),
        "zoom": lambda: motion.view(face, SIZE, (0, 0.6, 0.6, 1), (1, 0.5, 0.6, 2.1)),
        "shake": lambda: motion.shaken(still, SIZE, 12, 4, np.random.default_rng(3)),
        "turn": lambda: motion.seen_by(still, motion.placed((120, 90), (0, 120, 90, 1, 0), (1, 115, 92, 1.1, 9))),
        "shrunk": lambda: motion.view(face, (80, 60), (0, 0.6, 0.6, 1), (1, 0.5, 0.6, 1.1)),
    }
    pose = poses.get(move, lambda: still)()
    blur = (lambda t: np.array([1.5])) if move == "defocus" else (lambda t: np.zeros(1))
    backdrop = scene.Layer(
        scene.Sprite(np.dstack([np.zeros((400, 400, 3)), np.ones((400, 400))])), motion.placed((200, 200), (0, 0, 0, 4))
    )
    size = (80, 60) if move == "shrunk" else SIZE
    shot = scene.Shot(1, (backdrop, scene.Layer(face, pose, blur)))
    for t in (0.05, 0.31, 0.5, 0.77, 0.96):
        rgb, (box,) = scene.exposed(shot, t, exposure, size)
        assert (box > 0).all()
        assert (box < [*size, *size]).all(), "wholly in the picture"
        centre, bounds = white(rgb)
        assert centre == pytest.approx((box[:2] + box[2:]) / 2, abs=0.1)
        assert bounds == pytest.approx(box, abs=1)


def test_a_moving_face_is_smeared(tools: SimpleNamespace) -> None:
    """By an exposure only, and along the way it moves."""
    scene, motion = tools.scene, tools.motion
    face = marked(tools)
    shot = scene.Shot(1, (scene.Layer(face, motion.view(face, SIZE, (0, 0.2, 0.5, 1.3), (0.5, 0.9, 0.5, 1.3))),))
    sharp, _ = scene.exposed(shot, 0.25, 0, SIZE)
    smeared, _ = scene.exposed(shot, 0.25, 0.2, SIZE)
    grey = [((rgb > 0.1) & (rgb < 0.9)).any(2) for rgb in (sharp, smeared)]
    assert grey[0][60].sum() <= 4
    assert 18 <= grey[1][60].sum() <= 36
    assert grey[1].sum(0).max() > 40, "no column in the smear is left out"


@pytest.mark.parametrize(
    ("cover", "expected"),
    [
        (0.0, (110, 150)),
        (0.02, (110, 150)),
        (0.4, (126, 150)),
        (0.6, (134, 150)),
        (0.68, (137, 150)),
        (0.85, None),
        (1.1, None),
    ],
)
def test_a_hidden_face_has_the_box_of_what_is_seen(
    tools: SimpleNamespace, cover: float, expected: tuple[float, float] | None
) -> None:
    """Whole, then the visible part, nothing under a quarter."""
    scene, motion = tools.scene, tools.motion
    at_rest = motion.placed((0, 0), (0, 0, 0, 1))
    board = scene.Sprite(np.ones((180, 240, 4), np.float32))
    before = motion.placed((240, 0), (0, BOX[0] + cover * (BOX[2] - BOX[0]), 0, 1))
    _, (box,) = scene.exposed(
        scene.Shot(1, (scene.Layer(marked(tools), at_rest), scene.Layer(board, before))), 0, 0, (240, 180)
    )
    if expected is None:
        assert box is None
    else:
        assert box[[0, 2]] == pytest.approx(expected, abs=0.6)
        assert (box[[1, 3]] == BOX[1::2]).all() or cover > 0.5


@pytest.mark.parametrize(
    ("shift", "expected"), [(0, (110, 150)), (-120, (0, 30)), (-135, (0, 15)), (-142, None), (-160, None)]
)
def test_a_face_at_the_edge_is_cut_there(
    tools: SimpleNamespace, shift: float, expected: tuple[float, float] | None
) -> None:
    scene, motion = tools.scene, tools.motion
    backdrop = scene.Layer(scene.Sprite(np.ones((180, 240, 4), np.float32)), motion.placed((0, 0), (0, 0, 0, 1)))
    face = scene.Layer(marked(tools, opaque=False), motion.placed((0, 0), (0, shift, 0, 1)))
    _, (box,) = scene.exposed(scene.Shot(1, (backdrop, face)), 0, 0, (240, 180))
    assert box is None if expected is None else box[[0, 2]].tolist() == list(expected)


def test_a_layer_hides_those_behind_it_only(tools: SimpleNamespace) -> None:
    scene, motion = tools.scene, tools.motion
    at_rest = motion.placed((0, 0), (0, 0, 0, 1))
    behind, before = scene.Layer(marked(tools), at_rest), scene.Layer(marked(tools, opaque=False), at_rest)
    _, truth = scene.exposed(scene.Shot(1, (behind, before)), 0, 0, (240, 180))
    assert truth[0] is None
    assert truth[1].tolist() == list(BOX)


@pytest.mark.parametrize("margin", [0, 25])
def test_a_view_stays_inside_the_sprite(tools: SimpleNamespace, margin: int) -> None:
    """By the margin on all sides, and by no more at the ends of its range."""
    sprite = SimpleNamespace(size=(300, 260))
    pose = tools.motion.view(sprite, SIZE, (0, 0, 0, 1.5), (1, 1, 0.4, 1), (2, 0.5, 1, 3), margin=margin)
    ends = np.array([[-margin, SIZE[0] + margin] * 2, [-margin] * 2 + [SIZE[1] + margin] * 2, [1] * 4])
    for t in np.linspace(0, 2, 21):
        reached = tools.scene.inverse(pose(t)) @ ends
        assert (reached > -1e-6).all()
        assert (reached.max(1) < np.add(sprite.size, 1e-6)).all()
        if t == 0:
            assert reached.min(1) == pytest.approx([0, 0])


def test_a_gap_in_the_picture_is_an_error(tools: SimpleNamespace) -> None:
    scene, motion = tools.scene, tools.motion
    shot = scene.Shot(1, (scene.Layer(marked(tools), motion.placed((0, 0), (0, 3, 0, 1))),))
    with pytest.raises(ValueError, match="empty"):
        scene.exposed(shot, 0, 0, (240, 180))


def test_the_farthest_layer_reaches_the_edges_and_does_not_flicker(tools: SimpleNamespace) -> None:
    """Enlarged, it is as light at the picture's edge as in the middle; shrunk, its fine stripes become grey."""
    scene, motion = tools.scene, tools.motion
    light = scene.Sprite(np.ones((60, 80, 4), np.float32))
    rgb, _ = scene.exposed(scene.Shot(1, (scene.Layer(light, motion.view(light, SIZE, (0, 0, 1, 1))),)), 0, 0, SIZE)
    assert rgb.min() > 0.999
    stripes = np.ones((480, 640, 4), np.float32)
    stripes[:, ::2, :3] = 0
    enlarged = scene.Sprite(stripes)
    rgb, _ = scene.exposed(
        scene.Shot(1, (scene.Layer(enlarged, motion.view(enlarged, SIZE, (0, 0, 1, 1.3))),)), 0, 0, SIZE
    )
    assert rgb.std() < 0.1


def two_shots(tools: SimpleNamespace, times: tuple[float, ...] = ()) -> Any:
    """Twelve frames: a face that leaves the picture and comes back; then a cut to two others, with a flash."""
    scene, motion = tools.scene, tools.motion
    face, other = marked(tools), marked(tools, opaque=False)
    keys = (0, 0.5, 0.8, 2), (0.1, 0, 0.8, 2), (0.15, 0, 0.8, 2), (0.23, 0.5, 0.8, 2)
    shaky = motion.shaken(motion.view(face, SIZE, (0, 0.7, 0.6, 1), margin=12), SIZE, 8, 1, np.random.default_rng(1))
    shots = (
        scene.Shot(8, (scene.Layer(face, motion.view(face, SIZE, *keys)),)),
        scene.Shot(
            4,
            (scene.Layer(face, shaky), scene.Layer(other, motion.placed((130, 95), (0, 40, 50, 0.6)))),
            scene.Tone(0.8, 0.02, {2: 0.7}),
        ),
    )
    return scene.Clip("two", "a test", SIZE, 30, shots, times=times)


def test_ids_last_as_long_as_their_shot(tools: SimpleNamespace) -> None:
    clip = two_shots(tools)
    assert (clip.frames, clip.cuts) == (12, [9])
    rows = [line for _, lines in tools.scene.frames(clip, np.random.default_rng(0)) for line in lines]
    table = np.array([line.split(",") for line in rows], float)
    assert (table[:, 6:] == [1, -1, -1, -1]).all()
    first = table[table[:, 0] < 9]
    assert set(first[:, 1]) == {1}
    assert {1, 8} < set(first[:, 0])
    assert not {4, 5} & set(first[:, 0]), "it leaves and comes back under the same id"
    for frame in (9, 10, 11, 12):
        assert sorted(table[table[:, 0] == frame, 1]) == [2, 3], "complete from the cut's first frame on"
    assert (table[:, 2:4] >= 0).all()
    assert (table[:, 2:4] + table[:, 4:6] <= SIZE).all()


def test_a_flash_lasts_one_frame_and_keeps_the_truth(tools: SimpleNamespace) -> None:
    made = list(tools.scene.frames(two_shots(tools), np.random.default_rng(0)))
    light = [rgb.mean() for rgb, _ in made[8:]]
    assert light[2] > light[1] + 90 < light[2] + light[1] - light[3] + 5
    assert [len(lines) for _, lines in made[8:]] == [2, 2, 2, 2]


def test_the_same_seed_gives_the_same_bytes(tools: SimpleNamespace, tmp_path: Path) -> None:
    made = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        (tmp_path / name).mkdir()
        tools.scene.write(two_shots(tools), tmp_path / name, seed)
        made.append([(tmp_path / name / file).read_bytes() for file in ("two.mp4", "two.truth.txt")])
    assert made[0] == made[1]
    assert made[0][0] != made[2][0], "the seed makes the noise"


def test_a_run_cut_short_leaves_no_clip(tools: SimpleNamespace, tmp_path: Path) -> None:
    clip, face = two_shots(tools), marked(tools)
    gap = tools.scene.Shot(2, (tools.scene.Layer(face, tools.motion.placed((0, 0), (0, 3, 0, 1))),))
    with pytest.raises(ValueError, match="empty"):
        tools.scene.write(tools.scene.Clip("two", "", SIZE, 30, (*clip.shots * 6, gap)), tmp_path, 0)
    assert not list(tmp_path.glob("*.mp4"))


def test_uneven_times_are_in_the_file_and_in_the_motion(tools: SimpleNamespace, tmp_path: Path) -> None:
    times = tuple(np.cumsum([0, 0.03, 0.07, 0.03, 0.09, 0.03, 0.03, 0.06, 0.03, 0.05, 0.03, 0.08]).round(3).tolist())
    clip = two_shots(tools, times)
    tools.scene.write(clip, tmp_path, 0)
    with av.open(str(tmp_path / "two.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", *SIZE)
        found = [frame.time for frame in container.decode(stream)]
    assert found == pytest.approx(times, abs=0.0006)
    shot = clip.shots[0]
    expected, _ = tools.scene.exposed(shot, times[6], clip.shutter / 30, SIZE)
    (rgb, _) = list(tools.scene.frames(clip, np.random.default_rng(0)))[6]
    assert np.abs(rgb - expected * 255).max() < 1


def make_stills(tools: SimpleNamespace, root: Path) -> Any:
    """One white still of 200 x 160, a red face at 60, 40 to 100, 90 on a blue body, and a green mark to ignore."""
    (root / "WIDER_val" / "images" / "x").mkdir(parents=True)
    (root / "wider_face_split").mkdir()
    rgb = np.full((160, 200, 3), 255, np.uint8)
    rgb[85:, 45:115] = (20, 20, 200)
    rgb[35:92, 58:102] = (90, 40, 20)
    rgb[40:90, 60:100] = (200, 30, 30)
    rgb[100:130, 150:180] = (0, 160, 0)
    cv2.imwrite(str(root / "WIDER_val" / "images" / "x" / "a.jpg"), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    lines = "x/none.jpg\n0\n0 0 0 0 0 0 0 0 0 0\nx/a.jpg\n2\n60 40 40 50 0 0 0 0 0 0\n150 100 30 30 0 0 0 1 0 0\n"
    (root / "wider_face_split" / "wider_face_val_bbx_gt.txt").write_text(lines)
    return tools.stills.Stills(root)


def test_a_still_shows_its_faces_and_nothing_to_ignore(tools: SimpleNamespace, tmp_path: Path) -> None:
    stills = make_stills(tools, tmp_path)
    still = stills.still("x/a")
    assert (still.size, still.faces.tolist()) == ((200, 160), [[60, 40, 100, 90]])
    pixels = cv2.resize(still.pixels(1.0), (200, 160), interpolation=cv2.INTER_AREA)
    assert pixels[65, 80, :3] == pytest.approx(np.array([200, 30, 30]) / 255, abs=0.03)
    assert (pixels[95:135, 145:185, :3] > 0.8).all(), "the mark is painted over"
    assert stills.still("x/a", (50, 30, 140, 100)).faces.tolist() == [[10, 10, 50, 60]]
    with pytest.raises(ValueError, match="cuts through"):
        stills.still("x/a", (80, 0, 200, 160))
    stills.labels["x/a"][1, :4] = (90, 80, 30, 30)
    with pytest.raises(ValueError, match="ignore lies on a face"):
        stills.still("x/a")


def test_a_label_can_be_cut_to_what_is_seen(
    tools: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tools.stills.SEEN, "x/a", {(60, 40, 40, 50): (60, 40, 40, 30)})
    assert make_stills(tools, tmp_path).still("x/a").faces.tolist() == [[60, 40, 100, 70]]


def test_a_cut_out_person_keeps_face_and_body_alone(tools: SimpleNamespace, tmp_path: Path) -> None:
    person = make_stills(tools, tmp_path).cutout("x/a")
    rgba = cv2.resize(person.pixels(1.0), (200, 160), interpolation=cv2.INTER_AREA)
    assert rgba[50:80, 65:95, 3].min() > 0.99
    assert rgba[140, 80, 3] > 0.9
    assert rgba[:30, :, 3].max() < 0.05
    assert rgba[95:135, 145:185, 3].max() < 0.05
    assert (rgba[..., :3] <= rgba[..., 3:] + 1e-6).all(), "premultiplied"


def test_pictures_on_a_wall_keep_their_faces(tools: SimpleNamespace) -> None:
    hung = tools.stills.hang([marked(tools, enlarged=2) for _ in range(5)], 3, 40, np.random.default_rng(0))
    assert len(hung.faces) == 5
    shown = hung.pixels(1.5)[..., :3].min(2)
    for x0, y0, x1, y1 in hung.faces * 1.5:
        outside = shown[round(y0) - 12 : round(y1) + 12, round(x0) - 12 : round(x1) + 12]
        assert (shown[round(y0) + 1 : round(y1) - 1, round(x0) + 1 : round(x1) - 1] > 0.99).all()
        assert (outside > 0.5).sum() == pytest.approx((x1 - x0) * (y1 - y0), rel=0.05)


def test_the_command_writes_clips_truth_and_index(
    tools: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tools.render_truth

    def two(stills: object, rng: np.random.Generator) -> Any:
        return two_shots(tools)

    monkeypatch.setattr(script, "CLIPS", (two,))
    monkeypatch.setattr(script, "Stills", lambda root: None)
    out = tmp_path / "out"
    out.mkdir()
    (out / "clips.json").write_text('[{"name": "kept"}]')
    monkeypatch.setattr("sys.argv", ["render_truth", "--data", "x", "-o", str(out), "--only", "two"])
    script.main()
    entry = json.loads((out / "clips.json").read_text())
    known = {"name": "two", "shows": "a test", "frames": 12, "fps": 30, "size": [160, 120], "tracks": 3, "cuts": [9]}
    assert entry == [{"name": "kept"}, known | {"seed": 0, "set": "tune"}]
    assert {path.name for path in out.iterdir()} == {"clips.json", "two.mp4", "two.truth.txt"}
    monkeypatch.setattr("sys.argv", ["render_truth", "-o", str(out)])
    with pytest.raises(SystemExit, match="2"):
        script.main()


def test_the_small_clip_has_a_late_birth_a_gap_and_a_cut(small: SimpleNamespace) -> None:
    assert (small.entry["frames"], small.entry["size"], small.entry["cuts"]) == (90, (640, 360), [61])
    with av.open(str(small.folder / "small.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 90
    rows = {int(t): small.truth[small.truth[:, 1] == t] for t in np.unique(small.truth[:, 1])}
    assert sorted(rows) == [1, 2, 3, 4, 5]
    assert all((rows[t][:, 0] < 61).all() for t in (1, 2))
    assert all((rows[t][:, 0] == np.arange(61, 91)).all() for t in (3, 4, 5))
    born, left = rows[1][0, 0], rows[1][0, 2]
    assert 10 < born < 40
    assert (rows[1][:, 0] == np.arange(born, 61)).all()
    assert 60 < left < 580, "not at the picture's edge"
    assert set(range(1, 61)) - set(rows[2][:, 0]) == set(range(32, 39)), "seven frames behind the pillar"


def test_the_small_clip_is_sharp_only_after_its_birth(small: SimpleNamespace) -> None:
    """A detector finds the newcomer some ten frames late."""
    rows = small.truth[small.truth[:, 1] == 1]
    detail = {}
    with av.open(str(small.folder / "small.mp4")) as container:
        for number, frame in enumerate(container.decode(video=0), 1):
            for _, _, x, y, w, h in rows[rows[:, 0] == number, :6]:
                grey = frame.to_ndarray(format="gray")[int(y) : int(y + h), int(x) : int(x + w)]
                detail[number] = cv2.Laplacian(grey, cv2.CV_64F).std()
    assert detail[34] < detail[50] / 4


def test_the_small_clip_is_the_same_each_time(tools: SimpleNamespace, small: SimpleNamespace) -> None:
    shot = tools.render_truth.small().shots[0]
    _, truth = tools.scene.exposed(shot, 44 / 30, 0.5 / 30, (640, 360))
    again = [[*box[:2], *(box[2:] - box[:2])] for box in truth]
    assert small.truth[small.truth[:, 0] == 45, 2:6] == pytest.approx(np.array(again), abs=0.006)


@pytest.fixture(scope="module")
def stills(tools: SimpleNamespace) -> Any:
    if not DATA.is_dir():
        pytest.skip(f"no stills at {DATA}")
    return tools.stills.Stills(DATA)


@pytest.mark.data
def test_the_set_is_large_and_varied(tools: SimpleNamespace, stills: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stills, "cutout", stills.still)  # as many faces, sooner
    pytest.importorskip("skimage", reason="the hall's module takes its portrait from scikit-image")
    clips = [make(stills, np.random.default_rng(0)) for make in tools.render_truth.CLIPS]
    assert [clip.name for clip in clips] == [make.__name__ for make in tools.render_truth.CLIPS]
    assert len(clips) >= 12
    assert 2000 <= sum(clip.frames for clip in clips) <= 2600
    faces = sum(len(layer.sprite.faces) for clip in clips for shot in clip.shots for layer in shot.layers)
    assert faces >= 100
    assert {clip.fps for clip in clips} == {10, 15, 25, 30, 50, 60}
    assert {clip.size for clip in clips} == {(640, 360), (1280, 720), (720, 1280), (360, 640)}
    assert any(clip.times for clip in clips)


@pytest.mark.data
def test_every_still_fills_the_frame_and_every_face_is_true(tools: SimpleNamespace, stills: Any) -> None:
    """On the clip of cuts, at each shot's ends: a face in the middle of the picture has its box, with its pixels."""
    clip = tools.render_truth.cuts(stills, np.random.default_rng(0))
    assert len(clip.cuts) == 7
    for shot in clip.shots:
        for t in (0.0, (shot.frames - 1) / clip.fps):
            rgb, truth = tools.scene.exposed(shot, t, 0.0, clip.size)
            layer = shot.layers[0]
            for face, box in zip(layer.sprite.faces, truth, strict=True):
                whole = tools.scene.extent(layer.pose(t), face)
                if (whole < 0).any() or (whole > [*clip.size, *clip.size]).any():
                    continue
                assert box == pytest.approx(whole)
                x0, y0, x1, y1 = np.int32(face * tools.stills.FINER)
                source = cv2.resize(layer.sprite.reduced[0][y0:y1, x0:x1, :3], (24, 32), interpolation=cv2.INTER_AREA)
                x0, y0, x1, y1 = np.int32(box.round())
                shown = cv2.resize(rgb[y0:y1, x0:x1], (24, 32), interpolation=cv2.INTER_AREA)
                assert np.corrcoef(source.ravel(), shown.ravel())[0, 1] > 0.97


def test_fresh_seeds_move_otherwise_and_tuned_ones_stay_as_they_were(tools: SimpleNamespace) -> None:
    made = tools.render_truth
    clip = two_shots(tools)
    assert made.varied(clip, made.TUNE_SEEDS[0]) is clip
    assert not set(made.TUNE_SEEDS) & set(made.REPORT_SEEDS)
    assert [made.set_of(seed) for seed in (made.TUNE_SEEDS[0], made.REPORT_SEEDS[0], 77)] == ["tune", "report", "other"]
    poses = []
    for seed in made.REPORT_SEEDS:
        other = made.varied(clip, seed)
        assert other.frames == clip.frames
        poses.append(other.shots[0].layers[0].pose(0.1))
        assert np.allclose(poses[-1], made.varied(clip, seed).shots[0].layers[0].pose(0.1))
    assert not np.allclose(poses[0], clip.shots[0].layers[0].pose(0.1))
    assert not np.allclose(poses[0], poses[1])
