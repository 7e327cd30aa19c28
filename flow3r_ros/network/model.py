"""Flow3r as in the paper's figure: image encoder -> alternating decoder -> points, confidence,
cameras -> factored flow.

`forward` does everything. `encode_images` and `decode` are its two halves: the first looks at one
image at a time, so its result can be cached per frame; the second can be asked for some frames
only.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from flow3r_ros.network.blocks import Block
from flow3r_ros.network.config import Flow3rConfig
from flow3r_ros.network.decoder import HeadDecoder, alternate, stack_rotation
from flow3r_ros.network.encoder import Encoder
from flow3r_ros.network.evidence import (
    RAY_RESIDUAL,
    EvidenceEmbedding,
    EvidenceSkip,
    assumed_rays,
    full_resolution_rays,
    reproject,
)
from flow3r_ros.network.fine_head import MAPS, FineHead
from flow3r_ros.network.flow_head import FlowHead, ndc_grid
from flow3r_ros.network.heads import CameraHead, PatchHead, transform
from flow3r_ros.network.initialise import initialise_encoder, initialise_from_scratch
from flow3r_ros.network.rope import token_positions


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


class Flow3r(nn.Module):
    """The network of one configuration; state-dict keys and shapes of `preset("large")` are the
    official ones.

    `arithmetic` is what the transformer stacks compute in (None: as the caller's autocast says);
    heads and RoPE are always float32.
    """

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: Flow3rConfig) -> None:
        super().__init__()
        self.config = config
        self.arithmetic: torch.dtype | None = None
        width, patch = config.decoder.width, config.encoder.patch_size
        self.register_buffer("image_mean", torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1))
        self.register_buffer("image_std", torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1))
        self.encoder = Encoder(config.encoder, config.fine_head is not None)
        self.evidence_embedding = (
            None if config.evidence is None else EvidenceEmbedding(width, patch, config.evidence)
        )
        self.register_token = nn.Parameter(
            torch.randn(1, 1, config.decoder.registers, width) * 1e-6
        )
        self.decoder = nn.ModuleList(Block(config.decoder) for _ in range(config.decoder.blocks))
        self.point_decoder = HeadDecoder(2 * width, config.point_decoder)
        same = config.conf_decoder == config.point_decoder
        self.conf_decoder = (
            copy.deepcopy(self.point_decoder)
            if same
            else HeadDecoder(2 * width, config.conf_decoder)
        )
        self.camera_decoder = HeadDecoder(2 * width, config.camera_decoder)
        if config.fine_head is None:
            self.point_head = PatchHead(config.point_decoder.out, 3, patch)
            self.conf_head = PatchHead(config.conf_decoder.out, 1, patch)
        else:
            self.fine_head = FineHead(
                config.point_decoder.out + config.conf_decoder.out, config.fine_head
            )
        self.camera_head = CameraHead(config.camera_decoder.out)
        self.flow_head = FlowHead(config.point_decoder.width, config.flow_head)
        self.evidence_skip = (
            None
            if config.evidence is None
            else EvidenceSkip(config.evidence, 3 if config.fine_head is None else MAPS)
        )
        initialise_encoder(self.encoder)
        if config.initialisation == "scratch":
            initialise_from_scratch(self)
            self._start_at_prior()

    def forward(
        self,
        images: Tensor,
        pair_indices: Tensor | None = None,
        evidence: EvidenceInput | None = None,
    ) -> Outputs:
        """Images `[B, N, 3, H, W]` RGB in [0, 1] (H, W multiples of the patch), pairs int64 `[B, S,
        2]` (source, target)."""
        batch, frames, _, rows, columns = images.shape
        tokens = self.encode_images(images.flatten(0, 1))
        return self.decode(
            tokens.reshape(batch, frames, *tokens.shape[1:]),
            (rows, columns),
            pair_indices,
            evidence,
        )

    def encode_images(self, images: Tensor) -> Tensor:
        """Images `[M, 3, H, W]` in [0, 1] to patch tokens `[M, T, width]`, with a fine head its
        features behind them; every image on its own."""
        with self._precision(images.device.type):
            tokens: Tensor = self.encoder((images - self.image_mean) / self.image_std)
        return tokens

    def decode(
        self,
        tokens: Tensor,
        size: tuple[int, int],
        pair_indices: Tensor | None = None,
        evidence: EvidenceInput | None = None,
        wanted: Sequence[int] | None = None,
    ) -> Outputs:
        """Patch tokens `[B, N, T, width]` of images of `size` (H, W), as `encode_images` gives
        them, to the outputs.

        Heads run only for the frame indices in `wanted` (None = all), which must contain every
        frame of `pair_indices`. A network without evidence ignores what is given.
        """
        batch, frames = tokens.shape[:2]
        patch, registers = self.config.encoder.patch_size, self.config.decoder.registers
        rows, columns = size[0] // patch, size[1] // patch
        chosen = list(range(frames)) if wanted is None else list(wanted)
        width = self.config.encoder.width
        tokens, finer = tokens[..., :width], tokens[:, chosen, :, width:].flatten(0, 1)
        takes_evidence = self.config.evidence is not None
        evidence = (
            (evidence or self._no_evidence(batch, frames, size, tokens)) if takes_evidence else None
        )
        with self._precision(tokens.device.type):
            if self.evidence_embedding is not None and evidence is not None:
                tokens = self.evidence_embedding(
                    tokens.flatten(0, 1), evidence.planes.flatten(0, 1)
                ).reshape(tokens.shape)
            tokens = torch.cat([self.register_token.expand(batch, frames, -1, -1), tokens], dim=2)
            positions = token_positions(rows, columns, registers, tokens.device)
            decoded = alternate(
                self.decoder, tokens, stack_rotation(positions, self.config.decoder), wanted
            ).flatten(0, 1)
            points, point_latents = self.point_decoder(
                decoded, stack_rotation(positions, self.config.point_decoder)
            )
            conf, _ = self.conf_decoder(
                decoded, stack_rotation(positions, self.config.conf_decoder)
            )
            camera, camera_latents = self.camera_decoder(
                decoded, stack_rotation(positions, self.config.camera_decoder)
            )
        if evidence is not None and wanted is not None:
            evidence = EvidenceInput(evidence.planes[:, chosen], evidence.poses[:, chosen])

        with torch.autocast(tokens.device.type, enabled=False):
            points, conf, camera = (head[:, registers:].float() for head in (points, conf, camera))
            raw = self._raw_maps(points, conf, finer.float(), size)
            local_points, confidence, rays = self._local_points(raw, evidence)
            poses = self._poses(camera, evidence)
            shape = (batch, len(chosen))
            out = Outputs(
                points=transform(poses, local_points).reshape(*shape, *size, 3),
                local_points=local_points.reshape(*shape, *size, 3),
                conf=confidence.permute(0, 2, 3, 1).reshape(*shape, *size, 1),
                camera_poses=poses.reshape(*shape, 4, 4),
                flow=None,
            )
            if pair_indices is not None:
                latents = [
                    [level[:, registers:].float() for level in levels]
                    for levels in (point_latents, camera_latents)
                ]
                out["flow"] = self._flow(
                    latents[0],
                    latents[1],
                    _positions_in(chosen, pair_indices),
                    out,
                    rays,
                    (rows, columns),
                    size,
                )
        return out

    def lower_precision(self, dtype: torch.dtype) -> None:
        """For inference: compute the transformer stacks in `dtype`, with their matrices converted
        once instead of in every call."""
        self.arithmetic = dtype
        for part in (
            self.encoder,
            self.evidence_embedding,
            self.decoder,
            self.point_decoder,
            self.conf_decoder,
            self.camera_decoder,
        ):
            for module in () if part is None else part.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    module.to(dtype)

    def _precision(self, device: str) -> AbstractContextManager[object]:
        return nullcontext() if self.arithmetic is None else torch.autocast(device, self.arithmetic)

    def _raw_maps(
        self, points: Tensor, conf: Tensor, finer: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Ray residual x, y, log-depth and the confidence's logit `[M, 4, H, W]`."""
        patch = self.config.encoder.patch_size
        if self.config.fine_head is not None:
            both: Tensor = self.fine_head(torch.cat([points, conf], dim=-1), finer, size, patch)
            return both
        grid = size[0] // patch, size[1] // patch
        return torch.cat([self.point_head(points, *grid), self.conf_head(conf, *grid)], dim=1)

    def _local_points(
        self, raw: Tensor, evidence: EvidenceInput | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Points in the camera frame `[M, H, W, 3]`, the confidence's logit `[M, 1, H, W]` and,
        with evidence, the rays `[M, H, W, 2]` that points are residuals of."""
        rays = None
        if self.evidence_skip is not None and evidence is not None:
            planes = evidence.planes.flatten(0, 1).float()
            corrected = 3 if self.config.fine_head is None else MAPS
            raw = torch.cat(
                [self.evidence_skip(raw[:, :corrected], planes), raw[:, corrected:]], dim=1
            )
            rays = full_resolution_rays(planes, *raw.shape[-2:])
        direction, log_depth = torch.split(raw[:, :3].permute(0, 2, 3, 1), [2, 1], dim=-1)
        if rays is not None:
            direction = rays + RAY_RESIDUAL * direction
        depth = log_depth.exp()
        return torch.cat([direction * depth, depth], dim=-1), raw[:, 3:], rays

    def _poses(self, tokens: Tensor, evidence: EvidenceInput | None) -> Tensor:
        """Camera-to-world `[M, 4, 4]`; with evidence the head's pose is a correction in the prior
        camera's frame."""
        poses: Tensor = self.camera_head(tokens)
        return poses if evidence is None else evidence.poses.flatten(0, 1).float() @ poses

    def _flow(
        self,
        points: list[Tensor],
        cameras: list[Tensor],
        pairs: Tensor,
        out: Outputs,
        rays: Tensor | None,
        grid: tuple[int, int],
        size: tuple[int, int],
    ) -> Tensor:
        """NDC positions `[B, S, H, W, 2]` for `pairs [B, S, 2]` into the chosen frames."""
        batch, frames = out["camera_poses"].shape[:2]
        index = (pairs + frames * torch.arange(batch, device=pairs.device)[:, None, None]).flatten(
            0, 1
        )
        source, target = index[:, 0], index[:, 1]
        raw: Tensor = self.flow_head(points, cameras, source, target, *grid, size).permute(
            0, 2, 3, 1
        )
        if self.config.flow_head.base == "identity":
            raw = raw + ndc_grid(*size, raw.device)
        elif self.config.flow_head.base == "reprojection":
            seen_by = (
                assumed_rays(*size, raw.device).expand(len(target), -1, -1, -1)
                if rays is None
                else rays[target]
            )
            raw = raw + reproject(
                out["points"].flatten(0, 1)[source],
                out["camera_poses"].flatten(0, 1)[target],
                seen_by,
            )
        return raw.reshape(*pairs.shape[:2], *size, 2)

    def _no_evidence(
        self, batch: int, frames: int, size: tuple[int, int], like: Tensor
    ) -> EvidenceInput:
        """What a network that takes evidence is given when there is none: unknown rays, unknown
        depth, identity poses."""
        assert self.config.evidence is not None
        planes = like.new_zeros(
            batch,
            frames,
            self.config.evidence.channels,
            size[0] // 2,
            size[1] // 2,
            dtype=torch.float32,
        )
        return EvidenceInput(planes, torch.eye(4, device=like.device).expand(batch, frames, 4, 4))

    @torch.no_grad()
    def _start_at_prior(self) -> None:
        """Poses start at the prior (identity without one); flow at its base; points near their rays
        at depth about one."""
        patch = self.config.encoder.patch_size**2
        if self.config.fine_head is None:
            self.point_head.proj.weight[: 2 * patch] *= 0.1
            self.point_head.proj.weight[2 * patch :] *= 0.3
        else:
            self.fine_head.start_smooth()
        nn.init.zeros_(self.camera_head.fc_t.weight)
        nn.init.zeros_(self.camera_head.fc_rot.weight)
        self.camera_head.fc_rot.bias.copy_(torch.eye(3).flatten())
        nn.init.zeros_(self.flow_head.scratch["output_conv2"][2].weight)  # type: ignore[index]
        if self.evidence_skip is not None:
            nn.init.zeros_(self.evidence_skip.out.weight)


def _positions_in(chosen: list[int], pairs: Tensor) -> Tensor:
    """Translate frame indices into places among the chosen frames."""
    place = torch.full((max(chosen) + 1,), -1, dtype=torch.int64)
    place[torch.tensor(chosen)] = torch.arange(len(chosen))
    if pairs.numel() and (int(pairs.max()) > max(chosen) or bool((place[pairs.cpu()] < 0).any())):
        raise ValueError("every frame of pair_indices must be among the wanted frames")
    return place.to(pairs.device)[pairs]
