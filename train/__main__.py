"""python -m train --data DIR [--model NAME] [--resume]: train SSH on a WIDER-layout folder."""

from __future__ import annotations

import logging
import tomllib
from pathlib import Path
from typing import Any

import click
import torch
from facestream.engines.command import finish
from facestream.engines.errors import BadConfig
from facestream.train.bootstrap import read_mined
from facestream.train.checkpoint import load_weights, save_weights
from facestream.train.config import recipe
from facestream.train.data import read_split, usable
from facestream.train.dataset_issues import DatasetIssues
from facestream.train.distributed import join, leave
from facestream.train.loop import Run
from facestream.train.plots import training_curve
from facestream.train.pretrained import InputFormat, init_backbone, init_from_retinaface, init_from_run
from facestream.train.yunet import init_from_yunet

log = logging.getLogger("facestream.train")


def settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`key=value` settings of the command line; values are TOML, a bare word is a string."""
    out: dict[str, Any] = {}
    for pair in pairs:
        key, sep, value = pair.partition("=")
        if not sep:
            raise BadConfig("must be key=value", f"--set {pair}")
        try:
            out[key] = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            out[key] = value
    return out


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="folder with WIDER_train/ and wider_face_split/"
)
@click.option("--model", default="plainS", show_default=True, help="vgg16, narrow, plainXS16, plainS or plainM")
@click.option("--out", type=click.Path(path_type=Path), help="run folder [default: runs/MODEL]")
@click.option("--init", type=click.Path(path_type=Path), help="start from the weights of an earlier run")
@click.option("--retinaface", type=click.Path(path_type=Path), help="start from RetinaFace's small net, all of it")
@click.option("--yunet", type=click.Path(path_type=Path), help="start from YuNet's ONNX file, all of it")
@click.option("--backbone", type=click.Path(path_type=Path), help="start its backbone from a classifier or another net")
@click.option(
    "--backbone-input",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "rgb", "bgr255"]),
    help="what that classifier was shown: bgr255 is Caffe's and Keras's VGG-16; auto goes by the file's kind",
)
@click.option("--teacher", type=click.Path(path_type=Path), help="a trained net whose dense outputs are learned, too")
@click.option("--mined", type=click.Path(path_type=Path), help="false alarms of an earlier net, by train.bootstrap")
@click.option("--resume", is_flag=True, help="go on from the run folder's state")
@click.option("--save-every", type=click.IntRange(1), default=500, show_default=True, help="steps from save to save")
@click.option("--steps", type=int, help="number of steps")
@click.option("--seed", default=0, show_default=True, help="seed of weights, crops and order")
@click.option("--workers", default=1, show_default=True, help="processes that make crops")
@click.option("--threads", default=0, help="threads that train; 0 = all cores")
@click.option("--device", default="auto", show_default=True, help="cpu or cuda; auto = cuda when there is one")
@click.option("--set", "change", multiple=True, metavar="KEY=VALUE", help="any other setting of train.config")
def train(
    data: Path, model: str, out: Path | None,
    init: Path | None, retinaface: Path | None, yunet: Path | None, teacher: Path | None, mined: Path | None,
    backbone: Path | None, backbone_input: InputFormat, resume: bool, save_every: int, steps: int | None,
    seed: int, workers: int, threads: int, device: str, change: tuple[str, ...],
) -> None:  # fmt: skip
    """Train SSH; writes weights.safetensors, state.pt, log.jsonl and curve.png into the run folder."""
    if threads:
        torch.set_num_threads(threads)
    changes = settings(change) | {"seed": seed} | ({"steps": steps} if steps else {})
    config = recipe(model, **changes)
    folder = out or Path("runs") / model
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    world, device = join(device)
    if world.rank > 0:  # each process would say the same
        log.setLevel(logging.ERROR)
    try:
        issues = DatasetIssues(config.on_bad == "stop")
        images = usable(read_split(data, "train", issues), issues)
        log.info("%s: %d steps on %d images, into %s", model, config.steps, len(images), folder)
        if issues.counts:
            log.warning("%s", issues.summary())
        run = Run(config, images, folder, resume, workers, device, world,
                  read_mined(mined, data) if mined is not None else None)  # fmt: skip
        if not resume:
            if init is not None:
                init_from_run(init, run.models())
            if retinaface is not None:
                init_from_retinaface(retinaface, run.models())
            if yunet is not None:
                init_from_yunet(yunet, run.models())
            if backbone is not None:
                log.info("backbone from %s: %s", backbone, init_backbone(backbone, run.models(), backbone_input))
            elif init is None and retinaface is None and model == "vgg16":
                log.info("starts from random weights; the paper starts from ImageNet (--backbone FILE)")
        if teacher is not None:
            run.learn_from(load_weights(teacher)[0])
        if not resume and run.first:
            save_weights(folder / "start.safetensors", run.models()[1], {"step": 0})
        run.train(save_every=save_every)
    finally:
        leave(world)
    if world.rank == 0:
        training_curve(folder / "log.jsonl", folder / "curve.png")
        print(f"wrote {folder / 'weights.safetensors'} and {folder / 'curve.png'}")


if __name__ == "__main__":
    finish(train, "train", "interrupted; go on with --resume")
