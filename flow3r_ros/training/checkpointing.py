"""Checkpoints of a run: weights, averaged weights and optimizer moments in safetensors, written
atomically, never pickled.

`checkpoints/step_000200.safetensors` holds the weights as trained;
`checkpoints/optimizer_000200.safetensors` the moments, the averaged weights and, in its metadata,
step and settings. A checkpoint counts only when both files exist.
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

from flow3r_ros.errors import OutputError, TrainingError, cause_of
from flow3r_ros.paths import readable
from flow3r_ros.training.sharding import gather, placed_like, restore

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    settings: str,
    keep: int,
    base: str = "",
    write: bool = True,
    seconds: float = 0.0,
) -> Path:
    """Write the state after `step` steps, which took `seconds`, and remove all but the newest
    `keep` checkpoints.

    Raises OutputError on a full disk.
    With `base`, the sha256 of the weights started from, frozen parameters are left out: they are in
    that model's folder. All processes of a sharded run must call this; those without `write` only
    give their share.
    """
    moments: dict[str, Tensor] = {f"average.{name}": value for name, value in average.items()}
    for name, parameter in model.named_parameters():
        known = optimizer.state.get(parameter, {})
        moments.update({f"{key}.{name}": known[key] for key in _MOMENTS if key in known})
    omitted = _frozen(model) if base else set()
    weights = gather(
        {name: value for name, value in model.state_dict().items() if name not in omitted}
    )
    moments = gather(moments)
    facts = {"step": str(step), "settings": settings, "base": base, "seconds": f"{seconds:.1f}"}
    path = folder / f"step_{step:06d}.safetensors"
    if not write:
        return path
    write_safetensors(folder / f"optimizer_{step:06d}.safetensors", moments, facts)
    write_safetensors(path, weights, {"step": str(step)})
    for old in checkpoint_steps(folder)[:-keep]:
        for kind in ("step", "optimizer"):
            (folder / f"{kind}_{old:06d}.safetensors").unlink(missing_ok=True)
    return path


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    base: str = "",
) -> int:
    """Restore the newest checkpoint in place and return its step. Raises TrainingError when there
    is none or it does not fit."""
    steps = checkpoint_steps(folder)
    if not steps:
        raise TrainingError(
            f"{folder} holds no checkpoint to resume from", "train without --resume first"
        )
    weights = folder / f"step_{steps[-1]:06d}.safetensors"
    moments = folder / f"optimizer_{steps[-1]:06d}.safetensors"
    try:
        values, state = load_file(weights), model.state_dict()
        wanted = state.keys() - (_frozen(model) if base else set())
        if different := sorted(wanted ^ values.keys()):
            raise RuntimeError(
                f"{len(different)} tensors missing or unexpected, the first is {different[0]}"
            )
        restore(state, values)
        with safe_open(moments, framework="pt") as file:
            if (file.metadata() or {}).get("base", "") != base:
                raise RuntimeError("the model it started from has other weights now")
            names = set(file.keys())
            for name, parameter in model.named_parameters():
                if f"exp_avg.{name}" in names:
                    optimizer.state[parameter] = {
                        key: value if key == "step" else placed_like(value, parameter.data)
                        for key, value in (
                            (key, file.get_tensor(f"{key}.{name}")) for key in _MOMENTS
                        )
                    }
            restore(average, {name: file.get_tensor(f"average.{name}") for name in average})
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise TrainingError(
            f"{weights}: does not fit this run ({reason})",
            "resume with the settings it was made with, or remove this checkpoint to "
            "go on from the one before",
        ) from error
    return steps[-1]


def seconds_of(folder: Path) -> float:
    """How long the steps up to the newest checkpoint took."""
    with safe_open(
        folder / f"optimizer_{checkpoint_steps(folder)[-1]:06d}.safetensors", framework="pt"
    ) as file:
        return float((file.metadata() or {}).get("seconds", 0.0))


def _frozen(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder, ascending."""
    found = (
        re.fullmatch(r"step_(\d+)\.safetensors", path.name)
        for path in folder.glob("step_*.safetensors")
    )
    steps = sorted(int(match[1]) for match in found if match)
    return [step for step in steps if (folder / f"optimizer_{step:06d}.safetensors").exists()]


def write_safetensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write under a temporary name, flush, rename. Raises OutputError when the disk is full or the
    folder cannot be written."""
    temporary = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with readable(temporary):
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
                temporary,
                metadata,
            )
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: cannot be written ({cause_of(error)})",
            "free disk space or choose another --output",
        ) from error
