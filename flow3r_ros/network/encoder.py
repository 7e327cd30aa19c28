"""The image encoder (reference section 5): every frame on its own becomes patch tokens, so its
result can be cached per frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flow3r_ros.network.blocks import Block
from flow3r_ros.network.config import EncoderConfig
from flow3r_ros.network.efficientnet_lite import ConvolutionalPatchEmbedding
from flow3r_ros.network.fine_head import pack


class PatchEmbedding(nn.Module):
    """One linear map per non-overlapping patch."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`[M, 3, H, W]` normalised to `[M, width, H / patch, W / patch]`; there is nothing
        finer."""
        return self.proj(images), []


class Encoder(nn.Module):
    """DINOv2-style ViT with registers; returns the patch tokens only, with `fine` the finer
    features of their patches packed behind them."""

    def __init__(self, config: EncoderConfig, fine: bool = False) -> None:
        super().__init__()
        self.fine = fine
        self.patch_size = config.patch_size
        self.grid = config.image_size // config.patch_size
        self.patch_embed = (
            PatchEmbedding(config.width, config.patch_size)
            if config.convolutional_patch_embedding is None
            else ConvolutionalPatchEmbedding(config.width, config.patch_size)
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, config.width))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, images: Tensor, positions: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Normalised images `[M, 3, H, W]` (multiples of the patch) to patch tokens `[M, T,
        width]`, row-major; `[M, T, width + PACKED]` with `fine`.

        `positions` are those of this size, where the caller has them already (an exported graph
        cannot resample them)."""
        patches, finer = self.patch_embed(images)
        cls_position, patch_positions = positions or self.positions(*patches.shape[-2:])
        patches = patches.flatten(2).transpose(1, 2) + patch_positions.to(patches.dtype)
        cls = (self.cls_token + cls_position).expand(images.shape[0], -1, -1)
        tokens = torch.cat(
            [cls, self.register_tokens.expand(images.shape[0], -1, -1), patches], dim=1
        )
        for block in self.blocks:
            tokens = block(tokens)
        normalised: Tensor = self.norm(tokens)
        normalised = normalised[:, 1 + self.register_tokens.shape[1] :]
        return torch.cat([normalised, pack(finer)], dim=-1) if self.fine else normalised

    def positions(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Position rows of the class token and of the patches; resampled (bicubic, antialiased,
        exact size) off the native grid."""
        cls, patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        if rows == columns == self.grid:
            return cls, patches
        native = patches.float().reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        resampled = F.interpolate(
            native, size=(rows, columns), mode="bicubic", antialias=True, align_corners=False
        )
        return cls, resampled.flatten(2).transpose(1, 2)
