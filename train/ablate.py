"""python -m train.ablate --data DIR --steps N: the paper's ablations at a small fixed budget, beside its numbers.

Every variant is trained with each seed and evaluated once; finished ones are kept, so an interrupted run continues.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click
import torch
from facestream.engines.command import finish
from facestream.engines.errors import BadConfig
from facestream.engines.options import DetectorOptions
from facestream.engines.torch_engine import TorchDetector
from facestream.train.__main__ import settings
from facestream.train.assign import AssignRule
from facestream.train.checkpoint import load_weights
from facestream.train.config import RECIPES, TrainConfig, recipe
from facestream.train.data import read_split, usable
from facestream.train.dataset_issues import DatasetIssues
from facestream.train.evaluate import measure
from facestream.train.loop import Run
from facestream.train.loss import HardAnchorRule
from facestream.train.model import Deploy
from facestream.train.pretrained import init_backbone
from facestream.train.snip import LEVELS
from facestream.train.test_scales import InputSize, Scales
from facestream.train.wider import read_validation

log = logging.getLogger("facestream.train.ablate")

ANY = tuple(replace(level, low=0.0, high=1e9) for level in LEVELS)


@dataclass(frozen=True, slots=True)
class Variant:
    """A row of the table. change: its training settings; scales: its test scales; of: the variant whose weights it uses
    (its own if trained). section and paper: the paper's statement about AP on WIDER's hard subset, and where; sign:
    direction of AP's change from `beside` there, +1 or -1, 0 if not stated."""

    name: str
    section: str
    paper: str
    sign: int
    change: dict[str, Any] = field(default_factory=dict)
    scales: Scales = Scales()  # noqa: RUF009
    of: str = ""
    beside: str = "ssh"


def sized(first: int, second: int, paper: str, sign: int) -> Variant:
    """A variant trained and evaluated at another input size (table 3)."""
    change = {"view": "whole_images", "shortest": first, "longest": second}
    return Variant(
        f"{first}x{second}", "4.7", paper, sign, change, Scales(InputSize(first, second)), beside="1200x1600"
    )


VARIANTS = {
    v.name: v
    for v in (
        Variant("ssh", "4.1", "81.4", 0),
        Variant("only-m2", "4.6", "-12.8 (68.6)", -1, {"only_m2": True}),
        Variant("no-ohem", "4.8", "lower (figure 7b)", -1, {"ohem": False}),
        Variant("no-fusion", "4.9", "lower (figure 7c)", -1, {"fusion": False}),
        Variant("finer-anchors", "4.10", "lower (figure 7d)", -1, {"anchors": "finer"}),
        Variant("no-context", "3.3", "more than 0.5 lower", -1, {"context": False}),
        Variant("pyramid", "4.3", "+3.1 (84.5)", 1, scales=Scales(pyramid=True), of="ssh"),
        # SNIP against the same three resolutions without ranges, in training and at test
        Variant(
            "multi-scale",
            "SNIP",
            "no figure for faces",
            0,
            {"snip": True, "levels": ANY},
            Scales(levels=ANY, soft=True),
        ),
        Variant("snip", "SNIP", "higher", 1, {"snip": True}, Scales(levels=LEVELS, soft=True), beside="multi-scale"),
        sized(600, 1000, "68.6", -1),
        sized(800, 1200, "78.4", -1),
        sized(1200, 1600, "81.4", 0),
        sized(1400, 1800, "81.0", -1),
    )
}
USUAL = [name for name in VARIANTS if "x" not in name]  # sizes cost as much as all others together


def settings_of(variant: Variant, model: str, steps: int, seed: int, more: dict[str, Any]) -> TrainConfig:
    """The paper's losses, assignment and anchors on any model, and the variant's change."""
    base: dict[str, Any] = {}
    if model not in RECIPES:
        base = {"loss": "mined", "box_weight": 1.0, "hard_anchors": HardAnchorRule(), "assign": AssignRule(inside=1.0),
                "anchors": "paper", "branches": False, "sizes": (256,), "batch": 16}  # fmt: skip
    if "levels" in variant.change or variant.name == "snip":
        more = {k: v for k, v in more.items() if k not in ("batch", "sizes", "view")}
        if model != "vgg16":
            base |= {"batch": 4, "window": 512}  # the pixels of 16 crops of 256
    elif "shortest" in variant.change:
        base["batch"] = 4
    return recipe(model, **{**base, **more, **variant.change, "steps": steps, "seed": seed})


def run_one(
    variant: Variant, seed: int, config: TrainConfig, data: Path, out: Path, workers: int, device: str,
    backbone: Path | None, limit: int,
) -> dict[str, Any]:  # fmt: skip
    """Train and evaluate what is missing; returns the results."""
    folder = out / f"{variant.name}-seed{seed}"
    kept = folder / "result.json"
    about = config.plain()
    if kept.is_file():
        result: dict[str, Any] = json.loads(kept.read_text())
        if result["config"] != about or result["limit"] != limit:
            raise BadConfig("holds results of other settings", str(folder), "give another --out")
        return result
    trained = out / f"{variant.of or variant.name}-seed{seed}"
    state = trained / "state.pt"
    if not (trained / "done").is_file():
        issues = DatasetIssues(config.on_bad == "stop")
        images = usable(read_split(data, "train", issues), issues)
        run = Run(config, images, trained, state.is_file(), workers, device)
        if backbone is not None and run.step == 0:
            init_backbone(backbone, run.models())
        run.train()
        (trained / "done").touch()
    options = DetectorOptions(threshold=0.01, nms_iou=0.3)
    detector = TorchDetector(Deploy(load_weights(trained / "weights.safetensors")[0]), options, device)
    sets = {name: items[: limit or None] for name, items in read_validation(data).items()}
    figures, _, _ = measure(detector, sets, variant.scales, 0.25)
    result = {"config": about, "limit": limit, **figures}
    folder.mkdir(parents=True, exist_ok=True)
    part = kept.with_name("result.json.part")
    part.write_text(json.dumps(result))
    part.replace(kept)
    return result


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: the paper's AP or its change, ours with its spread over seeds, and whether the order is the paper's."""
    ap = {name: [100 * list(r["ap"].values())[-1] for r in rows] for name, rows in results.items()}
    lines = ["| variant | section | paper, WIDER hard | AP here | change | missed under 20 px | ms an image | order |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, rows in results.items():
        v = VARIANTS[name]
        spread = f" ± {stdev(ap[name]):.1f}" if len(rows) > 1 else ""
        small = [r["miss_rate"]["0-20"] for r in rows if "0-20" in r["miss_rate"]]
        change = ""
        word = ""
        if v.beside in ap and v.beside != name:
            delta = mean(ap[name]) - mean(ap[v.beside])
            change = f"{delta:+.1f}"
            word = verdict(delta, v.sign, ap[name], ap[v.beside])
        lines.append(
            f"| {name} | {v.section} | {v.paper} | {mean(ap[name]):.1f}{spread} | {change} | "
            f"{f'{100 * mean(small):.1f} %' if small else ''} | {mean(r['ms_per_image'] for r in rows):.0f} | {word} |"
        )
    return "\n".join(lines)


def verdict(delta: float, sign: int, ours: list[float], base: list[float]) -> str:
    """Whether the order agrees with the paper's; a difference within the seeds' spread is inconclusive."""
    if not sign:
        return ""
    noise = max(stdev(x) if len(x) > 1 else 0.0 for x in (ours, base))
    if abs(delta) <= noise:
        return "within the spread of the seeds"
    return "as in the paper" if (delta > 0) == (sign > 0) else "against the paper"


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="folder in WIDER FACE's layout")
@click.option("--steps", type=int, required=True, help="steps of every training")
@click.option("--seeds", default=1, show_default=True, help="trainings per variant")
@click.option("--only", multiple=True, metavar="NAME", help=f"of {', '.join(VARIANTS)}; ssh is always included")
@click.option("--model", default="plainM", show_default=True, help="plainM, narrow, vgg16 or another")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/ablate"), show_default=True)
@click.option("--backbone", type=click.Path(path_type=Path), help="initial weights of every backbone")
@click.option("--limit", default=0, help="evaluate on the first N validation images only")
@click.option("--workers", default=1, show_default=True)
@click.option("--threads", default=0, help="training threads; 0: all cores")
@click.option("--device", default="auto", show_default=True)
@click.option("--set", "change", multiple=True, metavar="KEY=VALUE", help="a setting of every training")
def command(
    data: Path, steps: int, seeds: int, only: tuple[str, ...], model: str, out: Path, backbone: Path | None,
    limit: int, workers: int, threads: int, device: str, change: tuple[str, ...],
) -> None:  # fmt: skip
    """Train each ablation for --steps, with each seed, and print the table."""
    unknown = [name for name in only if name not in VARIANTS]
    if unknown:
        raise BadConfig(f"unknown variant {unknown[0]!r}", "--only", "one of " + ", ".join(VARIANTS))
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = set(only or USUAL)
    wanted |= {VARIANTS[name].beside for name in wanted} | {VARIANTS[name].of for name in wanted if VARIANTS[name].of}
    names = [name for name in VARIANTS if name in wanted]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    more = settings(change)
    for seed in range(seeds):  # a whole table first, then its spread
        for name in names:
            variant = VARIANTS[name]
            config = settings_of(VARIANTS[variant.of] if variant.of else variant, model, steps, seed, more)
            log.info("%s, seed %d", name, seed)
            results[name].append(run_one(variant, seed, config, data, out, workers, device, backbone, limit))
            text = table({n: rows for n, rows in results.items() if rows})
            (out / "table.md").write_text(text + "\n")
    print(f"\n{model}, {steps} steps, {seeds} seeds, {device}\n{text}")


if __name__ == "__main__":
    finish(command, "ablate", "interrupted; the same command goes on")
