"""How weights move: AdamW over groups, its rate over the steps, clipped gradients, and the running
average that is saved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from flow3r_ros.network.efficientnet_lite import ConvolutionalPatchEmbedding
from flow3r_ros.network.model import Flow3r
from flow3r_ros.training.sharding import whole
from flow3r_ros.training.train_config import Optimisation


def learning_rate(settings: Optimisation, steps: int, step: int) -> float:
    """Rate at a step (from 0): linear warm-up, constant, then to zero over the last `decay_share`
    of the steps (all: cosine at once)."""
    warm = min(1.0, (step + 1) / max(settings.warmup_steps, 1))
    left = min(1.0, (steps - step) / max(settings.decay_share * steps, 1.0))
    cool = left if settings.decay == "linear" else 0.5 * (1.0 - math.cos(math.pi * left))
    return settings.learning_rate * warm * cool


def make_optimizer(network: Flow3r, settings: Optimisation) -> torch.optim.AdamW:
    """AdamW over four groups: trunk or not, decayed or not (biases, norms and tokens are not)."""
    embedding = network.encoder.patch_embed
    trunk = (
        set(embedding.trunk.parameters())
        if isinstance(embedding, ConvolutionalPatchEmbedding)
        else set()
    )
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not any(word in name for word in ("token", "pos_embed"))
            groups.setdefault((parameter in trunk, decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "factor": settings.trunk_factor if in_trunk else 1.0,
                "weight_decay": settings.weight_decay if decays else 0.0,
            }
            for (in_trunk, decays), parameters in groups.items()
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.95),
    )


def clip_gradients(model: nn.Module, limit: float) -> float:
    """Clip the camera head, the flow head and everything else apart, so that one head's spikes do
    not stop the rest; the whole norm."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            head = next((part for part in ("camera_head", "flow_head") if part in name), "rest")
            groups.setdefault(head, []).append(parameter)
    norms = [nn.utils.clip_grad_norm_(parameters, limit) for parameters in groups.values()]
    return float(torch.stack([whole(norm) for norm in norms]).norm())


def averages_of(network: nn.Module) -> dict[str, Tensor]:
    """Where the averaged weights start: a copy of everything that may change."""
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    state = network.state_dict().items()
    return {
        name: value.detach().clone()
        for name, value in state
        if value.is_floating_point() and name not in frozen
    }


@torch.no_grad()
def follow(average: dict[str, Tensor], network: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average with the usual warm-up (1 + t) / (10 + t)."""
    weight = 1.0 - min(decay, (1 + step) / (10 + step))
    state = network.state_dict()
    for name, value in average.items():
        value.lerp_(state[name].to(value.device), weight)


@contextmanager
def averaged(network: Flow3r, average: dict[str, Tensor]) -> Iterator[None]:
    """The network with the averaged weights in place of the trained ones."""
    state = network.state_dict()
    trained = {name: state[name].clone() for name in average}
    try:
        for name, value in average.items():
            state[name].copy_(value)
        yield
    finally:
        for name, value in trained.items():
            state[name].copy_(value)
