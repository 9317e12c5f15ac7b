"""Render clips with exact ground truth for every face, from labelled stills.

    python benchmarks/render_truth.py --data FACES -o FOLDER [--seed 0] [--only NAME]
    python benchmarks/render_truth.py --small -o FOLDER

FACES is a folder in WIDER FACE's layout with the stills named below. Writes NAME.mp4, NAME.truth.txt (MOT: frame and
id from 1; `scene` defines what counts as visible) and the index `clips.json` to FOLDER. The clips show the stills'
people and, like the stills, cannot be redistributed. `--small` needs no stills: one clip from the demo clip's
public-domain portrait. The same seed gives the same clips.

Constants are tuned on the clips of TUNE_SEEDS; figures are reported on those of REPORT_SEEDS, which nobody tunes on.
Under another seed than the tuned ones, shots also run at another speed and begin at another moment, so that faces
enter, cross and leave at other frames.

The stills were checked one by one: every face in them is labelled, or labelled "ignore" and painted over.
"""

import argparse
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from facestream.benchmarks.motion import Pose, path, placed, seen_by, shaken, similarity, view
from facestream.benchmarks.scene import Clip, Layer, Shot, Sprite, Tone, write
from facestream.benchmarks.stills import Stills, hang, passer_by, pillar

Rng = np.random.Generator
SMALL = (640, 360)
LARGE = (1280, 720)


TUNE_SEEDS = (0,)
REPORT_SEEDS = (101, 202, 303)


def set_of(seed: int) -> str:
    """What the clips of a seed are for: `tune`, `report`, or `other`."""
    return "tune" if seed in TUNE_SEEDS else "report" if seed in REPORT_SEEDS else "other"


def varied(clip: Clip, seed: int) -> Clip:
    """The clip as this seed has it: itself for those that constants are tuned on, else with each shot at another speed
    and from another moment on."""
    if seed in TUNE_SEEDS:
        return clip
    rng = np.random.default_rng((seed, zlib.crc32(clip.name.encode()), 1))
    shots = []
    for shot in clip.shots:
        speed = rng.uniform(0.8, 1.25)
        start = rng.uniform(0.0, 0.4)

        def moved(at: Callable[[float], np.ndarray], speed: float = speed, start: float = start) -> Pose:
            return lambda t: at(start + speed * t)

        layers = [replace(layer, pose=moved(layer.pose), defocus=moved(layer.defocus)) for layer in shot.layers]
        shots.append(replace(shot, layers=tuple(layers)))
    return replace(clip, shots=tuple(shots))


def group(number: int) -> str:
    return f"facecount/{number}"


def street(number: int) -> str:
    return f"edenmask/{number:08d}"


def walk(person: Sprite, face: int, *keys: tuple[float, ...]) -> Pose:
    """Pose of a walking person. keys: (seconds, x, y, scale), the position of that face's centre in the world. The
    steps rock the body slightly."""
    way = path(*keys)
    box = person.faces[face]

    def pose(t: float) -> np.ndarray:
        x, y, scale = way(t)
        bob = 0.03 * (box[3] - box[1]) * scale * np.sin(2 * np.pi * 1.9 * t)
        return similarity((box[:2] + box[2:]) / 2, (x, y + bob), scale, 1.2 * np.sin(2 * np.pi * 0.95 * t))

    return pose


def hall() -> Sprite:
    """The demo clip's hall, empty."""
    from facestream.benchmarks.make_demo_clip import background

    return Sprite(np.dstack([background(), np.ones(background().shape[:2], np.float32)]))


def pan(stills: Stills, rng: Rng) -> Clip:
    people = stills.still(group(12894))
    pose = view(people, SMALL, (0, 0, 0.2, 1.45), (2.2, 1, 0.3, 1.45), (3, 1, 0.9, 1.45), (5.2, 0, 1, 1.45))
    return Clip("pan", "pan over a group picture", SMALL, 25, (Shot(130, (Layer(people, pose),)),))


def gallery(stills: Stills, rng: Rng) -> Clip:
    chosen = (10439, 13001, 11035, 14151, 17283, 11309, 12029, 13510, 15693, 13576)
    hung = hang([stills.still(group(n)) for n in chosen], 5, 70, rng)
    keys = (0, 0.1, 0.12, 2.3), (1.6, 0.28, 0.16, 2.3), (3.7, 0.45, 0.5, 1.2), (5.3, 0.5, 0.6, 1.6)
    shows = "a wall of pictures: pan, out, and in again"
    return Clip("gallery", shows, LARGE, 30, (Shot(160, (Layer(hung, view(hung, LARGE, *keys)),)),))


def zoom(stills: Stills, rng: Rng) -> Clip:
    chosen = (11372, 18092, 11009, 14350, 11663, 16886, 14527, 17336)
    hung = hang([stills.still(group(n)) for n in chosen], 4, 60, rng)
    keys = (0, 0.56, 0.4, 1.9), (2.3, 0.62, 0.28, 4.2), (4.6, 0.55, 0.42, 1.9)
    shows = "zoom in on one of the pictures on a wall and out again"
    return Clip("zoom", shows, SMALL, 30, (Shot(140, (Layer(hung, view(hung, SMALL, *keys)),)),))


def shake(stills: Stills, rng: Rng) -> Clip:
    people = stills.still(group(11035))
    pose = view(people, SMALL, (0, 0.2, 0.3, 1.05), (4, 0.9, 0.4, 1.15), margin=44)
    shots = (Shot(130, (Layer(people, shaken(pose, SMALL, 30, 2.5, rng)),)),)
    return Clip("shake", "a hand-held camera that shakes and turns", SMALL, 30, shots)


def occlusion(stills: Stills, rng: Rng) -> Clip:
    people = stills.still(street(40))
    thin = pillar(150, 760, (0.45, 0.42, 0.4))
    thick = pillar(260, 760, (0.2, 0.24, 0.3))
    back = passer_by(1000)
    layers = (
        Layer(people, view(people, LARGE, (0, 0.5, 0.2, 1.02), (5, 0.5, 0.3, 1.06))),
        Layer(thin, placed((75, 20), (0, -150, 0, 1), (2.6, 1450, 0, 1))),
        Layer(thick, placed((130, 20), (0.8, 1500, 0, 1), (3.0, -250, 0, 1))),
        Layer(back, placed((450, 200), (2.4, -460, 260, 1), (5, 1700, 280, 1))),
    )
    return Clip("occlusion", "two pillars and somebody's back pass before faces", LARGE, 30, (Shot(150, layers),))


def crossing(stills: Stills, rng: Rng) -> Clip:
    place = hall()
    waits = stills.cutout(group(14728), (220, 40, 420, 320))
    left = stills.cutout(street(602))
    right = stills.cutout(street(303))
    camera = view(place, LARGE, (0, 0.2, 0.5, 1), (5.6, 0.8, 0.5, 1))
    layers = (
        Layer(place, camera),
        Layer(waits, seen_by(camera, walk(waits, 0, (0, 690, 520, 1.5), (5.6, 660, 520, 1.5)))),
        Layer(right, seen_by(camera, walk(right, 0, (0.2, 1600, 540, 0.9), (4.6, -200, 560, 1.0)))),
        Layer(left, seen_by(camera, walk(left, 0, (0.3, -250, 480, 0.85), (5.2, 1500, 470, 0.95)))),
    )
    return Clip("crossing", "two people cross before a third", LARGE, 25, (Shot(140, layers),))


def groups(stills: Stills, rng: Rng) -> Clip:
    place = stills.still(group(12231))
    family = stills.cutout(group(12254), (0, 0, 480, 420))
    office = stills.cutout(group(10294), (0, 0, 480, 260))
    camera = view(place, SMALL, (0, 0, 0.3, 1.1), (2.8, 1, 0.3, 1.1))
    layers = (
        Layer(place, camera),
        Layer(office, seen_by(camera, walk(office, 2, (0, -320, 150, 0.9), (2.8, 560, 150, 0.95)))),
        Layer(family, seen_by(camera, walk(family, 2, (0, 700, 165, 0.9), (2.8, -150, 155, 1.0)))),
    )
    return Clip("groups", "two groups cross before a third", SMALL, 50, (Shot(140, layers),))


def runners(stills: Stills, rng: Rng) -> Clip:
    place = stills.still(street(219))
    pair = stills.cutout(group(16644))
    bathers = stills.cutout(group(13900))
    man = stills.cutout(street(602))
    camera = view(place, LARGE, (0, 0.2, 0.1, 1.05), (2.5, 0.8, 0.3, 1.05))
    layers = (
        Layer(place, camera),
        Layer(
            pair,
            walk(pair, 0, (0, -350, 530, 1.7), (1.3, 1600, 520, 1.7), (1.4, 1600, 520, 1.7), (2.7, -350, 530, 1.7)),
        ),
        Layer(bathers, walk(bathers, 1, (0.2, 1700, 500, 1.6), (1.6, -300, 480, 1.6))),
        Layer(man, walk(man, 0, (1.2, -500, 470, 0.85), (2.4, 1700, 450, 0.85))),
    )
    shows = "people run past before others who stand; two come back"
    return Clip("runners", shows, LARGE, 60, (Shot(150, layers),), shutter=0.6)


def reenter(stills: Stills, rng: Rng) -> Clip:
    people = stills.still(group(13510))
    pair = stills.cutout(group(11553))
    camera = view(
        people,
        SMALL,
        (0, 0, 0.2, 1.5),
        (1.6, 1, 0.2, 1.5),
        (2.2, 1, 0.2, 1.5),
        (3.8, 0, 0.3, 1.5),
        (5.8, 0.7, 0.3, 1.5),
    )
    way = ((0, 130, 135, 0.6), (1.6, 440, 135, 0.6), (2.6, 640, 140, 0.6), (3.2, 640, 140, 0.6), (5.6, 260, 140, 0.65))
    layers = Layer(people, camera), Layer(pair, seen_by(camera, walk(pair, 0, *way)))
    return Clip("reenter", "faces leave the picture and come back", SMALL, 25, (Shot(150, layers),))


def cuts(stills: Stills, rng: Rng) -> Clip:
    shots = []
    for number in (13001, 12199, 16057, 11678, 17534, 13557, 12147, 18011):
        people = stills.still(group(number))
        start, end = rng.uniform((0, 0, 1.0), (1, 1, 1.4), (2, 3))
        shots.append(Shot(int(rng.integers(16, 30)), (Layer(people, view(people, SMALL, (0, *start), (1, *end))),)))
    return Clip("cuts", "hard cuts between eight scenes", SMALL, 30, tuple(shots))


def flashes(stills: Stills, rng: Rng) -> Clip:
    people = stills.still(group(11663))
    pose = shaken(view(people, SMALL, (0, 0.2, 0.2, 1.1), (4.4, 0.8, 0.1, 1.3), margin=8), SMALL, 5, 0.3, rng)
    strength = {int(n): float(rng.uniform(0.45, 0.8)) for n in rng.choice(np.arange(6, 104, 2), 9, replace=False)}
    shots = (Shot(110, (Layer(people, pose),), Tone(gain=0.8, flashes=strength)),)
    return Clip("flashes", "nine photographers' flashes of one frame each, no cut", SMALL, 25, shots)


def sweep(stills: Stills, rng: Rng) -> Clip:
    chosen = (13237, 11494, 15429, 12029, 14215, 11818)
    hung = hang([stills.still(group(n)) for n in chosen], 6, 90, rng)
    keys = (0.1, 0.1, 0.5, 1.2), (1.5, 0.36, 0.55, 1.3), (1.7, 0.36, 0.55, 1.3), (2.9, 0.15, 0.5, 1.2)
    shots = (Shot(150, (Layer(hung, view(hung, LARGE, *keys)),)),)
    return Clip("sweep", "fast sweeps with strong motion blur", LARGE, 50, shots, shutter=0.9)


def dark(stills: Stills, rng: Rng) -> Clip:
    people = stills.still(group(12147))
    pose = shaken(view(people, SMALL, (0, 0.2, 0.1, 1.2), (6, 1, 0.3, 1.3), margin=8), SMALL, 6, 0.5, rng)
    shots = (Shot(90, (Layer(people, pose),), Tone(gain=0.33, noise=0.035)),)
    return Clip("dark", "low light with noise", SMALL, 15, shots, shutter=0.9)


def queue(stills: Stills, rng: Rng) -> Clip:
    people = stills.still(street(663))
    back = passer_by(900)
    camera = view(people, LARGE, (0, 0.1, 0.1, 1.1), (10, 0.9, 0.1, 1.15))
    layers = Layer(people, camera), Layer(back, placed((400, 180), (2, -420, 300, 1), (8, 1700, 280, 1)))
    return Clip(
        "queue", "a queue in a hall at 10 frames a second, somebody's back passes", LARGE, 10, (Shot(100, layers),)
    )


def phone(stills: Stills, rng: Rng) -> Clip:
    people = stills.still(street(442), (0, 0, 503, 755))
    size = (720, 1280)
    pose = view(people, size, (0, 0.5, 0, 1.0), (4, 0.6, 0.3, 1.1), margin=20)
    steps = rng.choice((1 / 30, 1 / 30, 1 / 24, 1 / 15), 109) * rng.uniform(0.95, 1.05, 109)
    times = tuple(float(v) for v in np.cumsum([0, *steps]).round(3))
    shots = (Shot(110, (Layer(people, shaken(pose, size, 14, 0.8, rng)),)),)
    return Clip("phone", "an upright phone in the hand, uneven frame times", size, 30, shots, times=times)


def upright(stills: Stills, rng: Rng) -> Clip:
    shots = []
    size = (360, 640)
    for number in (10084, 13826, 12165):
        people = stills.still(group(number))
        keys = (0, *rng.uniform((0, 0, 1), (1, 1, 1.3))), (1.6, *rng.uniform((0, 0, 1), (1, 1, 1.3)))
        shots.append(Shot(40, (Layer(people, shaken(view(people, size, *keys, margin=6), size, 4, 0.3, rng)),)))
    return Clip("upright", "three upright scenes", size, 25, tuple(shots))


def squeezed(stills: Stills, rng: Rng) -> Clip:
    shots = []
    for number in (17283, 13576):
        people = stills.still(group(number))
        pose = view(people, SMALL, (0, 0.1, 0.3, 1.05), (4, 0.9, 0.3, 1.35))
        shots.append(Shot(60, (Layer(people, pose),)))
    return Clip("squeezed", "strong compression", SMALL, 15, tuple(shots), crf=40)


def close(stills: Stills, rng: Rng) -> Clip:
    people = stills.still(street(229))
    pose = view(people, LARGE, (0, 0, 0.3, 1), (1.8, 0.25, 0.2, 1.25), (3.6, 1, 0.25, 1.25))
    return Clip("close", "slowly in on a few large faces", LARGE, 30, (Shot(110, (Layer(people, pose),)),))


def focus(stills: Stills, rng: Rng) -> Clip:
    people = stills.still(group(11818))
    pair = stills.cutout(group(17939))
    camera = view(people, SMALL, (0, 0.3, 0.4, 1.05), (4, 0.6, 0.5, 1.1))
    defocus = path((0.8, 0), (1.4, 4.5), (2.4, 4.5), (3.0, 0))
    near = path((0.8, 5), (1.4, 0), (2.4, 0), (3.0, 5))
    layers = (
        Layer(people, camera, defocus),
        Layer(pair, placed(pair.faces[0, :2], (0, 60, 150, 1.1), (4, 20, 140, 1.15)), near),
    )
    return Clip(
        "focus", "the focus moves from the far faces to the near ones and back", SMALL, 30, (Shot(110, layers),)
    )


CLIPS: tuple[Callable[[Stills, Rng], Clip], ...] = (
    pan, gallery, zoom, shake, occlusion, crossing, groups, runners, reenter, cuts,
    flashes, sweep, dark, queue, phone, upright, squeezed, close, focus,
)  # fmt: skip


def small() -> Clip:
    """One clip of two shots from the demo clip's material: a blurred face that appears from behind a pillar, an
    occlusion of 6 to 10 frames, a cut, a small face that is always blurred."""
    from facestream.benchmarks.make_demo_clip import WALKERS, face, sprite

    place = hall()
    people = [Sprite(sprite(walker), [face(walker)]) for walker in WALKERS[:3]]
    camera = view(place, SMALL, (0, 0.3, 0.3, 1.1), (2, 0.5, 0.3, 1.1))
    behind = pillar(80, 400, (0.5, 0.5, 0.48))
    before = pillar(100, 400, (0.3, 0.28, 0.3))
    sharpens = path((0.9, 5.0), (1.7, 0.0))
    first = (
        Layer(place, camera),
        Layer(people[0], walk(people[0], 0, (0.3, 420, 140, 0.4), (2, 540, 140, 0.42)), sharpens),
        Layer(behind, placed((48, 20), (0, 420, 0, 1))),
        Layer(people[1], walk(people[1], 0, (0, 170, 150, 0.5), (2, 215, 150, 0.52))),
        Layer(before, placed((58, 20), (0.4, -60, 0, 1), (2, 500, 0, 1))),
    )
    closer = view(place, SMALL, (0, 0.9, 0.5, 1.5), (1, 0.8, 0.5, 1.5))
    second = (
        Layer(place, closer),
        Layer(people[1], walk(people[1], 0, (0, 320, 120, 0.2), (1, 345, 122, 0.2)), path((0.0, 3.5), (1.0, 3.5))),
        Layer(people[2], walk(people[2], 0, (0, 180, 150, 0.8), (1, 220, 150, 0.85))),
        Layer(people[0], walk(people[0], 0, (0, 470, 140, 0.6), (1, 440, 140, 0.6))),
    )
    return Clip(
        "small",
        "a face that appears late, an occlusion, a cut, a small blurred face",
        SMALL,
        30,
        (Shot(60, first), Shot(30, second)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Render clips and the truth about their faces.")
    parser.add_argument("--data", type=Path, help="a folder in WIDER FACE's layout")
    parser.add_argument("--small", action="store_true", help="only the clip that needs no data")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="NAME", choices=[make.__name__ for make in CLIPS])
    options = parser.parse_args()
    if not options.small and not options.data:
        parser.error("--data or --small is needed")
    options.output.mkdir(parents=True, exist_ok=True)
    if options.small:
        print(write(varied(small(), options.seed), options.output, options.seed))
        return
    listing = options.output / "clips.json"
    index = {entry["name"]: entry for entry in json.loads(listing.read_text())} if listing.exists() else {}
    stills = Stills(options.data)
    for make in CLIPS:
        name = make.__name__
        if options.only in (None, name):
            started = time.perf_counter()
            seed = (options.seed, zlib.crc32(name.encode()))
            clip = varied(make(stills, np.random.default_rng(seed)), options.seed)
            entry = write(clip, options.output, seed)
            index[name] = {**entry, "seed": options.seed, "set": set_of(options.seed)}
            listing.write_text(json.dumps(list(index.values()), indent=1) + "\n")
            print(f"{index[name]} in {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
