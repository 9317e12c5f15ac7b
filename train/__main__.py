"""python -m train --data DIR [--model NAME] [--resume]: train SSH on a WIDER-layout folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from engines.errors import BadConfig, UserError
from train.config import recipe
from train.data import read_split
from train.loop import Run
from train.plots import training_curve


def settings(pairs: list[str]) -> dict[str, Any]:
    """`key=value` settings of the command line; values are TOML, a bare word is a string."""
    import tomllib

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


def train(
    data: Annotated[Path, typer.Option(help="folder with WIDER_train/ and wider_face_split/")],
    model: Annotated[str, typer.Option(help="vgg16, plainXS16, plainS or plainM")] = "plainS",
    out: Annotated[Path | None, typer.Option(help="run folder [default: runs/MODEL]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the run folder's state")] = False,
    steps: Annotated[int | None, typer.Option(help="number of steps")] = None,
    seed: Annotated[int, typer.Option(help="seed of weights, crops and order")] = 0,
    workers: Annotated[int, typer.Option(help="processes that make crops")] = 1,
    threads: Annotated[int, typer.Option(help="threads that train; 0 = all cores")] = 0,
    change: Annotated[list[str] | None, typer.Option("--set", help="any other setting, as key=value")] = None,
) -> None:
    """Train SSH; writes weights.safetensors, state.pt, log.jsonl and curve.png into the run folder."""
    if threads:
        torch.set_num_threads(threads)
    changes = settings(change or []) | {"seed": seed} | ({"steps": steps} if steps else {})
    config = recipe(model, **changes)
    folder = out or Path("runs") / model
    images = read_split(data, "train")
    print(f"{model}: {config.steps} steps on {len(images)} images, into {folder}")
    run = Run(config, images, folder, resume, workers)
    run.train()
    training_curve(folder / "log.jsonl", folder / "curve.png")
    print(f"wrote {folder / 'weights.safetensors'} and {folder / 'curve.png'}")


def main() -> None:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(train)
    try:
        app()
    except UserError as e:
        print(f"train: error: {e}", file=sys.stderr)
        sys.exit(e.exit_code)
    except KeyboardInterrupt:
        print("train: interrupted; go on with --resume", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
