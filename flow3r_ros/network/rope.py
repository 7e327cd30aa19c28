"""Two-dimensional rotary position embedding (reference section 6): the first half of a head turns
with y, the second with x."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Cosines and sines of every token's angles, float32 `[tokens, head_dim]` each."""

    cos: Tensor
    sin: Tensor

    def repeat(self, frames: int) -> Rotation:
        """The same rotations for the tokens of `frames` frames one after the other."""
        return Rotation(self.cos.repeat(frames, 1), self.sin.repeat(frames, 1))

    def of(self, tokens: Tensor) -> Rotation:
        """The rotations of some tokens, by index."""
        return Rotation(self.cos[tokens], self.sin[tokens])


def token_positions(rows: int, columns: int, registers: int, device: torch.device) -> Tensor:
    """Integer (y, x) of one frame's tokens, int64 `[registers + rows * columns, 2]`: registers (0,
    0), patches from (1, 1)."""
    y, x = torch.meshgrid(
        torch.arange(1, rows + 1, device=device),
        torch.arange(1, columns + 1, device=device),
        indexing="ij",
    )
    patches = torch.stack([y, x], dim=-1).reshape(-1, 2)
    return torch.cat([patches.new_zeros(registers, 2), patches])


def rotation(positions: Tensor, head_dim: int, base: float) -> Rotation:
    """Rotations of tokens at `positions` int64 `[tokens, 2]` (y, x); angles are always formed in
    float32."""
    per_axis = head_dim // 2
    exponent = torch.arange(0, per_axis, 2, device=positions.device, dtype=torch.float32) / per_axis
    angles = positions.to(torch.float32)[:, :, None] * (1.0 / base**exponent)
    angles = torch.cat([angles, angles], dim=-1).flatten(1)
    return Rotation(angles.cos(), angles.sin())


def rotate(tokens: Tensor, turn: Rotation) -> Tensor:
    """Turn queries or keys `[B, heads, tokens, head_dim]`; computed in float32, returned in
    float32."""
    tokens = tokens.float()
    y1, y2, x1, x2 = tokens.chunk(4, dim=-1)
    return tokens * turn.cos + torch.cat([-y2, y1, -x2, x1], dim=-1) * turn.sin
