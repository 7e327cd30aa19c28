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
    full_resolution_rays,
)
from flow3r_ros.network.fine_head import MAPS, FineHead
from flow3r_ros.network.flow_head import FlowHead
from flow3r_ros.network.heads import CameraHead, PatchHead
from flow3r_ros.network.initialise import initialise_encoder, initialise_from_scratch
from flow3r_ros.network.outputs import (
    Decoded,
    EvidenceInput,
    Outputs,
    evidence_or_unknown,
    finish,
    flow_positions,
    places_of_pairs,
)
from flow3r_ros.network.rope import token_positions


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
        self.register_token = nn.Parameter(torch.empty(1, 1, config.decoder.registers, width))
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
        if not self.register_token.is_meta:
            self._draw_weights()

    def _draw_weights(self) -> None:
        """Weights that training starts from. On `meta`, where a file's take their place, torch
        would import its compiler to draw none."""
        nn.init.normal_(self.register_token, std=1e-6)
        initialise_encoder(self.encoder)
        if self.config.initialisation == "scratch":
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

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.image_mean.device

    @property
    def runs_on(self) -> str:
        """The same in words, for people."""
        return str(self.device)

    def encode_images(
        self, images: Tensor, positions: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Images `[M, 3, H, W]` in [0, 1] to patch tokens `[M, T, width]`, with a fine head its
        features behind them; every image on its own. `positions` as in `Encoder`."""
        with self._precision(images.device.type):
            tokens: Tensor = self.encoder((images - self.image_mean) / self.image_std, positions)
        return tokens

    def decode(
        self,
        tokens: Tensor,
        size: tuple[int, int],
        pair_indices: Tensor | None = None,
        evidence: EvidenceInput | None = None,
        wanted: Tensor | None = None,
    ) -> Outputs:
        """Patch tokens `[B, N, T, width]` of images of `size` (H, W), as `encode_images` gives
        them, to the outputs.

        Heads run only for the frame indices `wanted`, int64 `[W]` (None = all), which must contain
        every frame of `pair_indices`. A network without evidence ignores what is given.
        """
        batch, frames = tokens.shape[:2]
        evidence = evidence_or_unknown(self.config, evidence, (batch, frames), size, tokens.device)
        decoded = self.decode_maps(tokens, size, evidence, wanted)
        prior = None if evidence is None else evidence.poses
        with torch.autocast(tokens.device.type, enabled=False):
            out = finish(
                decoded, prior if prior is None or wanted is None else prior[:, wanted], batch
            )
            if pair_indices is not None:
                source, target = places_of_pairs(
                    pair_indices, wanted, batch, out["camera_poses"].shape[1]
                )
                raw = self.raw_flow(
                    decoded.point_latents, decoded.camera_latents, source, target, size
                )
                base = self.config.flow_head.base
                out["flow"] = flow_positions(raw, base, out, decoded.rays, source, target)
        return out

    def decode_maps(
        self,
        tokens: Tensor,
        size: tuple[int, int],
        evidence: EvidenceInput | None,
        wanted: Tensor | None = None,
    ) -> Decoded:
        """The part of `decode` that has weights, but for the flow head; a network with evidence
        must be given some."""
        batch, frames = tokens.shape[:2]
        patch, registers = self.config.encoder.patch_size, self.config.decoder.registers
        width = self.config.encoder.width
        tokens, finer = tokens[..., :width], tokens[..., width:]
        if wanted is not None:
            finer = finer[:, wanted]
        with self._precision(tokens.device.type):
            if self.evidence_embedding is not None and evidence is not None:
                tokens = self.evidence_embedding(
                    tokens.flatten(0, 1), evidence.planes.flatten(0, 1)
                ).reshape(tokens.shape)
            tokens = torch.cat([self.register_token.expand(batch, frames, -1, -1), tokens], dim=2)
            positions = token_positions(
                size[0] // patch, size[1] // patch, registers, tokens.device
            )
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
        with torch.autocast(tokens.device.type, enabled=False):
            points, conf, camera = (head[:, registers:].float() for head in (points, conf, camera))
            raw = self._raw_maps(points, conf, finer.flatten(0, 1).float(), size)
            planes = None if evidence is None else evidence.planes
            local_points, confidence, rays = self._local_points(
                raw, planes if planes is None or wanted is None else planes[:, wanted]
            )
            rows, translation = self.camera_head(camera)
        return Decoded(
            local_points, confidence, rows, translation, rays, point_latents, camera_latents
        )

    def raw_flow(
        self,
        point_latents: Sequence[Tensor],
        camera_latents: Sequence[Tensor],
        source: Tensor,
        target: Tensor,
        size: tuple[int, int],
    ) -> Tensor:
        """The flow head's `[P, 2, H, W]` of frames `source [P]` into `target [P]`, indices into the
        latents of `Decoded`."""
        registers, patch = self.config.decoder.registers, self.config.encoder.patch_size
        points, cameras = (
            [level[:, registers:].float() for level in levels]
            for levels in (point_latents, camera_latents)
        )
        grid = size[0] // patch, size[1] // patch
        raw: Tensor = self.flow_head(points, cameras, source, target, *grid, size)
        return raw

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

    def compile_blocks(self) -> None:
        """Compile the transformer blocks (worth it for static shapes on CUDA)."""
        for stack in (self.encoder.blocks, self.decoder):
            for block in stack:
                block.compile()

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
        self, raw: Tensor, planes: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Points in the camera frame `[M, H, W, 3]`, the confidence's logit `[M, 1, H, W]` and,
        with evidence `planes [B, N, C, H/2, W/2]`, the rays `[M, H, W, 2]` that points are
        residuals of."""
        rays = None
        if self.evidence_skip is not None and planes is not None:
            planes = planes.flatten(0, 1).float()
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
