"""The factored flow head (reference section 10): where a surface point of frame i appears in frame
j, from i's points and both cameras.

No geometry of the target enters, only its pooled camera latents: flow supervises points and poses
through this bottleneck. The output is an absolute position in the target image in PyTorch3D NDC (+x
left, +y up, border pixel centres at +-1), not a displacement.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flow3r_ros.network.config import FlowHeadConfig


class ResidualConvUnit(nn.Module):
    """relu(x) + conv2(relu(conv1(relu(x)))): the official ReLU is in place, so the skip carries the
    rectified input."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """`[M, F, h, w]` to the same."""
        maps = F.relu(maps)
        out: Tensor = maps + self.conv2(F.relu(self.conv1(maps)))
        return out


class FusionBlock(nn.Module):
    """One step of the top-down path: add the finer level, refine, resize, mix."""

    def __init__(self, features: int, has_skip: bool) -> None:
        super().__init__()
        if has_skip:
            self.resConfUnit1 = ResidualConvUnit(features)
        self.resConfUnit2 = ResidualConvUnit(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, coarse: Tensor, size: Sequence[int], level: Tensor | None = None) -> Tensor:
        """`coarse [M, F, h, w]` plus the same-sized `level`, resized to `size` (rows, columns)."""
        if level is not None:
            coarse = coarse + self.resConfUnit1(level)
        out: Tensor = self.out_conv(_resize(self.resConfUnit2(coarse), size))
        return out


class FlowHead(nn.Module):
    """DPT over the last four blocks of the point and camera decoders."""

    def __init__(self, width: int, config: FlowHeadConfig) -> None:
        super().__init__()
        levels, features = config.level_channels, config.features
        self.config = config
        self.mlp = nn.Sequential(
            nn.Linear(3 * width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, width),
        )
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.projects = nn.ModuleList(nn.Conv2d(width, channels, 1) for channels in levels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(levels[0], levels[0], 4, stride=4),
                nn.ConvTranspose2d(levels[1], levels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(levels[3], levels[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch = nn.ModuleDict(
            {
                **{
                    f"layer{k + 1}_rn": nn.Conv2d(levels[k], features, 3, padding=1, bias=False)
                    for k in range(4)
                },
                **{f"refinenet{k}": FusionBlock(features, has_skip=k < 4) for k in (1, 2, 3, 4)},
                "output_conv1": nn.Conv2d(features, features // 2, 3, padding=1),
                "output_conv2": nn.Sequential(
                    nn.Conv2d(features // 2, config.output_features, 3, padding=1),
                    nn.ReLU(),
                    nn.Conv2d(config.output_features, 2, 1),
                ),
            }
        )

    def forward(
        self,
        points: Sequence[Tensor],
        cameras: Sequence[Tensor],
        source: Tensor,
        target: Tensor,
        rows: int,
        columns: int,
        size: Sequence[int],
    ) -> Tensor:
        """Raw output `[P, 2, H, W]` for P frame pairs.

        `points`, `cameras`: four latents `[M, rows * columns, width]` each (no registers);
        `source`, `target`: int64 `[P]` into M;
        `size`: (H, W) of the image.
        """
        levels = []
        for k, (point, camera) in enumerate(zip(points, cameras, strict=True)):
            pooled = camera.mean(dim=1, keepdim=True)[target].expand(-1, rows * columns, -1)
            fused = self.norm(self.mlp(torch.cat([camera[source], pooled, point[source]], dim=-1)))
            level = self.projects[k](
                fused.transpose(1, 2).reshape(source.shape[0], -1, rows, columns)
            )
            level = self.resize_layers[k](self._with_positions(level, size))
            levels.append(self.scratch[f"layer{k + 1}_rn"](level))
        out = self.scratch["refinenet4"](levels[3], levels[2].shape[-2:])
        out = self.scratch["refinenet3"](out, levels[1].shape[-2:], levels[2])
        out = self.scratch["refinenet2"](out, levels[0].shape[-2:], levels[1])
        out = self.scratch["refinenet1"](
            out, [2 * side for side in levels[0].shape[-2:]], levels[0]
        )
        out = _resize(self.scratch["output_conv1"](out), size)
        raw: Tensor = self.scratch["output_conv2"](self._with_positions(out, size))
        return raw

    def _with_positions(self, maps: Tensor, image_size: Sequence[int]) -> Tensor:
        """Add the sin-cos position map of an H x W image, scaled by `position_ratio`."""
        if self.config.position_ratio == 0.0:
            return maps
        return maps + self.config.position_ratio * position_map(
            maps, image_size, self.config.position_base
        )


def position_map(maps: Tensor, image_size: Sequence[int], base: float) -> Tensor:
    """Sin-cos positions `[c, h, w]` float32 for `maps [M, c, h, w]` of an image of (H, W) pixels:
    sin x, cos x, sin y, cos y."""
    channels, rows, columns = maps.shape[1:]
    aspect = image_size[1] / image_size[0]
    diagonal = (aspect**2 + 1) ** 0.5
    span_x, span_y = aspect / diagonal * (columns - 1) / columns, 1 / diagonal * (rows - 1) / rows
    u = torch.linspace(-span_x, span_x, columns, device=maps.device, dtype=torch.float32).double()
    v = torch.linspace(-span_y, span_y, rows, device=maps.device, dtype=torch.float32).double()
    omega = base ** (
        -torch.arange(channels // 4, device=maps.device, dtype=torch.float64) / (channels // 4)
    )
    x = (omega[:, None] * u)[:, None, :].expand(-1, rows, -1)
    y = (omega[:, None] * v)[:, :, None].expand(-1, -1, columns)
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()]).float()


def ndc_grid(rows: int, columns: int, device: torch.device) -> Tensor:
    """NDC position of every pixel itself, float32 `[rows, columns, 2]` (x, y): the flow that moves
    nothing."""
    x = torch.linspace(1.0, -1.0, columns, device=device)[None, :].expand(rows, -1)
    y = torch.linspace(1.0, -1.0, rows, device=device)[:, None].expand(-1, columns)
    return torch.stack([x, y], dim=-1)


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, size=list(size), mode="bilinear", align_corners=True)
