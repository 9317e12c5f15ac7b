"""Every setting of a training run, checked; a run's checkpoint holds it."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any, Literal

from facestream.engines.checked import Wrong, checked
from facestream.engines.errors import BadConfig
from facestream.train.assign import AssignRule
from facestream.train.augment import AugmentRule
from facestream.train.loss import HardAnchorRule
from facestream.train.model import FINER_SIZES, PAPER_SIZES, SPECS, ModelSpec
from facestream.train.snip import LEVELS, Level
from msgspec import Struct, to_builtins

# Keys of earlier versions, as stored checkpoints have them, and what they are called now.
RENAMED = {
    "augment.signs": "augment.distractors",
    "mine": "hard_anchors",
    "hard_anchors.least": "hard_anchors.min_background",
}
RENAMED_VALUES = {("view", "whole"): "whole_images"}


class TrainConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Defaults are the recipe of the light nets; `recipe("vgg16")` gives the paper's (section 4.1).

    batch counts crops of the smallest size; batches of larger crops hold fewer, so that the pixels,
    and the cost, of a step stay the same. lr is the peak, reached after `warmup` steps; `schedule`
    cosine falls to 1 % of it, `step` divides it by 10 at 6/7 of the run. clip: largest norm of the gradient, 0 = any.
    ema: decay of the average of the weights, 0 = the last weights. branches=False trains the
    light nets without RepVGG's side branches: half the time a step, a little less accurate. amp: run the
    network in bfloat16, its loss and its weights stay float32. on_bad: whether an image that cannot be read and a box
    that cannot be right are left out and counted (skip), or end the run (stop).

    view: `crops` as train.augment draws them, or `whole_images`, their shorter side at `shortest` unless the longer one
    would pass `longest`, each a part of the batch by itself; flip: half of those are mirrored. frozen: VGG-16's first
    convolutions that stay as they are. The paper fixes "up to conv3-1", which are 5 if conv3-1 is one of them;
    its released network fixes 4, as Fast R-CNN does. For MobileNet: how many of its three parts, which end at the
    strides 8, 16 and 32, stay as they are. norms: `batch`, or `fixed`: those of a trained net keep their statistics
    (`train.backbones.fix_norms`).
    distill: weight of what is learned from a teacher's dense outputs (`distilled_loss`) beside the labels.
    snip: whole pictures at `levels`, faces outside a level's range invalid; window: only a part of that many pixels
    square of a picture that is larger (SNIP, CVPR 2018), 0 = all of it.

    anchors, only_m2, fusion, context, ohem: the ablations of the paper's sections 3.3 and 4.6 to 4.10.
    """

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
    on_bad: Literal["skip", "stop"] = "skip"
    loss: Literal["mined", "quality"] = "quality"
    box_weight: float = 2.0
    assign: AssignRule = AssignRule(face=0.45, background=0.3, fewest=4, loose=0.25)
    hard_anchors: HardAnchorRule = HardAnchorRule(ratio=3.0)
    augment: AugmentRule = AugmentRule()
    view: Literal["crops", "whole_images"] = "crops"
    shortest: int = 1200
    longest: int = 1600
    flip: bool = True
    frozen: int = 0
    norms: Literal["batch", "fixed"] = "batch"
    distill: float = 0.0
    snip: bool = False
    levels: tuple[Level, ...] = LEVELS
    window: int = 0
    anchors: Literal["own", "paper", "finer"] = "own"
    only_m2: bool = False
    fusion: bool = True
    context: bool = True
    ohem: bool = True

    def plain(self) -> dict[str, Any]:
        """As JSON gives it back, with lists for tuples, so that what was stored compares equal. By Python's own JSON:
        msgspec's has no infinity."""
        table: dict[str, Any] = json.loads(json.dumps(to_builtins(self)))
        return table

    def spec(self) -> ModelSpec:
        """The named network with the ablations that are switched on."""
        spec = replace(SPECS[self.model], branches=self.branches, context=self.context)
        if self.anchors != "own":
            spec = replace(spec, sizes=PAPER_SIZES if self.anchors == "paper" else FINER_SIZES)
        if not self.fusion:
            spec = replace(spec, fusion=0, pyramid=False)
        if self.only_m2:  # "all anchor scales in {M1, M3} are moved to M2"
            every = tuple(size for sizes in spec.sizes for size in sizes)
            spec = replace(spec, strides=(16,), sizes=(every,), heads=spec.heads[1:2], pyramid=False)
        return spec


_SOLVER: dict[str, Any] = {
    "optimizer": "sgd", "lr": 0.004, "weight_decay": 5e-4, "momentum": 0.9, "schedule": "step", "warmup": 0,
    "clip": 0.0, "ema": 0.0, "loss": "mined", "box_weight": 1.0, "assign": AssignRule(inside=1.0),
    "hard_anchors": HardAnchorRule(),
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {
    "vgg16": {
        **_SOLVER, "steps": 21_000, "batch": 4, "view": "whole_images", "shortest": 1200, "longest": 1600, "frozen": 5,
        "sizes": (512,),
    },
    "narrow": {**_SOLVER, "steps": 3000, "batch": 8, "sizes": (256,), "warmup": 100, "clip": 10.0},
}  # fmt: skip


def stored_config(table: dict[str, Any]) -> TrainConfig:
    """The settings in a checkpoint, which an earlier version may have written: renamed keys are
    understood, missing ones have their defaults. Raises Wrong for what no version had."""
    table = {key: dict(value) if isinstance(value, dict) else value for key, value in table.items()}
    for old, new in RENAMED.items():
        holder, key = _holder(table, old)
        if key in holder:
            holder[new.rpartition(".")[2]] = holder.pop(key)
    for (key, old), new in RENAMED_VALUES.items():
        if table.get(key) == old:
            table[key] = new
    return checked(table, TrainConfig)


def _holder(table: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """The table that would hold a dotted key, and the key there."""
    section, _, key = path.rpartition(".")
    inner = table.get(section, {}) if section else table
    return (inner if isinstance(inner, dict) else {}), key


def recipe(model: str, **changes: Any) -> TrainConfig:
    """The named model's settings with `changes` on top. BadConfig names a key or value that is not valid."""
    if model not in SPECS:
        raise BadConfig(f"unknown model {model!r}", "--model", "one of " + ", ".join(SPECS))
    for old, new in RENAMED.items():
        holder, key = _holder(changes, old)
        if key in holder:
            raise BadConfig("was renamed", f"training setting {old}", f"use {new}")
    for key, rule in (("assign", AssignRule), ("hard_anchors", HardAnchorRule), ("augment", AugmentRule)):
        given = changes.get(key)
        known = {field.name for field in fields(rule)}
        for name in given if isinstance(given, dict) else ():
            if name not in known:
                raise BadConfig("unknown key", f"training setting {key}.{name}", "one of " + ", ".join(sorted(known)))
    base = RECIPES.get(model, {})
    if changes.get("snip"):  # SNIP's invalid faces are ignored by IoU alone: what lies inside one is background
        rule = base.get("assign", TrainConfig().assign)
        base = {**base, "view": "whole_images", "batch": 4, "assign": replace(rule, inside=1.0)}
    try:
        config = checked({"model": model, **base, **changes}, TrainConfig)
    except Wrong as e:
        raise BadConfig(e.why, f"training setting {e.key}") from None
    if config.snip and config.view != "whole_images":
        raise BadConfig("SNIP shows whole pictures at its levels", "training setting view", "leave it out")
    if config.frozen and SPECS[model].backbone == "plain":
        raise BadConfig("only VGG-16 and MobileNet can be fixed in part", "training setting frozen", "leave it out")
    if config.norms == "fixed" and (config.branches or SPECS[model].backbone == "vgg16"):
        raise BadConfig("only norms without side branches can be fixed", "training setting norms", "set branches=false")
    return config
