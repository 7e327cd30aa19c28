"""Point, confidence and camera heads (reference sections 8 and 9) and the projection onto SO(3)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchHead(nn.Module):
    """One linear map per token to `channels` maps of a patch."""

    def __init__(self, width: int, channels: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(width, channels * patch_size**2)

    def forward(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        """Patch tokens `[M, rows * columns, width]` to maps `[M, channels, rows * patch, columns *
        patch]`."""
        maps = self.proj(tokens).transpose(1, 2).reshape(tokens.shape[0], -1, rows, columns)
        return F.pixel_shuffle(maps, self.patch_size)


class ResidualMlp(nn.Module):
    """x + ReLU(L3(ReLU(L2(ReLU(L1 x))))), token-wise; linear layers, despite the official names of
    the keys."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res_conv1 = nn.Linear(width, width)
        self.res_conv2 = nn.Linear(width, width)
        self.res_conv3 = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[..., width]` to `[..., width]`."""
        return tokens + F.relu(
            self.res_conv3(F.relu(self.res_conv2(F.relu(self.res_conv1(tokens)))))
        )


class CameraHead(nn.Module):
    """Camera-to-world pose of a frame from the mean of its patch tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res_conv = nn.ModuleList([ResidualMlp(width), ResidualMlp(width)])
        self.more_mlps = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.fc_t = nn.Linear(width, 3)
        self.fc_rot = nn.Linear(width, 9)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Patch tokens `[M, T, width]` (no registers) to the float32 rows `[M, 3, 3]` of what is
        about a rotation, each of length one, and the translation `[M, 3]` (`camera_poses` makes
        poses of them)."""
        for residual in self.res_conv:
            tokens = residual(tokens)
        latent = self.more_mlps(tokens.mean(dim=1))
        rows = F.normalize(self.fc_rot(latent).reshape(-1, 3, 3), dim=-1, eps=1e-12)
        return rows, self.fc_t(latent)


class _NearestRotation(torch.autograd.Function):
    """Orthogonal Procrustes on SO(3) with a closed-form backward.

    With A = R P, P = V diag(sigma) V^T symmetric, a change dA turns R by R W where W P + P W = R^T
    dA - dA^T R, so in the basis V every entry divides by sigma_i + sigma_j. Unlike the gradient of
    a generic SVD this is regular at equal singular values (the identity).
    """

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        u, s, vt = torch.linalg.svd(matrices)
        sign = torch.linalg.det(u @ vt).sign()
        flip = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], dim=-1)
        result: Tensor = (u * flip[..., None, :]) @ vt
        ctx.save_for_backward(result, s * flip, vt)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        result, sigma, vt = ctx.saved_tensors
        inner = result.transpose(-2, -1) @ gradient
        skew = vt @ (inner - inner.transpose(-2, -1)) @ vt.transpose(-2, -1)
        total = sigma[..., :, None] + sigma[..., None, :]
        skew = skew / torch.where(total.abs() < 1e-3, torch.full_like(total, 1e-3), total)
        out: Tensor = result @ (vt.transpose(-2, -1) @ skew @ vt)
        return out


def nearest_rotation(matrices: Tensor) -> Tensor:
    """The element of SO(3) nearest to each of `matrices [..., 3, 3]` in the Frobenius norm;
    differentiable everywhere but at rank one."""
    result: Tensor = _NearestRotation.apply(matrices)  # type: ignore[no-untyped-call]
    return result


def camera_poses(rows: Tensor, translation: Tensor) -> Tensor:
    """Poses `[M, 4, 4]` of the camera head's `rows [M, 3, 3]` and `translation [M, 3]`."""
    top = torch.cat([nearest_rotation(rows), translation[:, :, None]], dim=2)
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(top), 1, 4)
    return torch.cat([top, bottom], dim=1)


def transform(poses: Tensor, points: Tensor) -> Tensor:
    """R p + t: poses `[..., 4, 4]`, points `[..., H, W, 3]`."""
    return (
        torch.einsum("...ij,...hwj->...hwi", poses[..., :3, :3], points)
        + poses[..., None, None, :3, 3]
    )
