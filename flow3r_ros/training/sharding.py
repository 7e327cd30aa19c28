"""How several processes share a run: nothing to share, gradients only (DDP), or the network too
(FSDP), all through Fabric.

Fabric's own `fsdp` strategy refuses CPUs, so FSDP goes through its `ModelParallelStrategy` and
PyTorch's `fully_shard`, block by block, which runs on gloo as well: what is tested on two CPU
processes is what runs on GPUs. Tensors of a sharded network are `DTensor`s.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from flow3r_ros.errors import TrainingError
from flow3r_ros.network.blocks import Block
from flow3r_ros.training.train_config import TrainSettings

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import ModelParallelStrategy


def launch(settings: TrainSettings) -> Fabric:
    """One process, or this one of those that `torchrun` started. Raises TrainingError when the
    clips cannot be shared evenly."""
    # it takes five seconds to import, and those who only read shards or score need none of it
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import ModelParallelStrategy

    world, local = (
        int(os.environ.get("WORLD_SIZE", "1")),
        int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
    )
    if settings.clips_per_step % world:
        raise TrainingError(
            f"{settings.clips_per_step} clips per step cannot be shared by {world} processes",
            "change clips_per_step",
        )
    strategy: str | ModelParallelStrategy = (
        "auto" if world == 1 else "ddp_find_unused_parameters_true"
    )
    if world > 1 and settings.strategy == "fsdp":
        strategy = ModelParallelStrategy(_shard, data_parallel_size=world, tensor_parallel_size=1)
    fabric = Fabric(
        accelerator="auto",
        devices=local,
        num_nodes=world // local,
        strategy=strategy,
        precision=settings.precision,
    )
    fabric.launch()
    return fabric


def _shard(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Every block is gathered when it runs and let go again; the rest is gathered for a forward as
    a whole."""
    processes = mesh["data_parallel"]
    for module in network.modules():
        if isinstance(module, Block):
            fully_shard(module, mesh=processes, reshard_after_forward=True)
    fully_shard(network, mesh=processes, reshard_after_forward=True)
    return network


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be shared among processes; all of them must call this in the
    same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on the CPU; all processes must call this."""
    return {name: whole(value.detach()).cpu() for name, value in tensors.items()}


def placed_like(value: Tensor, target: Tensor) -> Tensor:
    """`value` on the device of `target`, and cut as it is."""
    if isinstance(target, DTensor):
        return distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
    return value.to(target.device)


@torch.no_grad()
def restore(state: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy whole `values` into the tensors of the same names, which may be shared. Raises
    RuntimeError where a shape differs."""
    for name, value in values.items():
        if state[name].shape != value.shape:
            raise RuntimeError(
                f"{name} has shape {list(value.shape)}, not {list(state[name].shape)}"
            )
        state[name].copy_(placed_like(value, state[name]))
