"""Sprites for `scene`: labelled stills of a WIDER-layout folder, people cut out of them, walls of pictures, and
occluders. Boxes are xyxy in pixels of the sprite, counted from pixel edges."""

from pathlib import Path

import cv2
import numpy as np
from facestream.benchmarks.scene import Sprite, of_centres

# Labels that include an occluder, as EVENT/NAME: {(x, y, width, height) as labelled: of the visible part}.
SEEN = {"edenmask/00000663": {(466, 109, 17, 23): (466, 109, 17, 16)}}  # behind the shoulder of the man in front
# Factor by which stills are enlarged once, by cubic interpolation, since clips enlarge them as much by linear one.
FINER = 2


def finer(rgba: np.ndarray, faces: np.ndarray) -> Sprite:
    """A sprite of uint8 RGB or premultiplied RGBA pixels."""
    if rgba.shape[2] == 3:
        rgba = np.dstack([rgba, np.full(rgba.shape[:2], 255, np.uint8)])
    large = cv2.resize(rgba, None, fx=FINER, fy=FINER, interpolation=cv2.INTER_CUBIC)
    large[..., :3] = np.minimum(large[..., :3], large[..., 3:])
    return Sprite(np.float32(large) / 255, faces, (rgba.shape[1], rgba.shape[0]))


class Stills:
    """The validation images of a WIDER-layout folder, by EVENT/NAME. Every visible face is a face of the sprite:
    regions labelled "ignore" are painted over."""

    def __init__(self, root: Path) -> None:
        self.images = root / "WIDER_val" / "images"
        lines = (root / "wider_face_split" / "wider_face_val_bbx_gt.txt").read_text().splitlines()
        self.labels: dict[str, np.ndarray] = {}  # x, y, width, height, ..., with 1 in column 7 for ignore
        at = 0
        while at < len(lines):
            count = int(lines[at + 1])
            name = lines[at].strip().removesuffix(".jpg")
            rows = np.array([line.split()[:10] for line in lines[at + 2 : at + 2 + count]], float).reshape(-1, 10)
            for row in rows:
                row[:4] = SEEN.get(name, {}).get(tuple(row[:4]), row[:4])
            self.labels[name] = rows
            at += 2 + max(1, count)  # an image without a face has one line of zeros

    def read(self, name: str, crop: tuple[int, int, int, int] | None) -> tuple[np.ndarray, np.ndarray]:
        """RGB uint8 and its faces, xyxy; crop: the part of the still, x0, y0, x1, y1."""
        bgr = cv2.imread(str(self.images / f"{name}.jpg"), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if bgr is None:
            raise SystemExit(f"cannot read {self.images / name}.jpg")
        rows = self.labels[name]
        xyxy = np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:4]])
        ignore = rows[:, 7] == 1
        rgb = painted_over(bgr[..., ::-1], xyxy[ignore], xyxy[~ignore])
        x0, y0, x1, y1 = crop or (0, 0, rgb.shape[1], rgb.shape[0])
        faces = xyxy[~ignore] - (x0, y0, x0, y0)
        cut = np.clip(faces, 0, (x1 - x0, y1 - y0, x1 - x0, y1 - y0))
        inside = (cut[:, 2:] - cut[:, :2]).prod(1) / (faces[:, 2:] - faces[:, :2]).prod(1)
        if ((inside > 0.02) & (inside < 0.9)).any():
            raise ValueError(f"the crop of {name} cuts through a face")
        return np.ascontiguousarray(rgb[y0:y1, x0:x1]), cut[inside >= 0.9]

    def still(self, name: str, crop: tuple[int, int, int, int] | None = None) -> Sprite:
        return finer(*self.read(name, crop))

    def cutout(self, name: str, crop: tuple[int, int, int, int] | None = None) -> Sprite:
        """The people of a still without the background, with feathered edges."""
        rgb, faces = self.read(name, crop)
        alpha = people(rgb, faces)
        return finer(np.dstack([np.uint8(rgb * alpha + 0.5), np.uint8(alpha * 255 + 0.5)]), faces)


def painted_over(rgb: np.ndarray, regions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The image with regions [N, 4] inpainted and blurred; raises ValueError if one overlaps a face [M, 4]."""
    for region in regions:
        low = np.maximum(region[:2], faces[:, :2])
        high = np.minimum(region[2:], faces[:, 2:])
        if (np.clip(high - low, 0, None).prod(1) > 0.02 * (faces[:, 2:] - faces[:, :2]).prod(1)).any():
            raise ValueError("a region to ignore lies on a face")
        grow = 0.1 * (region[2:] - region[:2])
        mask = np.zeros(rgb.shape[:2], np.uint8)
        (x0, y0), (x1, y1) = np.int32(np.maximum(region[:2] - grow, 0)), np.int32(region[2:] + grow)
        mask[y0:y1, x0:x1] = 255
        sigma = float((region[2:] - region[:2]).max()) / 4
        filled = cv2.inpaint(np.ascontiguousarray(rgb), mask, 3, cv2.INPAINT_TELEA)
        soft = cv2.GaussianBlur(mask, (0, 0), max(1.0, sigma / 6))[..., None] / np.float32(255)
        rgb = np.uint8(rgb * (1 - soft) + cv2.GaussianBlur(filled, (0, 0), sigma) * soft + 0.5)
    return rgb


def people(rgb: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Alpha matte, float32 [H, W, 1] in 0..1, of the people with these faces [N, 4], down to the lower edge."""
    height, width = rgb.shape[:2]
    mask = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    for x0, y0, x1, y1 in faces:
        middle = (x0 + x1) / 2
        w = x1 - x0
        h = y1 - y0
        for wide, top, kind in ((1.3, 1.8, cv2.GC_PR_FGD), (0.6, 1.4, cv2.GC_FGD)):
            body = [(-0.4 * w, 0.9 * h), (0.4 * w, 0.9 * h), (wide * w, top * h), (wide * w, 9 * h)]
            body += [(-wide * w, 9 * h), (-wide * w, top * h)]
            cv2.fillConvexPoly(mask, np.int32(np.add(body, (middle, y0))), kind)
        cv2.ellipse(
            mask, (int(middle), int(y0 + 0.42 * h)), (int(0.72 * w), int(0.78 * h)), 0, 0, 360, cv2.GC_PR_FGD, -1
        )
    for x0, y0, x1, y1 in faces:
        centre = (int((x0 + x1) / 2), int((y0 + y1) / 2))
        axes = (int(0.47 * (x1 - x0)), int(0.5 * (y1 - y0)))
        cv2.ellipse(mask, centre, axes, 0, 0, 360, cv2.GC_FGD, -1)
    backdrop = np.zeros((height + 2, width + 2), np.uint8)
    for corner in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)):  # a studio's white, from the edge
        if rgb[corner[::-1]].min() > 235:
            cv2.floodFill(rgb.copy(), backdrop, corner, 0, (12,) * 3, (12,) * 3, cv2.FLOODFILL_FIXED_RANGE | 255 << 8)
    mask[backdrop[1:-1, 1:-1] > 0] = cv2.GC_BGD
    mask[:3] = mask[:, :3] = mask[:, -3:] = cv2.GC_BGD
    cv2.setRNGSeed(1)  # grabCut's clustering draws at random
    cv2.grabCut(rgb, mask, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    person = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(person)
    keep = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] > 0.1 * person.sum())
    person = np.isin(parts, keep[keep > 0]).astype(np.float32)
    # Soften the edge, then pull it inwards, so that no rim of the old background is left.
    return np.clip((cv2.GaussianBlur(person, (0, 0), 1.5) - 0.4) / 0.6, 0, 1)[..., None]


def hang(stills: list[Sprite], columns: int, gap: int, rng: np.random.Generator) -> Sprite:
    """Opaque sprites in rows on a plastered wall, each in a dark frame, at 1.5 times their resolution."""
    resolution = 1.5
    rows = [stills[n : n + columns] for n in range(0, len(stills), columns)]
    width = max(sum(each.size[0] + gap for each in row) for row in rows) + 5 * gap
    height = sum(max(each.size[1] for each in row) + gap for row in rows) + 5 * gap
    shape = round(height * resolution), round(width * resolution)
    grain = cv2.GaussianBlur(rng.normal(0, 1, shape).astype(np.float32), (0, 0), 2) * 0.12
    shade = cv2.resize(np.float32([[0.72, 0.66], [0.62, 0.55]]), shape[::-1], interpolation=cv2.INTER_LINEAR)
    canvas = np.dstack([(shade + grain)[..., None] * np.float32([1.0, 0.97, 0.9]), np.ones(shape, np.float32)])
    faces = []
    y = 3 * gap
    for row in rows:
        x = 3 * gap
        for each in row:
            x0, y0, x1, y1 = (round(v * resolution) for v in (x, y, x + each.size[0], y + each.size[1]))
            for margin, colour in ((14, (0.16, 0.12, 0.1, 1.0)), (4, (0.9, 0.9, 0.88, 1.0))):
                canvas[y0 - margin : y1 + margin, x0 - margin : x1 + margin] = colour
            whole = np.float64([[resolution, 0, 0], [0, resolution, 0]])
            source = each.pixels(resolution)
            moved = of_centres(whole, each.size, source.shape[1::-1])
            canvas[y0:y1, x0:x1] = cv2.warpAffine(source, moved, (x1 - x0, y1 - y0), borderMode=cv2.BORDER_REPLICATE)
            faces.append(each.faces + np.array([x0, y0, x0, y0]) / resolution)
            x += each.size[0] + gap
        y += max(each.size[1] for each in row) + gap
    return Sprite(canvas, np.concatenate(faces), (shape[1] / resolution, shape[0] / resolution))


def pillar(width: int, height: int, colour: tuple[float, float, float]) -> Sprite:
    """A round pillar, out of focus, without a face."""
    x = np.linspace(-1, 1, width)
    light = np.sqrt(np.clip(1 - x**2, 0, 1)) * 0.75 + 0.25 - 0.2 * x
    rgba = np.dstack([np.float32(colour) * light[None, :, None] * np.ones((height, 1, 1)), np.ones((height, width))])
    return Sprite(cv2.GaussianBlur(np.float32(np.pad(rgba, ((0, 0), (8, 8), (0, 0)))), (0, 0), 2.5).clip(0, 1))


def passer_by(height: int) -> Sprite:
    """The back of somebody's head and shoulders, close to the camera and out of focus; the head is a third of it."""
    size = np.array([round(height * 0.9), height])
    rgba = np.zeros((height, size[0], 4), np.float32)
    left = np.array([(0.38, 0.3), (0.38, 0.36), (0.08, 0.46), (0, 1)])
    body = np.concatenate([left, (left * (-1, 1) + (1, 0))[::-1]])
    cv2.fillPoly(rgba, [np.int32(body * size)], (0.22, 0.2, 0.2, 1.0))
    head = (int(size[0]) // 2, round(0.2 * height)), (round(0.125 * height), round(0.165 * height))
    cv2.ellipse(rgba, *head, 0, 0, 360, (0.13, 0.1, 0.08, 1.0), -1)
    rgba[..., :3] *= np.linspace(1.25, 0.75, size[0], dtype=np.float32)[None, :, None]
    return Sprite(cv2.GaussianBlur(rgba, (0, 0), height / 90))
