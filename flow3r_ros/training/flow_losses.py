"""The two alternatives to the factored flow head in the paper's controlled experiment
(`flow3r_training_and_results.md`, section 6).

`projective`: the flow that predicted points and poses cause by projection; its gradient reaches
geometry directly. `tracking` (VGGT style): a head matches patch features of *both* frames, so flow
can be right without any camera. The factored head itself is part of the network; these exist for
training only and never leave it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flow3r_ros.network.evidence import reproject
from flow3r_ros.network.flow_head import ndc_grid
from flow3r_ros.network.model import Flow3r
from flow3r_ros.network.outputs import Outputs

TRACKING = "tracking_head"


def projective_flow(outputs: Outputs, pairs: Tensor) -> Tensor:
    """NDC positions `[B, S, H, W, 2]` of the predicted world points of each source frame in the
    predicted camera of its target.

    The target's pinhole is what its own predicted points say: rays (x/z, y/z).
    """
    clips = torch.arange(len(pairs), device=pairs.device)[:, None]
    source, target = pairs[..., 0], pairs[..., 1]
    local = outputs["local_points"][clips, target]
    rays = local[..., :2] / local[..., 2:].clamp(min=1e-6)
    seen = reproject(
        outputs["points"][clips, source].flatten(0, 1),
        outputs["camera_poses"][clips, target].flatten(0, 1),
        rays.flatten(0, 1),
    )
    return seen.reshape(*pairs.shape[:2], *seen.shape[1:])


class TrackingHead(nn.Module):
    """Flow by matching: softmax over the correlation of patch features, then a residual inside each
    patch.

    Args:
        width: channels of the patch features.
        patch: pixels per patch side.
        channels: of the matching space.
    """

    def __init__(self, width: int, patch: int, channels: int = 64) -> None:
        super().__init__()
        self.patch = patch
        self.query, self.key = nn.Linear(width, channels), nn.Linear(width, channels)
        self.temperature = nn.Parameter(torch.tensor(10.0))
        last = nn.Linear(2 * channels, 2 * patch * patch)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.residual = nn.Sequential(nn.Linear(2 * width, 2 * channels), nn.ReLU(), last)

    def forward(self, source: Tensor, target: Tensor, grid: tuple[int, int]) -> Tensor:
        """NDC positions `[P, H, W, 2]` in the target from patch features `[P, rows * columns,
        width]` of both frames."""
        rows, columns = grid
        query, key = F.normalize(self.query(source), dim=-1), F.normalize(self.key(target), dim=-1)
        weight = (self.temperature * query @ key.transpose(1, 2)).softmax(dim=-1)
        centres = (
            F.interpolate(
                _grid(rows * self.patch, columns * self.patch, source), size=grid, mode="area"
            )[0]
            .flatten(1)
            .T
        )
        position = (weight @ centres - centres).transpose(1, 2).reshape(-1, 2, rows, columns)
        moved = F.interpolate(position, scale_factor=float(self.patch), mode="bilinear")
        inner = self.residual(torch.cat([source, weight @ target], dim=-1)).transpose(1, 2)
        inner = F.pixel_shuffle(inner.reshape(len(source), -1, rows, columns), self.patch)
        whole = _grid(rows * self.patch, columns * self.patch, source)
        return (whole + moved + 0.1 * inner).permute(0, 2, 3, 1)


def attach_tracking(network: Flow3r) -> TrackingHead:
    """Give a network a tracking head: from now on its forward returns that head's flow in
    `outputs["flow"]`.

    The head becomes a submodule called `tracking_head`, trained and checkpointed with the rest;
    exports leave it out.
    """
    head = TrackingHead(network.config.point_decoder.out, network.config.encoder.patch_size)
    network.add_module(TRACKING, head)
    kept: dict[str, Tensor] = {}

    def keep(module: nn.Module, inputs: Any, output: tuple[Tensor, Any]) -> None:
        kept["tokens"] = output[0][:, network.config.decoder.registers :].float()

    def replace(module: nn.Module, inputs: tuple[Any, ...], outputs: Outputs) -> Outputs:
        pairs = inputs[1] if len(inputs) > 1 else None
        if pairs is None:
            return outputs
        batch, frames, rows, columns = outputs["local_points"].shape[:4]
        patch = network.config.encoder.patch_size
        tokens = kept.pop("tokens")
        tokens = tokens.reshape(batch, frames, *tokens.shape[1:])
        clips = torch.arange(batch, device=pairs.device)[:, None]
        source, target = (tokens[clips, pairs[..., k]].flatten(0, 1) for k in (0, 1))
        with torch.autocast(tokens.device.type, enabled=False):
            flow = head(source, target, (rows // patch, columns // patch))
        outputs["flow"] = flow.reshape(*pairs.shape[:2], rows, columns, 2)
        return outputs

    network.point_decoder.register_forward_hook(keep)
    network.register_forward_hook(replace)
    return head


def _grid(rows: int, columns: int, like: Tensor) -> Tensor:
    """NDC of every pixel, `[1, 2, rows, columns]`."""
    return ndc_grid(rows, columns, like.device).permute(2, 0, 1)[None]
