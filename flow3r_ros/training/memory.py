"""Is there memory for a step? Asked before the first one, because the kernel kills a process that
takes too much without a word.

What a step needs at least: the batches made ahead, and the tensors that the graph keeps for the
backward pass, which are counted in a forward pass of one clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flow3r_ros.errors import TrainingError
from flow3r_ros.training.sample import Batch

BATCHES = 3
"""batches in memory at the same time: one in use, the others ahead of it"""
_CURE = "lower clips_per_step, data.frames or data.grids, or set activation_checkpointing: true"
_CGROUP = Path("/sys/fs/cgroup")


def check_memory(model: nn.Module, one: Batch, clips: int, available: int | None = None) -> None:
    """Raise TrainingError when a step of `clips` clips like the one in the batch `one` cannot fit
    into memory.

    Args:
        available: bytes; None asks the machine, or the GPU that `one` is on.
    """
    needed = clips * (BATCHES * _batch_bytes(one) + _graph_bytes(model, one))
    free = available_bytes(one.images.device) if available is None else available
    if needed > free:
        raise TrainingError(
            f"a step of {clips} clips needs {needed / 1e9:.1f} GB of memory or more, "
            f"{free / 1e9:.1f} GB are free",
            _CURE,
        )


def available_bytes(device: torch.device) -> int:
    """Free memory of a GPU; for the CPU what the kernel could give, within the limit of this
    container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    lines = dict(
        line.split(":", 1)
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    )
    free = int(lines["MemAvailable"].split()[0]) * 1024
    try:
        limit, used = (
            (_CGROUP / name).read_text(encoding="ascii").strip()
            for name in ("memory.max", "memory.current")
        )
    except OSError:
        return free
    return min(free, int(limit) - int(used)) if limit.isdigit() else free


@contextmanager
def enough_memory() -> Iterator[None]:
    """Allocations that fail inside raise TrainingError."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TrainingError(
            "there is too little memory for the batch", f"{_CURE}; then --resume"
        ) from error
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        raise TrainingError(
            "there is too little memory for the batch", f"{_CURE}; then --resume"
        ) from error


def _graph_bytes(model: nn.Module, one: Batch) -> int:
    """Bytes of the distinct tensors, parameters aside, that a forward pass keeps for the backward
    pass."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with enough_memory(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        outputs = model(one.images, one.pairs if one.pairs.shape[1] else None, one.evidence)
    del outputs
    return sum(kept.values())


def _batch_bytes(value: Any) -> int:
    """Bytes of all tensors of a batch, whatever its nesting."""
    return value.nbytes if isinstance(value, Tensor) else sum(_batch_bytes(part) for part in value)
