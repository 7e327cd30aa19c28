"""How a small network takes in what classical geometry already knows (planes and units:
`flow3r_ros.geometry.evidence`).

Three doors, all absent from the official configuration: an embedding joined to the cached image
tokens, a skip into the point head (patches of 14 pixels are coarse), and rays and prior poses that
points and cameras are residuals of.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flow3r_ros.network.config import EvidenceConfig

RAY_RESIDUAL = 0.1
"""gain of the learned correction to a pixel's ray"""
ASSUMED_FOCAL = 0.9
"""focal length over image width where no rays are given"""
_RAYS = slice(0, 2)
_LOG_DEPTH = slice(2, 3)
_CONFIDENCE = slice(3, 4)


class EvidenceEmbedding(nn.Module):
    """Convolutions over the half-resolution planes, one token per patch (7 x 7 cells), added to the
    image tokens."""

    def __init__(self, width: int, patch_size: int, config: EvidenceConfig) -> None:
        super().__init__()
        cells = patch_size // 2
        self.conv1 = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.conv2 = nn.Conv2d(config.width, config.width, 3, padding=1)
        self.patch = nn.Conv2d(config.width, width, cells, stride=cells)
        self.fuse = nn.Sequential(
            nn.LayerNorm(2 * width), nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, tokens: Tensor, planes: Tensor) -> Tensor:
        """Image tokens `[M, T, width]` and planes `[M, C, H/2, W/2]` to fused tokens `[M, T,
        width]`."""
        maps = F.gelu(
            self.conv1(planes.contiguous(memory_format=torch.channels_last))
        )  # few channels: twice as fast on CPU
        maps = maps + F.gelu(self.conv2(maps))
        evidence = self.patch(maps).flatten(2).transpose(1, 2)
        out: Tensor = tokens + evidence + self.fuse(torch.cat([tokens, evidence], dim=-1))
        return out


class EvidenceSkip(nn.Module):
    """Raw point maps corrected by the evidence at full resolution; triangulated log-depth is
    blended in where it is confident."""

    def __init__(self, config: EvidenceConfig, maps: int = 3) -> None:
        super().__init__()
        self.lift = nn.Conv2d(config.channels, config.skip_width, 3, padding=1)
        self.mix = nn.Conv2d(config.skip_width + maps, config.skip_width, 3, padding=1)
        self.out = nn.Conv2d(config.skip_width, maps + 1, 3, padding=1)

    def forward(self, raw: Tensor, planes: Tensor) -> Tensor:
        """Raw maps `[M, 3 or 4, H, W]` (ray residual x, y; log-depth; perhaps the confidence's
        logit) and planes `[M, C, H/2, W/2]` to corrected raw maps."""
        size = raw.shape[-2:]
        raw, planes = (
            maps.contiguous(memory_format=torch.channels_last) for maps in (raw, planes)
        )  # few channels: 2-3 x faster on CPU
        lifted = _double(F.gelu(self.lift(planes)), size)
        correction = self.out(F.gelu(self.mix(torch.cat([raw, lifted], dim=1))))
        rays, log_depth = raw[:, :2] + correction[:, :2], raw[:, 2:3] + correction[:, 2:3]
        trust = torch.sigmoid(correction[:, 3:4]) * _double(planes[:, _CONFIDENCE], size)
        triangulated = _double(planes[:, _LOG_DEPTH] * planes[:, _CONFIDENCE], size) / _double(
            planes[:, _CONFIDENCE], size
        ).clamp(min=1e-6)
        more = raw[:, 3:] + correction[:, 4:]
        return torch.cat([rays, log_depth + trust * (triangulated - log_depth), more], dim=1)


def full_resolution_rays(planes: Tensor, rows: int, columns: int) -> Tensor:
    """Rays (x/z, y/z) of every pixel, float32 `[M, rows, columns, 2]`.

    The half-resolution ray planes are enlarged bilinearly and continued linearly at the border; a
    frame whose ray planes are all zero (intrinsics unknown) is given a pinhole of `ASSUMED_FOCAL`.
    """
    padded = F.pad(planes[:, _RAYS].float(), (1, 1, 1, 1), mode="replicate")
    left, right = (
        2 * padded[..., 1:2] - padded[..., 2:3],
        2 * padded[..., -2:-1] - padded[..., -3:-2],
    )
    padded = torch.cat([left, padded[..., 1:-1], right], dim=-1)
    top, bottom = (
        2 * padded[..., 1:2, :] - padded[..., 2:3, :],
        2 * padded[..., -2:-1, :] - padded[..., -3:-2, :],
    )
    padded = torch.cat([top, padded[..., 1:-1, :], bottom], dim=-2)
    rays = F.interpolate(padded, scale_factor=2, mode="bilinear", align_corners=False)[
        ..., 2:-2, 2:-2
    ].permute(0, 2, 3, 1)
    known = planes[:, _RAYS].abs().amax(dim=(1, 2, 3)) > 0
    return torch.where(known[:, None, None, None], rays, assumed_rays(rows, columns, planes.device))


def assumed_rays(rows: int, columns: int, device: torch.device) -> Tensor:
    """Rays `[rows, columns, 2]` of a centred pinhole whose focal length is `ASSUMED_FOCAL` image
    widths."""
    focal = ASSUMED_FOCAL * columns
    x = (torch.arange(columns, device=device, dtype=torch.float32) - (columns - 1) / 2) / focal
    y = (torch.arange(rows, device=device, dtype=torch.float32) - (rows - 1) / 2) / focal
    return torch.stack([x[None, :].expand(rows, -1), y[:, None].expand(-1, columns)], dim=-1)


def reproject(points: Tensor, target_poses: Tensor, rays: Tensor) -> Tensor:
    """Where world `points [P, H, W, 3]` appear in cameras at `target_poses [P, 4, 4]` with pinhole
    `rays [P, H, W, 2]`.

    NDC positions `[P, H, W, 2]`, bounded to +-3 so that points at or behind the camera plane stay
    finite.
    """
    rotation, translation = target_poses[:, :3, :3], target_poses[:, :3, 3]
    local = torch.einsum("pji,phwj->phwi", rotation, points - translation[:, None, None])
    seen = local[..., :2] / local[..., 2:].clamp(min=0.02)
    first, last = rays[:, 0, 0], rays[:, -1, -1]
    ndc = 1 - 2 * (seen - first[:, None, None]) / (last - first)[:, None, None]
    return ndc.clamp(-3.0, 3.0)


def _double(maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(maps, size=list(size), mode="bilinear", align_corners=False)
