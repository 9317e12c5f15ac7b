"""Checkpoints: weights as safetensors with their spec in the header, training state beside them.

Neither needs pickle to load, so a downloaded file cannot run code.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from facestream.engines.errors import BadInput
from facestream.train.model import SSH, Deploy, ModelSpec
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file


def save_weights(path: Path, model: SSH, note: dict[str, Any]) -> None:
    """Write the model's weights, its spec and a note (config, step, ...) to one .safetensors file."""
    meta = {"spec": json.dumps(model.spec.as_dict()), "note": json.dumps(note)}
    part = path.with_name(path.name + ".part")
    save_file({k: v.cpu().contiguous() for k, v in model.state_dict().items()}, part, meta)
    os.replace(part, path)


def load_weights(path: Path) -> tuple[SSH, dict[str, Any]]:
    """The model and the note of a file written by `save_weights`. BadInput when it is not one."""
    if not path.is_file():
        raise BadInput("not found", str(path), "train one with: python -m train --data DIR")
    try:
        with safe_open(path, "pt") as f:
            meta = f.metadata() or {}
            model = SSH(ModelSpec.from_dict(json.loads(meta["spec"])))
            model.load_state_dict({k: f.get_tensor(k) for k in f.keys()})  # noqa: SIM118
    except (SafetensorError, KeyError, RuntimeError, TypeError, json.JSONDecodeError) as e:
        raise BadInput(f"not weights of this project ({type(e).__name__})", str(path)) from None
    return model.eval(), json.loads(meta.get("note", "{}"))


def load_deploy(path: Path) -> Deploy:
    """A file of `save_weights` as the graph that ships, with its calibration where it has one."""
    model, note = load_weights(path)
    calibration = note.get("calibration", {"gain": 1.0, "shift": 0.0})
    return Deploy(model, (calibration["gain"], calibration["shift"])).eval()


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write what a run needs to go on. The rename makes a kill at any moment leave the last whole state."""
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    os.replace(part, path)


def load_state(path: Path, what: str = "a training state") -> dict[str, Any]:
    """Read a file of torch.save; tensors and plain values only."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        raise BadInput(f"not {what} ({type(e).__name__})", str(path)) from None
    return state
