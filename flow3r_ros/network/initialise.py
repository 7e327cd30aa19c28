"""Initial weights: the official ones (reference section 14), and ones that leave the plateau when
training from scratch.

`scratch` follows the measurements in the project's small-checkpoint study: heads with Xavier
weights and zero biases (PyTorch's defaults let no gradient reach the decoder), position embeddings
of amplitude 1, flow starting at zero motion, poses at the prior.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flow3r_ros.network.efficientnet_lite import ConvolutionalPatchEmbedding
from flow3r_ros.network.encoder import Encoder


def initialise_encoder(encoder: Encoder) -> None:
    """Official: truncated normal linear weights and positions (0.02), zero biases, class and
    register tokens almost zero."""
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(encoder.pos_embed, std=0.02)
    nn.init.normal_(encoder.cls_token, std=1e-6)
    nn.init.normal_(encoder.register_tokens, std=1e-6)


def initialise_from_scratch(model: nn.Module) -> None:
    """Re-initialise a whole network for training without pretrained transformer weights (the
    convolutional trunk is left alone)."""
    trunk = {
        module
        for part in model.modules()
        if isinstance(part, ConvolutionalPatchEmbedding)
        for module in part.trunk.modules()
    }
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and module not in trunk:
            _xavier(module)
    encoder = model.encoder
    assert isinstance(encoder, Encoder)
    with torch.no_grad():
        encoder.pos_embed[:, 1:] = sincos_positions(encoder.grid, encoder.pos_embed.shape[-1])
    nn.init.normal_(encoder.cls_token, std=0.02)
    nn.init.normal_(encoder.register_tokens, std=0.02)


def _xavier(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def sincos_positions(grid: int, width: int) -> Tensor:
    """Sin-cos position rows of amplitude 1, float32 `[grid * grid, width]` (first half y, second
    half x)."""
    quarter = width // 4
    omega = 100.0 ** (-torch.arange(quarter, dtype=torch.float32) / quarter)
    angle = torch.arange(grid, dtype=torch.float32)[:, None] * omega
    axis = torch.cat([angle.sin(), angle.cos()], dim=-1)
    y, x = axis[:, None].expand(-1, grid, -1), axis[None].expand(grid, -1, -1)
    return torch.cat([y, x], dim=-1).reshape(grid * grid, -1)
