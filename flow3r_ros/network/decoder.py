"""The alternating decoder and the per-frame decoders behind it (reference sections 6 and 7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flow3r_ros.network.blocks import Block
from flow3r_ros.network.config import DecoderConfig, HeadDecoderConfig
from flow3r_ros.network.rope import Rotation, rotation


def stack_rotation(positions: Tensor, config: DecoderConfig | HeadDecoderConfig) -> Rotation | None:
    """RoPE of a stack's heads for one frame's token `positions [T, 2]`; None where the stack has no
    RoPE."""
    return (
        None
        if config.rope_base is None
        else rotation(positions, config.width // config.heads, config.rope_base)
    )


def alternate(
    blocks: nn.ModuleList,
    tokens: Tensor,
    turn: Rotation | None,
    wanted: Tensor | None = None,
) -> Tensor:
    """Run frame-wise (even) and global (odd) attention over `tokens [B, N, T, D]`.

    Returns the outputs of the last two blocks side by side (frame first, global second), `[B, N, T,
    2 D]`, or of the frames `wanted [W]` only: then the last block answers just their tokens.
    """
    batch, frames, count, width = tokens.shape
    turn_all = None if turn is None else turn.repeat(frames)
    asking = None if wanted is None else _tokens_of(wanted, count)
    within = across = tokens
    for index in range(0, len(blocks), 2):
        within = blocks[index](across.reshape(batch * frames, count, width), turn)
        last = index + 2 == len(blocks)
        across = blocks[index + 1](
            within.reshape(batch, frames * count, width), turn_all, asking if last else None
        )
    within = within.reshape(tokens.shape)
    if wanted is not None:
        within = within[:, wanted]
    return torch.cat([within, across.reshape(within.shape)], dim=-1)


def _tokens_of(frames: Tensor, count: int) -> Tensor:
    """Indices of all tokens of some frames among the tokens of all frames."""
    return (frames[:, None] * count + torch.arange(count, device=frames.device)).flatten()


class HeadDecoder(nn.Module):
    """A stack of frame-wise blocks between the decoder and one head."""

    def __init__(self, in_width: int, config: HeadDecoderConfig) -> None:
        super().__init__()
        self.projects = nn.Linear(in_width, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.linear_out = nn.Linear(config.width, config.out)

    def forward(self, tokens: Tensor, turn: Rotation | None) -> tuple[Tensor, list[Tensor]]:
        """`[M, T, 2 D]` to the head's input `[M, T, out]` and the outputs `[M, T, width]` of the
        last four blocks."""
        tokens = self.projects(tokens)
        hidden = []
        for block in self.blocks:
            tokens = block(tokens, turn)
            hidden.append(tokens)
        return self.linear_out(tokens), hidden[-4:]
