"""What goes into the decoder and comes out of it, and the last steps, which have no weights:
rotations, world points, flow as positions.

Those steps need a singular value decomposition, which no exported graph can hold; the network in
torch and an exported one (`onnx_network`) both end here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypedDict

import torch
from torch import Tensor

from flow3r_ros.network.config import Flow3rConfig
from flow3r_ros.network.evidence import assumed_rays, reproject
from flow3r_ros.network.flow_head import ndc_grid
from flow3r_ros.network.heads import camera_poses, transform


class Outputs(TypedDict):
    """What the network says, float32; N is the number of wanted frames (all of them by default), in
    the order asked for."""

    points: Tensor
    """`[B, N, H, W, 3]` in the window's world frame"""
    local_points: Tensor
    """`[B, N, H, W, 3]` in each camera's optical frame, up to one scale per window"""
    conf: Tensor
    """`[B, N, H, W, 1]` logits"""
    camera_poses: Tensor
    """`[B, N, 4, 4]` camera-to-world"""
    flow: Tensor | None
    """`[B, S, H, W, 2]` absolute NDC position in the target image, or None when no pairs were
    given"""


class EvidenceInput(NamedTuple):
    """Evidence as tensors (see `flow3r_ros.geometry.evidence`)."""

    planes: Tensor
    """`[B, N, C, H/2, W/2]`"""
    poses: Tensor
    """`[B, N, 4, 4]` prior camera-to-world"""


class Decoded(NamedTuple):
    """What the weights make of a window, of M = B * N wanted frames."""

    local_points: Tensor
    """float32 `[M, H, W, 3]`"""
    conf: Tensor
    """float32 `[M, 1, H, W]` logits"""
    rows: Tensor
    """float32 `[M, 3, 3]`, about a rotation"""
    translation: Tensor
    """float32 `[M, 3]`"""
    rays: Tensor | None
    """float32 `[M, H, W, 2]` that points are residuals of, with evidence"""
    point_latents: Sequence[Tensor]
    """four of `[M, registers + T, width]`, for the flow head"""
    camera_latents: Sequence[Tensor]
    """the same of the cameras"""


class Network(Protocol):
    """What a Runner runs: `Flow3r` or `OnnxNetwork`, which say what the methods do."""

    config: Flow3rConfig
    arithmetic: torch.dtype | None

    @property
    def device(self) -> torch.device:
        """Where tensors are given and answered."""

    @property
    def runs_on(self) -> str:
        """What computes, for people."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Every image's tokens."""

    def decode(
        self,
        tokens: Tensor,
        size: tuple[int, int],
        pair_indices: Tensor | None = None,
        evidence: EvidenceInput | None = None,
        wanted: Tensor | None = None,
    ) -> Outputs:
        """A window's outputs."""


def evidence_or_unknown(
    config: Flow3rConfig,
    evidence: EvidenceInput | None,
    frames: tuple[int, int],
    size: tuple[int, int],
    device: torch.device,
) -> EvidenceInput | None:
    """None for a network without evidence; where there is none for `frames` (B, N) of `size` (H,
    W): unknown rays, unknown depth, identity poses."""
    if config.evidence is None or evidence is not None:
        return evidence if config.evidence is not None else None
    planes = torch.zeros(
        *frames, config.evidence.channels, size[0] // 2, size[1] // 2, device=device
    )
    return EvidenceInput(planes, torch.eye(4, device=device).expand(*frames, 4, 4))


def finish(decoded: Decoded, prior: Tensor | None, batch: int) -> Outputs:
    """Outputs without flow; with `prior [B, N, 4, 4]` the head's pose is a correction in the prior
    camera's frame."""
    poses = camera_poses(decoded.rows, decoded.translation)
    shape = (batch, len(poses) // batch)
    rows, columns = decoded.conf.shape[-2:]
    if prior is not None:
        poses = prior.flatten(0, 1).float() @ poses
    return Outputs(
        points=transform(poses, decoded.local_points).reshape(*shape, rows, columns, 3),
        local_points=decoded.local_points.reshape(*shape, rows, columns, 3),
        conf=decoded.conf.permute(0, 2, 3, 1).reshape(*shape, rows, columns, 1),
        camera_poses=poses.reshape(*shape, 4, 4),
        flow=None,
    )


def places_of_pairs(
    pairs: Tensor, wanted: Tensor | None, batch: int, frames: int
) -> tuple[Tensor, Tensor]:
    """Sources and targets `[B * S]` of `pairs [B, S, 2]` of a window's frames, as places among the
    B * `frames` decoded ones. Raises ValueError for a frame that is not among the `wanted`."""
    chosen = torch.arange(frames, device=pairs.device) if wanted is None else wanted
    same = pairs[..., None] == chosen
    if not bool(same.any(dim=-1).all()):
        raise ValueError("every frame of pair_indices must be among the wanted frames")
    first = frames * torch.arange(batch, device=pairs.device)[:, None, None]
    places = (same.int().argmax(dim=-1) + first).flatten(0, 1)
    return places[:, 0], places[:, 1]


def flow_positions(
    raw: Tensor, base: str, out: Outputs, rays: Tensor | None, source: Tensor, target: Tensor
) -> Tensor:
    """NDC positions `[B, S, H, W, 2]` of the flow head's `raw [B * S, 2, H, W]`, added to its
    `base` (`FlowHeadConfig.base`)."""
    batch, (rows, columns) = len(out["points"]), raw.shape[-2:]
    positions = raw.permute(0, 2, 3, 1)
    if base == "identity":
        positions = positions + ndc_grid(rows, columns, raw.device)
    elif base == "reprojection":
        seen_by = (
            assumed_rays(rows, columns, raw.device).expand(len(target), -1, -1, -1)
            if rays is None
            else rays[target]
        )
        positions = positions + reproject(
            out["points"].flatten(0, 1)[source],
            out["camera_poses"].flatten(0, 1)[target],
            seen_by,
        )
    return positions.reshape(batch, len(positions) // batch, rows, columns, 2)
