"""Render the demo clip: five walkers in a hall, and the true box of every face in every frame.

    python benchmarks/make_demo_clip.py [-o tools/demo.mp4]

writes the clip and, beside it, `<name>.truth.txt` in MOT format (see `truth_lines`).

The faces: `skimage.data.astronaut()`, NASA's portrait of the astronaut Eileen Collins, which is in the public domain
(a work of the United States government) and ships inside scikit-image. Every walker is this portrait, cut out,
mirrored, tinted and dressed in a suit of another colour. The hall and the music are computed here, without network.

Coordinates. Portrait: pixels of the 512 x 512 image; a sprite uses the same and extends further down.
World: metres, x to the right, y up from the camera's eye level, z away from the camera. Frame: pixels of the
1280 x 720 frame, (0, 0) the top left corner of the top left pixel. Images are RGB.
"""

import argparse
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
from facestream.benchmarks.scene import add_video, extent, of_centres, video_frame
from skimage.data import astronaut

WIDTH = 1280
HEIGHT = 720
FPS = 30
FRAMES = 148
AUDIO_RATE = 48_000
# pixels: the camera's focal length and the row of its eye level
FOCAL = 1300.0
HORIZON = 290.0
MARGIN = 32  # pixels of background beyond the frame on each side, for the camera to drift over

# Measured on the portrait: cheek to cheek, and from the middle of the fringe, which hides the forehead, to the chin.
FACE = np.array([[181.0, 71.0], [267.0, 179.0]])
# the box's height on the walker; the eyes' row in the portrait
FACE_METRES = 0.19
EYE_ROW = 103.0
SPRITE_W = 400
SPRITE_H = 1020
BLEND = (265, 330)  # rows over which the photographed suit gives way to the drawn one
# Polygons in the portrait, x, y, x, y, ...: head and shoulders to within eight pixels; jacket; trousers.
OUTLINE = [157, 65, 175, 40, 195, 25, 230, 15, 268, 27, 291, 52, 300, 88, 292, 112, 275, 133, 262, 140, 256, 168]
OUTLINE += [278, 184, 300, 232, 338, 262, 356, 300, 358, 345, 30, 345, 42, 275, 85, 242, 118, 215, 116, 180]
OUTLINE += [142, 155, 183, 150, 178, 125, 157, 100]
JACKET = [80, 250, 44, 285, 34, 330, 22, 420, 22, 600, 62, 630, 330, 630, 372, 600, 370, 420, 356, 330, 345, 285]
TROUSERS = [74, 600, 84, 945, 180, 945, 197, 690, 214, 945, 308, 945, 318, 600]
# The hall's cross-section: strips from (x, y) to (x, y) in metres, that run away from the camera, and their colours.
HALL = (
    ((-4.5, -1.55, 4.5, -1.55), (0.66, 0.61, 0.56)),
    ((-4.5, 1.9, 4.5, 1.9), (0.80, 0.80, 0.80)),
    *(((x, -0.5, x, 1.9), (0.76, 0.73, 0.69)) for x in (-4.5, 4.5)),
    *(((x, -1.55, x, -0.5), (0.40, 0.46, 0.50)) for x in (-4.5, 4.5)),
)
LAMPS = (((-2.2, 1.9, -1.4, 1.9), (1.3, 1.3, 1.2)), ((1.4, 1.9, 2.2, 1.9), (1.3, 1.3, 1.2)))
CHORDS = ((48, 64, 67, 72), (45, 60, 64, 69), (41, 60, 65, 69), (43, 59, 62, 67))  # MIDI notes: C, A minor, F, G


@dataclass(frozen=True)
class Walker:
    """One person, who walks in a straight line at a steady pace."""

    start: tuple[float, float]  # world (x, z) in metres at time 0
    pace: tuple[float, float]  # metres a second
    height: float  # metres: the eyes above the camera's eye level
    lean: float  # degrees, clockwise
    mirror: bool
    suit: tuple[int, float, float]  # turn of the hue in OpenCV's half degrees, gains of saturation and value
    gamma: float  # above 1 darkens
    tint: tuple[float, float, float]  # gain of red, green and blue


WALKERS = (
    Walker((2.26, 8.20), (-0.474, -1.42), 0.00, -3, False, (0, 1.0, 1.0), 1.0, (1.00, 1.00, 1.00)),  # to the camera
    Walker((0.60, 4.10), (-0.44, -1.37), -0.03, 6, True, (102, 0.8, 0.8), 1.3, (0.97, 0.92, 0.86)),  # out at the left
    Walker((3.05, 3.10), (-1.45, -0.12), 0.05, -8, True, (62, 0.6, 0.7), 1.1, (0.95, 1.00, 1.06)),  # right to left
    Walker((2.65, 4.41), (-0.45, -0.57), -0.02, 5, False, (145, 0.6, 0.8), 1.6, (1.00, 0.90, 0.80)),  # from the right
    Walker((-3.64, 4.56), (0.63, -0.55), 0.03, -5, True, (14, 0.7, 1.0), 0.85, (1.04, 1.00, 0.94)),  # from the left
)


def project(x: float, y: float, z: float) -> tuple[float, float]:
    """Frame pixel of a world point."""
    return WIDTH / 2 + FOCAL * x / z, HORIZON - FOCAL * y / z


def filled(points: list[int], height: int) -> np.ndarray:
    """Mask of a polygon in the portrait: uint8, 255 inside, `height` rows."""
    return cv2.fillPoly(np.zeros((height, SPRITE_W), np.uint8), [np.reshape(points, (-1, 2))], 255)


def cut_out() -> np.ndarray:
    """Head and shoulders of the portrait, down to BLEND's end: premultiplied RGBA, float32 in 0..1."""
    rgb = np.ascontiguousarray(astronaut()[: BLEND[1], :SPRITE_W])
    outline = filled(OUTLINE, BLEND[1])
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (17, 17))
    mask = np.where(cv2.dilate(outline, brush) > 0, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    mask[cv2.erode(outline, brush) > 0] = cv2.GC_FGD
    cv2.setRNGSeed(1)  # grabCut's clustering draws at random
    cv2.grabCut(rgb, mask, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    person = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    # Soften the edge, then pull it inwards so that no rim of the studio's backdrop is left around the hair.
    alpha = np.clip((cv2.GaussianBlur(person, (0, 0), 1.2) - 0.35) / 0.6, 0, 1)[..., None]
    return np.dstack([rgb / np.float32(255) * alpha, alpha])


def drawn_body() -> np.ndarray:
    """A plain flight suit, arms hanging, and dark shoes: premultiplied RGBA, float32 in 0..1, of the sprite's size."""
    body = np.zeros((SPRITE_H, SPRITE_W, 4), np.float32)
    for x in (132, 260):
        cv2.ellipse(body, (x, 955), (48, 24), 0, 0, 360, (0.1, 0.1, 0.1, 1.0), -1)
    for shape in (filled(TROUSERS, SPRITE_H), filled(JACKET, SPRITE_H)):
        shade = np.sqrt(np.clip(cv2.distanceTransform(shape, cv2.DIST_L2, 5) / 70, 0, 1)) * 0.4 + 0.6  # looks round
        shade *= np.linspace(1.1, 0.6, SPRITE_H)[:, None]
        body[shape > 0] = np.dstack([shade * 0.86, shade * 0.36, shade * 0.22, shape / 255])[shape > 0]
    for line in ([84, 370, 76, 620], [306, 370, 316, 620], [197, 340, 197, 628]):  # between arms and body; the front
        cv2.polylines(body, [np.reshape(line, (-1, 2))], False, (0.55, 0.23, 0.14, 1.0), 5, cv2.LINE_AA)
    return cv2.GaussianBlur(body, (0, 0), 1.8)


@cache
def sprite(walker: Walker) -> np.ndarray:
    """The walker in portrait coordinates (mirrored or not): premultiplied RGBA, float32 in 0..1."""
    person = drawn_body()
    weight = np.clip((BLEND[1] - np.arange(BLEND[1])) / (BLEND[1] - BLEND[0]), 0, 1)[:, None, None]
    person[: BLEND[1]] = cut_out() * weight + person[: BLEND[1]] * (1 - weight)
    hsv = cv2.cvtColor(person[..., :3], cv2.COLOR_RGB2HSV)
    orange = (hsv[..., 0] < 40) & (hsv[..., 1] > 0.4) & (np.arange(SPRITE_H) > 195)[:, None]  # the suit, not the face
    hsv[orange] = hsv[orange] * [1, *walker.suit[1:]] + [2 * walker.suit[0], 0, 0]
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) ** walker.gamma * np.float32(walker.tint)
    person[..., :3] = np.minimum(rgb, person[..., 3:])
    return np.ascontiguousarray(person[:, ::-1]) if walker.mirror else person


def face(walker: Walker) -> np.ndarray:
    """FACE on the walker's sprite, mirrored or not: xyxy [4]."""
    (x0, y0), (x1, y1) = FACE
    return np.array([SPRITE_W - x1, y0, SPRITE_W - x0, y1] if walker.mirror else [x0, y0, x1, y1])


@cache
def background() -> np.ndarray:
    """The empty hall, out of focus: float32 RGB in 0..1, the frame and MARGIN pixels more on each side."""
    picture = np.full((HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN, 3), (0.90, 0.93, 0.95), np.float32)  # the far window
    for z in np.arange(26, 2, -0.5):  # slices, far to near, darker with the distance from the window
        light = (0.72 + 0.01 * z) * (0.88 if z % 4 < 1 else 1.0)  # a darker rib every four metres
        for (x0, y0, x1, y1), colour in HALL + (LAMPS if z % 3 < 1 else ()):
            corners = [project(x, y, d) for x, y, d in ((x0, y0, z), (x1, y1, z), (x1, y1, z - 0.5), (x0, y0, z - 0.5))]
            cv2.fillConvexPoly(picture, np.int32(corners) + MARGIN, [light * part for part in colour])
    return cv2.GaussianBlur(picture, (0, 0), 5)


def camera_drift(t: float) -> tuple[float, float]:
    """Translation of the frame by the hand-held camera at time t (seconds), in pixels; within MARGIN."""
    return 9 * np.sin(1.3 * t) + 2 * np.sin(4.1 * t), 5 * np.sin(1.7 * t + 1) + 1.5 * np.sin(5.3 * t)


def pose(walker: Walker, t: float) -> np.ndarray | None:
    """The 2 x 3 matrix from sprite to frame pixels at time t in seconds; None once the camera is passed."""
    x, z = np.add(walker.start, np.multiply(walker.pace, t))
    if z < 0.5:
        return None
    step = 2 * np.pi * 1.8 * t + 50 * walker.height  # 1.8 steps a second, each walker out of step with the others
    scale = FACE_METRES * FOCAL / z / (FACE[1, 1] - FACE[0, 1])
    angle = np.radians(walker.lean + 1.5 * np.sin(step / 2))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = FACE[:, 0].mean()
    eyes = np.array([SPRITE_W - middle if walker.mirror else middle, EYE_ROW])
    target = np.add(project(x, walker.height + 0.012 * np.sin(step), z), camera_drift(t))
    return np.column_stack([turn, target - turn @ eyes])


def paint(walker: Walker, matrix: np.ndarray) -> np.ndarray:
    """The sprite moved into the frame: premultiplied RGBA, float32 in 0..1."""
    # Reduce by area averaging first: the warp samples at most four source pixels per side and would alias.
    shrink = min(1.0, 1.5 * float(np.hypot(matrix[0, 0], matrix[1, 0])))
    size = round(SPRITE_W * shrink), round(SPRITE_H * shrink)
    picture = cv2.resize(sprite(walker), size, interpolation=cv2.INTER_AREA)
    moved = of_centres(matrix, (SPRITE_W, SPRITE_H), size)
    return np.clip(cv2.warpAffine(picture, moved, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC), 0, 1)


def truth_lines(index: int, walker: Walker, matrix: np.ndarray, uncovered: np.ndarray) -> list[str]:
    """One MOT line `frame,id,left,top,width,height,1,-1,-1,visibility`; none if less than half the face is visible.

    Frames and ids count from 1. The box, in frame pixels and cut at the frame's edge, contains the ellipse that fills
    FACE. The visibility is the share of the uncut box that is in the frame and not occluded by a nearer walker.
    """
    whole = extent(matrix, face(walker)).reshape(2, 2)
    low, high = np.clip(whole, 0, (WIDTH, HEIGHT))
    inside = np.prod(high - low) / np.prod(whole[1] - whole[0])
    if inside < 0.5:
        return []
    (left, top), (right, bottom) = np.int32(low), np.int32(np.ceil(high))
    seen = inside * uncovered[top:bottom, left:right].mean()
    sizes = ",".join(f"{number:.2f}" for number in (*low, *(high - low)))
    return [f"{index + 1},{WALKERS.index(walker) + 1},{sizes},1,-1,-1,{seen:.2f}"] if seen >= 0.5 else []


def render(index: int) -> tuple[np.ndarray, list[str]]:
    """Frame `index` (from 0): uint8 RGB [h, w, 3], and its ground-truth lines."""
    t = index / FPS
    shift = np.column_stack([np.eye(2), np.subtract(camera_drift(t), MARGIN)])
    picture = cv2.warpAffine(background(), shift, (WIDTH, HEIGHT))
    uncovered = np.ones((HEIGHT, WIDTH), np.float32)  # by the walkers nearer than the one at hand
    layers = []
    truth = []
    for walker in sorted(WALKERS, key=lambda each: each.start[1] + each.pace[1] * t):
        matrix = pose(walker, t)
        if matrix is not None:
            layers.append(paint(walker, matrix))
            truth += truth_lines(index, walker, matrix, uncovered)
            uncovered *= 1 - layers[-1][..., 3]
    for layer in reversed(layers):
        picture = picture * (1 - layer[..., 3:]) + layer[..., :3]
    return np.uint8(np.clip(picture, 0, 1) * 255 + 0.5), sorted(truth)


def music() -> np.ndarray:
    """Four soft chords over the clip's length: mono, float32 in -1..1, AUDIO_RATE samples a second."""
    length = FRAMES / FPS
    t = np.arange(round(length * AUDIO_RATE)) / AUDIO_RATE
    sound = np.zeros_like(t)
    for number, chord in enumerate(CHORDS):
        for voice, note in enumerate(chord):
            since = np.maximum(t - number * length / 4 - 0.04 * voice, 0)  # seconds since the note began
            swell = (1 - np.exp(-since / 0.03)) * np.exp(-since / 0.7)
            for partial in (1, 2, 3):
                sound += swell * np.sin(2 * np.pi * 440 * 2 ** ((note - 69) / 12) * partial * since) / partial**2.5
    return np.float32(0.5 * sound / np.abs(sound).max() * np.clip((length - t) / 0.5, 0, 1))


def write_clip(path: Path) -> list[str]:
    """Render and encode the clip; returns the ground-truth lines."""
    truth = []
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = add_video(container, (WIDTH, HEIGHT), FPS, 21, "slow")
        audio = container.add_stream("aac", rate=AUDIO_RATE, layout="mono")
        audio.bit_rate = 64_000
        for index in range(FRAMES):
            picture, lines = render(index)
            truth += lines
            frame = video_frame(picture)
            frame.pts = index
            container.mux(video.encode(frame))
        sound = av.AudioFrame.from_ndarray(music()[None], format="fltp", layout="mono")
        sound.sample_rate = AUDIO_RATE
        sound.pts = 0
        container.mux([*video.encode(None), *audio.encode(sound), *audio.encode(None)])
    return truth


def main() -> None:
    parser = argparse.ArgumentParser(description="Render the demo clip and its truth.")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent.parent / "tools" / "demo.mp4")
    clip: Path = parser.parse_args().output
    truth = clip.with_suffix(".truth.txt")
    clip_part, truth_part = (path.with_name(path.name + ".part") for path in (clip, truth))
    truth_part.write_text("\n".join(write_clip(clip_part)) + "\n")
    os.replace(clip_part, clip)  # only now, so that an interrupted run leaves the old pair untouched
    os.replace(truth_part, truth)


if __name__ == "__main__":
    main()
