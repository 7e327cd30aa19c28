"""The fine head of the small network: point and confidence maps without the 14-pixel patches.

The official head maps each token to a patch on its own, so depth steps at every patch border. This
one climbs from the token grid to an eighth of a patch by bilinear doublings, at each taking in the
features that the convolutional patch embedding has computed there anyway. They are packed behind
the channels of their patch's token, so they travel, and are cached, with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flow3r_ros.network.config import FineHeadConfig

CHANNELS = (40, 24, 16)
"""channels of the EfficientNet-Lite0 features at strides 8, 4 and 2"""
CELLS = (2, 4, 8)
"""cells of those features along a patch's side"""
PACKED = sum(channels * cells**2 for channels, cells in zip(CHANNELS, CELLS, strict=True))
"""channels behind those of a token"""
MAPS = 4
"""ray residual x and y, log-depth, logit of the confidence"""


def pack(levels: Sequence[Tensor]) -> Tensor:
    """Features `[M, C_k, rows * cells_k, columns * cells_k]` per level as `[M, rows * columns,
    PACKED]`."""
    folded = [
        F.pixel_unshuffle(maps, cells).flatten(2) for maps, cells in zip(levels, CELLS, strict=True)
    ]
    return torch.cat(folded, dim=1).transpose(1, 2)


def unpack(packed: Tensor, rows: int, columns: int) -> list[Tensor]:
    """The inverse of `pack`."""
    maps = packed.transpose(1, 2).reshape(packed.shape[0], PACKED, rows, columns)
    sizes = [channels * cells**2 for channels, cells in zip(CHANNELS, CELLS, strict=True)]
    return [
        F.pixel_shuffle(part, cells)
        for part, cells in zip(torch.split(maps, sizes, dim=1), CELLS, strict=True)
    ]


class FineHead(nn.Module):
    """Raw maps from tokens and finer features; a bilinearly enlarged value per token plus a learned
    correction, which starts at zero."""

    def __init__(self, width: int, config: FineHeadConfig) -> None:
        super().__init__()
        widths = config.widths
        self.coarse = nn.Linear(width, MAPS)
        self.embed = nn.Linear(width, widths[0])
        self.reduce = nn.ModuleList(
            nn.Conv2d(before, after, 1)
            for before, after in zip((widths[0], *widths), widths, strict=False)
        )
        self.lateral = nn.ModuleList(
            nn.Conv2d(channels, after, 1) for channels, after in zip(CHANNELS, widths, strict=True)
        )
        self.smooth = nn.ModuleList(nn.Conv2d(after, after, 3, padding=1) for after in widths)
        self.out = nn.Conv2d(widths[-1], MAPS, 3, padding=1)

    def forward(self, tokens: Tensor, packed: Tensor, size: tuple[int, int], patch: int) -> Tensor:
        """Tokens `[M, T, width]` and packed features `[M, T, PACKED]` of images of `size` (H, W) to
        raw maps `[M, MAPS, H, W]`."""
        rows, columns = size[0] // patch, size[1] // patch
        maps = _on_grid(self.embed(tokens), rows, columns)
        for reduce, lateral, smooth, finer in zip(
            self.reduce, self.lateral, self.smooth, unpack(packed, rows, columns), strict=True
        ):
            maps = F.gelu(_resized(reduce(maps), finer.shape[-2:]) + lateral(finer))
            maps = maps + F.gelu(smooth(maps))
        coarse = _on_grid(self.coarse(tokens), rows, columns)
        return _resized(self.out(maps), size) + _resized(coarse, size)

    @torch.no_grad()
    def start_smooth(self) -> None:
        """Start without a correction, with small values per token (points near their rays at depth
        about one)."""
        nn.init.zeros_(self.out.weight)
        self.coarse.weight[:2] *= 0.1
        self.coarse.weight[2:] *= 0.3


def _on_grid(tokens: Tensor, rows: int, columns: int) -> Tensor:
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, rows, columns)


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(
        maps.contiguous(memory_format=torch.channels_last),
        size=list(size),
        mode="bilinear",
        align_corners=False,
    )
