"""python -m train.average START TRAINED --share S -o FILE: a net between where a run started and where it ended.

Weights averaged with those that fine-tuning started from keep what the start knew of pictures that are unlike those of
training (WiSE-FT; Wortsman et al., CVPR 2022). Each run folder has its start in start.safetensors.
"""

from __future__ import annotations

from pathlib import Path

import click
from facestream.engines.command import finish
from facestream.engines.errors import BadConfig
from facestream.train.checkpoint import load_weights, save_weights
from facestream.train.model import SSH


def average(start: SSH, trained: SSH, share: float) -> None:
    """Change `trained`, in place, to `share` of itself and the rest of `start`, which has the same layers."""
    before = start.state_dict()
    trained.load_state_dict({k: before[k].lerp(v, share) for k, v in trained.state_dict().items()})


@click.command()
@click.argument("start", type=click.Path(path_type=Path))
@click.argument("trained", type=click.Path(path_type=Path))
@click.option("--share", type=click.FloatRange(0, 1), default=0.6, show_default=True, help="of the trained weights")
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), required=True, help="weights to write")
def command(start: Path, trained: Path, share: float, out: Path) -> None:
    """Average the weights of two checkpoints of one network."""
    first, _ = load_weights(start)
    second, note = load_weights(trained)
    if first.spec != second.spec:
        raise BadConfig(f"it holds another network ({first.spec.name})", str(start), "the same as TRAINED")
    if any(layer.endswith("running_mean") for layer in second.state_dict()):
        raise BadConfig("batch norms' statistics cannot be averaged", second.spec.name, "a net without norms")
    average(first, second, share)
    save_weights(out, second, note | {"average": {"start": start.name, "share": share}})


if __name__ == "__main__":
    finish(command, "average")
