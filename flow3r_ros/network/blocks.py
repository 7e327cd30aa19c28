"""The transformer block shared by all five stacks (reference section 4): pre-norm attention and
MLP, optional LayerScale."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flow3r_ros.network.config import StackConfig
from flow3r_ros.network.rope import Rotation, rotate

SMALL = 1024 * 1024
"""entries of an attention matrix up to which it may be held in memory for speed"""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(h)) v over `[B, heads, tokens, h]`; the one place where the kernel is
    chosen.

    On the CPU the textbook form is used with gradients (at head dim 64 it trained 2.4-4.5 times
    faster than the fused kernel) and, while its matrix is small, in bfloat16 (1.4-1.8 times faster
    at 113 and 452 tokens on an EPYC core).
    """
    learning = torch.is_grad_enabled() and query.requires_grad
    small = query.dtype is torch.bfloat16 and query.shape[-2] * key.shape[-2] <= SMALL
    if query.device.type == "cpu" and (learning or small):
        weights: Tensor = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        return weights.softmax(dim=-1).to(value.dtype) @ value
    return F.scaled_dot_product_attention(query, key, value)


class Attention(nn.Module):
    """Multi-head self-attention with optional q/k LayerNorm over the head dimension and optional
    RoPE."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        head_dim = config.width // config.heads
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)
        self.q_norm = (
            nn.LayerNorm(head_dim, eps=config.qk_norm_eps) if config.qk_norm else nn.Identity()
        )
        self.k_norm = (
            nn.LayerNorm(head_dim, eps=config.qk_norm_eps) if config.qk_norm else nn.Identity()
        )

    def forward(
        self, tokens: Tensor, turn: Rotation | None, asking: Tensor | None = None
    ) -> Tensor:
        """Attend among `tokens [B, T, width]`; with token indices `asking [A]` only those ask and
        are answered, `[B, A, width]`."""
        batch, count, width = tokens.shape
        query, key, value = (
            self.qkv(tokens).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        query = query if asking is None else query[:, :, asking]
        query, key = self.q_norm(query), self.k_norm(key)
        if turn is not None:
            query, key = (
                rotate(query, turn if asking is None else turn.of(asking)),
                rotate(key, turn),
            )
        mixed = attend(query.to(value.dtype), key.to(value.dtype), value)
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, -1, width))
        return projected


class Mlp(nn.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token-wise, `[..., width]` to `[..., width]`."""
        out: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return out


class LayerScale(nn.Module):
    """A learned gain per channel."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), initial))

    def forward(self, tokens: Tensor) -> Tensor:
        """Scale `[..., width]`."""
        return tokens * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block; with `recompute` its inside is computed again in the backward
    pass instead of being kept."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.recompute = False
        scale = config.layer_scale
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = Attention(config)
        self.ls1 = nn.Identity() if scale is None else LayerScale(config.width, scale)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = Mlp(config.width, config.mlp_ratio)
        self.ls2 = nn.Identity() if scale is None else LayerScale(config.width, scale)

    def forward(
        self, tokens: Tensor, turn: Rotation | None = None, asking: Tensor | None = None
    ) -> Tensor:
        """`[B, T, width]` to `[B, T, width]`, or to the tokens `asking` (indices `[A]`) alone, `[B,
        A, width]`."""
        if self.recompute and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(self._inside, tokens, turn, asking, use_reentrant=False)
            return recomputed
        return self._inside(tokens, turn, asking)

    def _inside(self, tokens: Tensor, turn: Rotation | None, asking: Tensor | None) -> Tensor:
        attended = self.ls1(self.attn(self.norm1(tokens), turn, asking))
        tokens = (tokens if asking is None else tokens[:, asking]) + attended
        out: Tensor = tokens + self.ls2(self.mlp(self.norm2(tokens)))
        return out
