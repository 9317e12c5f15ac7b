"""A small training set in WIDER FACE's layout, made from the demo clip."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

DEMO = Path(__file__).parent.parent / "tools" / "demo.mp4"
TRUTH = DEMO.with_name("demo.truth.txt")


def demo_truth() -> dict[int, np.ndarray]:
    """Frame (from 0) -> face boxes xyxy [N, 4] in pixels."""
    table = np.loadtxt(TRUTH, delimiter=",")
    return {
        int(f) - 1: np.stack([r[:, 2], r[:, 3], r[:, 2] + r[:, 4], r[:, 3] + r[:, 5]], 1)
        for f in np.unique(table[:, 0])
        for r in [table[table[:, 0] == f]]
    }


def demo_frames(indices: list[int]) -> list[np.ndarray]:
    """RGB uint8 pictures of the demo clip."""
    try:
        import av
    except ModuleNotFoundError:  # a machine with a GPU and little else
        film, made = cv2.VideoCapture(str(DEMO)), []
        for index in range(max(indices) + 1):
            found, bgr = film.read()
            if found and index in indices:
                made.append(np.ascontiguousarray(bgr[..., ::-1]))
        return made
    with av.open(str(DEMO)) as container:
        return [f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(video=0)) if i in indices]


def make_pack(root: Path, count: int = 4) -> Path:
    """WIDER_train and WIDER_val with `count` frames each at half size, plus one image without a face in train."""
    truth = demo_truth()
    for split, offset in (("train", 0), ("val", 7)):
        picked = [20 + offset + i * 30 for i in range(count)]
        folder = root / f"WIDER_{split}" / "images" / "demo"
        folder.mkdir(parents=True)
        lines = []
        for index, rgb in zip(picked, demo_frames(picked), strict=True):
            cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(rgb, (640, 360))[:, :, ::-1])
            xywh = truth[index] / 2
            xywh[:, 2:] -= xywh[:, :2]
            lines += [f"demo/{index}.png", str(len(xywh))]
            lines += [" ".join(str(round(v)) for v in row) + " 0 0 0 0 0 0" for row in xywh]
        if split == "train":
            cv2.imwrite(str(folder / "empty.png"), np.full((360, 640, 3), 90, np.uint8))
            lines += ["demo/empty.png", "0", "0 0 0 0 0 0 0 0 0 0"]
        (root / "wider_face_split").mkdir(exist_ok=True)
        (root / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    return root


def cut_demo(out: Path, frames: int) -> Path:
    """The demo clip's first frames, as they are, without its sound."""
    import av

    with av.open(str(DEMO)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is not None and number < frames:
                packet.stream = stream
                target.mux(packet)
    return out
