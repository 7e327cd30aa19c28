"""Checkpoints of a run: weights, averaged weights and optimizer moments in safetensors, written atomically, never pickled.

`checkpoints/step_000200.safetensors` holds the weights as trained; `checkpoints/optimizer_000200.safetensors` the moments, the averaged
weights and, in its metadata, step and settings. A checkpoint counts only when both files exist.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flow3r_ros.errors import OutputError, TrainingError

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, average: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, settings: str, keep: int
) -> Path:
    """Write the state after `step` steps and remove all but the newest `keep` checkpoints. Raises OutputError on a full disk."""
    state: dict[str, Tensor] = {f"average.{name}": value for name, value in average.items()}
    for name, parameter in model.named_parameters():
        moments = optimizer.state.get(parameter, {})
        state.update({f"{key}.{name}": moments[key] for key in _MOMENTS if key in moments})
    path = folder / f"step_{step:06d}.safetensors"
    write_safetensors(folder / f"optimizer_{step:06d}.safetensors", state, {"step": str(step), "settings": settings})
    write_safetensors(path, dict(model.state_dict()), {"step": str(step)})
    for old in checkpoint_steps(folder)[:-keep]:
        for kind in ("step", "optimizer"):
            (folder / f"{kind}_{old:06d}.safetensors").unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path, model: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> int:
    """Restore the newest checkpoint in place and return its step. Raises TrainingError when there is none or it does not fit."""
    steps = checkpoint_steps(folder)
    if not steps:
        raise TrainingError(f"{folder} holds no checkpoint to resume from", "train without --resume first")
    weights = folder / f"step_{steps[-1]:06d}.safetensors"
    moments = folder / f"optimizer_{steps[-1]:06d}.safetensors"
    try:
        model.load_state_dict(load_file(weights))
        with safe_open(moments, framework="pt") as file:
            names = set(file.keys())
            for name, parameter in model.named_parameters():
                if f"exp_avg.{name}" in names:
                    optimizer.state[parameter] = {key: file.get_tensor(f"{key}.{name}") for key in _MOMENTS}
            for name in average:
                average[name].copy_(file.get_tensor(f"average.{name}"))
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise TrainingError(f"{weights}: does not fit this run ({reason})", "resume with the settings it was made with") from error
    return steps[-1]


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder, ascending."""
    found = (re.fullmatch(r"step_(\d+)\.safetensors", path.name) for path in folder.glob("step_*.safetensors"))
    steps = sorted(int(match[1]) for match in found if match)
    return [step for step in steps if (folder / f"optimizer_{step:06d}.safetensors").exists()]


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write under a temporary name, flush, rename. Raises OutputError when the disk is full or the folder cannot be written."""
    temporary = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary, metadata)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error})", "free disk space or choose another --output") from error
