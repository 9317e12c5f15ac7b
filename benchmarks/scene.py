"""Renders clips of images that move in front of a camera, with the exact box of every face in every frame.

A clip is a row of shots, a shot a pile of layers, a layer a sprite and its pose: the 2 x 3 matrix from the sprite's
pixels to the frame's at a time in seconds since the shot began. Pixels and boxes go through the same matrix, so the
truth is exact. Coordinates are pixels counted from their edges: (0, 0) is the top left corner of the top left pixel.
Boxes are xyxy, sizes (width, height), pictures RGB or premultiplied RGBA, float32 in 0..1.

What counts as visible. A face is the ellipse that fills its box. A face of which less than a quarter is seen, be it
beyond the frame's edge or behind a nearer layer, has no box. One that is partly hidden has the box of its visible
part: what nobody can see need not be covered. Every other face has its whole box, cut at the frame's edge.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from facestream.benchmarks.motion import Pose

Part = tuple[tuple[slice, slice], np.ndarray]  # rows and columns of the frame, RGBA there
WHOLE = 0.98  # share of a face's pixels in the frame from which it counts as seen whole
LEAST_SEEN = 0.25  # of a face, to have a box
STEP = 2 ** (1 / 3)  # between the stored reductions of a sprite
# a sub-frame for so many pixels of travel during the exposure, and at most so many
STRIDE = 2.0
MOST = 10


class Sprite:
    """A picture with faces, float64 [N, 4]. Its `size` is the unit of poses and faces; its pixels may be finer."""

    def __init__(self, rgba: np.ndarray, faces: object = (), size: tuple[int, int] | None = None) -> None:
        self.size = size or (rgba.shape[1], rgba.shape[0])
        self.faces = np.reshape(np.asarray(faces, float), (-1, 4))
        self.reduced = {0: np.ascontiguousarray(rgba, np.float32)}

    def pixels(self, scale: float) -> np.ndarray:
        """The picture in a resolution fit to be shown at `scale`: a linear warp alone would alias when it shrinks."""
        full = self.reduced[0]
        finer = full.shape[1] / self.size[0] / scale  # pixels of the picture to one of the frame
        steps = max(0, int(np.log(finer / 1.1) / np.log(STEP))) if finer > 1.1 else 0
        if steps not in self.reduced:
            size = [max(1, round(side / STEP**steps)) for side in full.shape[1::-1]]
            self.reduced[steps] = cv2.resize(full, size, interpolation=cv2.INTER_AREA)
        return self.reduced[steps]


@dataclass(frozen=True)
class Layer:
    sprite: Sprite
    pose: Pose
    defocus: Callable[[float], np.ndarray] = lambda t: np.zeros(1)  # as from path: sigma of the blur in frame pixels


@dataclass(frozen=True)
class Tone:
    """What the camera makes of a picture: gain, then noise of this sigma; flashes: frame of the shot -> strength."""

    gain: float = 1.0
    noise: float = 0.0
    flashes: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shot:
    frames: int
    layers: tuple[Layer, ...]  # far to near; the first fills the frame
    tone: Tone = Tone()


@dataclass(frozen=True)
class Clip:
    """shutter: the exposure as a share of the frame's time. times: of the frames in seconds, where uneven."""

    name: str
    shows: str
    size: tuple[int, int]
    fps: int
    shots: tuple[Shot, ...]
    shutter: float = 0.5
    crf: int = 20
    times: tuple[float, ...] = ()

    def time(self, index: int) -> float:
        return self.times[index] if self.times else index / self.fps

    @property
    def frames(self) -> int:
        return sum(shot.frames for shot in self.shots)

    @property
    def cuts(self) -> list[int]:
        """The first frame of every shot but the first, counted from 1 as in the truth."""
        return [int(n) + 1 for n in np.cumsum([shot.frames for shot in self.shots])[:-1]]


def corners(size: tuple[float, float]) -> np.ndarray:
    """The corners of a picture of that size as columns (x, y, 1)."""
    return np.array([[0, size[0], size[0], 0], [0, 0, size[1], size[1]], [1] * 4])


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The map back, [2, 3]."""
    return np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))[:2]


def of_centres(matrix: np.ndarray, whole: tuple[int, int], stored: tuple[int, int]) -> np.ndarray:
    """The map for a picture of size `whole`, from its copy of size `stored`, counted from pixels' centres on both
    sides, as OpenCV counts."""
    moved = matrix * [whole[0] / stored[0], whole[1] / stored[1], 1]
    moved[:, 2] += moved[:, :2] @ [0.5, 0.5] - 0.5
    return moved


def extent(matrix: np.ndarray, xyxy: np.ndarray) -> np.ndarray:
    """Boxes [..., 4] around the ellipses that fill the boxes xyxy [..., 4], after the map; not cut at any edge."""
    low = xyxy[..., :2]
    high = xyxy[..., 2:]
    linear = matrix[:, :2]
    middle = (low + high) / 2 @ linear.T + matrix[:, 2]
    half = np.sqrt(((high - low) / 2) ** 2 @ (linear**2).T)
    return np.concatenate([middle - half, middle + half], -1)


def painted(layer: Layer, t: float, size: tuple[int, int], border: int = cv2.BORDER_CONSTANT) -> Part | None:
    """The part of the frame that the layer reaches at time t, and its RGBA there; None when it is out of the frame."""
    sprite = layer.sprite
    matrix = layer.pose(t)
    sigma = float(layer.defocus(t)[0])
    ends = matrix @ corners(sprite.size)
    reach = 2 + 3 * sigma
    x0, y0 = (int(v) for v in np.clip(np.floor(ends.min(1) - reach), 0, size))
    x1, y1 = (int(v) for v in np.clip(np.ceil(ends.max(1) + reach), 0, size))
    if x1 <= x0 or y1 <= y0:
        return None
    source = sprite.pixels(np.hypot(*matrix[:, 0]))
    moved = of_centres(matrix, sprite.size, (source.shape[1], source.shape[0])) - [[0, 0, x0], [0, 0, y0]]
    rgba = cv2.warpAffine(source, moved, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, borderMode=border)
    if sigma > 0.3:
        rgba = cv2.GaussianBlur(rgba, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.s_[y0:y1, x0:x1], rgba


def picture(layers: tuple[Layer, ...], t: float, size: tuple[int, int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The layers at time t: RGBA [H, W, 4], and what is not covered by the layers nearer than each, [H, W] in 0..1."""
    reached = inverse(layers[0].pose(t)) @ corners(size)
    farthest = painted(layers[0], t, size, cv2.BORDER_REPLICATE)
    if (
        farthest is None
        or (reached.min(1) < -1e-6).any()
        or (reached.max(1) > np.add(layers[0].sprite.size, 1e-6)).any()
    ):
        raise ValueError("the farthest layer leaves a part of the frame empty")
    canvas = farthest[1]
    clear = [np.ones(size[::-1], np.float32) for _ in layers]
    for number, layer in enumerate(layers[1:], 1):
        part = painted(layer, t, size)
        if part is not None:
            where, rgba = part
            through = 1 - rgba[..., 3]
            canvas[where] *= through[..., None]
            canvas[where] += rgba
            for farther in clear[:number]:
                farther[where] *= through
    return canvas, clear


def visible(box: np.ndarray, clear: np.ndarray) -> np.ndarray | None:
    """The truth for a face of box [4]; clear: [H, W] of the frame, as from `picture`. None where it is hardly seen."""
    height, width = clear.shape
    cut = np.clip(box, 0, (width, height, width, height))
    (x0, y0), (x1, y1) = np.int32(np.floor(cut[:2])), np.int32(np.ceil(cut[2:]))
    middle = (box[:2] + box[2:]) / 2
    half = (box[2:] - box[:2]) / 2
    x = (np.arange(x0, x1) + 0.5 - middle[0]) / half[0]
    y = (np.arange(y0, y1) + 0.5 - middle[1]) / half[1]
    face = x[None] ** 2 + y[:, None] ** 2 <= 1
    seen = face & (clear[y0:y1, x0:x1] > 0.5)
    if seen.sum() < LEAST_SEEN * np.pi * half[0] * half[1]:
        return None
    if seen.sum() >= WHOLE * face.sum():
        return cut
    rows = np.flatnonzero(seen.any(1))
    columns = np.flatnonzero(seen.any(0))
    return np.array([x0 + columns[0], y0 + rows[0], x0 + columns[-1] + 1, y0 + rows[-1] + 1], float)


def exposed(shot: Shot, t: float, exposure: float, size: tuple[int, int]) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """RGB [H, W, 3] and the truth of every face, layer by layer, of a frame exposed for `exposure` seconds around t."""
    travel = 0.0
    ends = corners(size)
    for layer in shot.layers:
        before = layer.pose(t - exposure / 2)
        after = layer.pose(t + exposure / 2)
        back = np.vstack([inverse(before) @ ends, [1] * 4])  # where the frame's corners lie in the sprite
        travel = max(travel, np.hypot(*(after @ back - ends[:2])).max())
    count = int(np.clip(np.ceil(travel / STRIDE), 1, MOST))
    moments = t + exposure * ((np.arange(count) + 0.5) / count - 0.5)
    canvas, clear = picture(shot.layers, moments[0], size)
    for moment in moments[1:]:
        take, clears = picture(shot.layers, moment, size)
        canvas += take
        for total, part in zip(clear, clears, strict=True):
            total += part
    truth = []
    for layer, unhidden in zip(shot.layers, clear, strict=True):
        boxes = np.mean([extent(layer.pose(moment), layer.sprite.faces) for moment in moments], axis=0)
        truth += [visible(box, unhidden / count) for box in boxes]
    return canvas[..., :3] / count, truth


def frames(clip: Clip, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Every frame, uint8 RGB, with its MOT lines `frame,id,left,top,width,height,1,-1,-1,-1`, both counted from 1.

    A face keeps its id as long as its shot lasts, in the frame or not; other shots have other ids.
    """
    index = used = 0
    for shot in clip.shots:
        start = clip.time(index)
        for number in range(shot.frames):
            rgb, truth = exposed(shot, clip.time(index) - start, clip.shutter / clip.fps, clip.size)
            flash = shot.tone.flashes.get(number, 0.0)
            rgb = rgb * shot.tone.gain * (1 - flash) + flash
            if shot.tone.noise:
                rgb += rng.normal(0, shot.tone.noise, rgb.shape)
            index += 1
            lines = []
            for face, box in enumerate(truth, used + 1):
                if box is not None:
                    sides = ",".join(f"{v:.2f}" for v in (*box[:2], *(box[2:] - box[:2])))
                    lines.append(f"{index},{face},{sides},1,-1,-1,-1")
            yield np.uint8(np.clip(rgb, 0, 1) * 255 + 0.5), lines
        used += len(truth)


def add_video(
    container: av.container.OutputContainer, size: tuple[int, int], fps: int, crf: int, preset: str
) -> av.VideoStream:
    """An H.264 track in BT.709. One thread: with more, the bytes would depend on the number of cores."""
    video = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": preset, "threads": "1"})
    video.width, video.height, video.pix_fmt = *size, "yuv420p"
    context = video.codec_context
    context.colorspace = context.color_primaries = context.color_trc = int(Colorspace.ITU709)
    context.color_range = int(ColorRange.MPEG)
    return video


def video_frame(rgb: np.ndarray) -> av.VideoFrame:
    """A picture, uint8 RGB, as `add_video` wants it."""
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)


def write(clip: Clip, folder: Path, seed: int | tuple[int, int]) -> dict[str, object]:
    """Render NAME.mp4 and NAME.truth.txt into the folder; returns the clip's entry of the index."""
    truth: list[str] = []
    unit = Fraction(1, 1000) if clip.times else Fraction(1, clip.fps)
    film = folder / f"{clip.name}.mp4"
    boxes = folder / f"{clip.name}.truth.txt"
    part = film.with_name(film.name + ".part")
    with av.open(str(part), "w", format="mp4") as container:
        video = add_video(container, clip.size, clip.fps, clip.crf, "medium")
        video.codec_context.time_base = video.time_base = unit
        for index, (rgb, lines) in enumerate(frames(clip, np.random.default_rng(seed))):
            truth += lines
            frame = video_frame(rgb)
            frame.pts = round(clip.time(index) / unit)
            frame.time_base = unit
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    boxes.write_text("\n".join(truth) + "\n")
    os.replace(part, film)  # only now: a run cut short leaves no clip that looks whole
    tracks = len({line.split(",")[1] for line in truth})
    entry = {"name": clip.name, "shows": clip.shows, "frames": clip.frames, "fps": clip.fps, "size": clip.size}
    return {**entry, "tracks": tracks, "cuts": clip.cuts}
