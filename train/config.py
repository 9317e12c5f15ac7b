"""Every setting of a training run, checked; a run's checkpoint holds it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from engines.errors import BadConfig
from train.assign import AssignRule
from train.loss import MineRule
from train.model import SPECS
from train.plan import AugmentRule


class TrainConfig(BaseModel):
    """Defaults are the recipe of the light nets; `recipe("vgg16")` gives the paper's solver (section 4.1).

    batch counts crops of the smallest size; batches of larger crops hold fewer, so that the pixels,
    and the cost, of a step stay the same. lr is the peak, reached after `warmup` steps; `schedule`
    cosine falls to 1 % of it, `step` divides it by 10 at 6/7 of the run. branches=False trains the
    light nets without RepVGG's side branches: half the time a step, a little less accurate. amp: run the
    network in bfloat16, its loss and its weights stay float32.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "plainS"
    branches: bool = True
    steps: int = 6000
    batch: int = 32
    sizes: tuple[int, ...] = (256, 384, 512)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 2e-3
    weight_decay: float = 0.02
    momentum: float = 0.9
    warmup: int = 200
    schedule: Literal["cosine", "step"] = "cosine"
    clip: float = 10.0
    ema: float = 0.998
    seed: int = 0
    cache_gb: float = 8.0
    amp: bool = False
    loss: Literal["mined", "quality"] = "quality"
    box_weight: float = 2.0
    assign: AssignRule = AssignRule(face=0.45, background=0.3, fewest=4, loose=0.25)
    mine: MineRule = MineRule(ratio=3.0)
    augment: AugmentRule = AugmentRule()


RECIPES: dict[str, dict[str, Any]] = {
    "vgg16": {
        "optimizer": "sgd", "lr": 0.004, "weight_decay": 5e-4, "steps": 21_000, "schedule": "step", "batch": 4,
        "sizes": (512,), "loss": "mined", "box_weight": 1.0, "assign": AssignRule(), "mine": MineRule(),
    },
}  # fmt: skip


def recipe(model: str, **changes: Any) -> TrainConfig:
    """The named model's settings with `changes` on top. BadConfig names a key or value that is not valid."""
    if model not in SPECS:
        raise BadConfig(f"unknown model {model!r}", "--model", "one of " + ", ".join(SPECS))
    try:
        return TrainConfig(model=model, **{**RECIPES.get(model, {}), **changes})
    except ValidationError as e:
        error = e.errors()[0]
        raise BadConfig(error["msg"], "training setting " + ".".join(str(p) for p in error["loc"])) from None
