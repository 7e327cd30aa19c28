"""What of a network learns: everything, some named parts, or low-rank adapters beside frozen
matrices (LoRA, arXiv 2106.09685).

An adapted layer answers W x + b + (alpha / rank) U D x with D small random and U zero, so training
starts at the base network exactly. `merged` folds U D into W again: what leaves the training has
the state-dict keys it came with.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flow3r_ros.errors import TrainingError
from flow3r_ros.network.blocks import Block
from flow3r_ros.network.efficientnet_lite import (
    STRIDE_8_BLOCKS,
    ConvolutionalPatchEmbedding,
    EfficientNetLite0,
)
from flow3r_ros.network.model import Flow3r
from flow3r_ros.training.train_config import Adapters, Optimisation, TrainSettings

_DOWN, _UP = "adapter_down", "adapter_up"


class AdaptedLinear(nn.Linear):
    """A linear layer that keeps the base layer's parameters, under their names, and adds a change
    of low rank."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base.in_features, base.out_features, base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.gain = alpha / rank
        self.adapter_down = nn.Parameter(
            torch.randn(rank, base.in_features) * base.in_features**-0.5
        )
        self.adapter_up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, tokens: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        return super().forward(tokens) + self.gain * F.linear(
            F.linear(tokens, self.adapter_down), self.adapter_up
        )


def prepare(network: Flow3r, settings: TrainSettings) -> None:
    """Add adapters, freeze what shall not learn, and choose what the backward pass recomputes; in
    place.

    Raises TrainingError for a `train_only` name that fits no parameter.
    """
    if settings.adapters is not None:
        _adapt(network, settings.adapters)
    if settings.adapters is not None or settings.train_only:
        _freeze(network, settings.train_only)
    embedding = network.encoder.patch_embed
    if isinstance(embedding, ConvolutionalPatchEmbedding):
        _freeze_trunk(embedding.trunk, settings.optimisation)
    if settings.activation_checkpointing:
        for module in network.modules():
            if isinstance(module, Block):
                module.recompute = True


def merged(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of `network` with every adapter folded into its matrix, and without adapters."""
    folded = {name: value for name, value in state.items() if not name.endswith((_DOWN, _UP))}
    for name, module in network.named_modules():
        if isinstance(module, AdaptedLinear):
            weight = folded[f"{name}.weight"]
            change = state[f"{name}.{_UP}"].float() @ state[f"{name}.{_DOWN}"].float()
            folded[f"{name}.weight"] = weight + (module.gain * change).to(
                weight.device, weight.dtype
            )
    return folded


def _adapt(network: Flow3r, adapters: Adapters) -> None:
    """Replace the chosen layers of the chosen stacks."""
    for part in adapters.parts:
        blocks = [
            module for module in getattr(network, part).modules() if isinstance(module, Block)
        ]
        for block in blocks:
            for layer in adapters.layers:
                holder, name = layer.split(".")
                base = block.get_submodule(layer)
                assert isinstance(base, nn.Linear)
                setattr(
                    block.get_submodule(holder),
                    name,
                    AdaptedLinear(base, adapters.rank, adapters.alpha),
                )


def _freeze(network: nn.Module, patterns: tuple[str, ...]) -> None:
    """Let only adapters and the parameters that a pattern names learn."""
    names = [name for name, _ in network.named_parameters()]
    for pattern in patterns:
        if not any(_names(pattern, name) for name in names):
            parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise TrainingError(
                f"train_only: {pattern} names no parameter of this network",
                f"its parts are {parts}",
            )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(
            name.endswith((_DOWN, _UP)) or any(_names(pattern, name) for pattern in patterns)
        )


def _freeze_trunk(trunk: EfficientNetLite0, settings: Optimisation) -> None:
    """Freeze what does not learn at all (no gradient is computed for it then)."""
    if settings.trunk_factor == 0:
        trunk.requires_grad_(False)
    elif settings.freeze_to_stride_8:
        for part in (trunk.stem, *trunk.blocks[:STRIDE_8_BLOCKS]):
            part.requires_grad_(False)


def _names(pattern: str, name: str) -> bool:
    """Is `name` the parameter, or in the part, that the pattern describes?"""
    return (
        name == pattern
        or name.startswith(f"{pattern}.")
        or fnmatchcase(name, pattern)
        or fnmatchcase(name, f"{pattern}.*")
    )
