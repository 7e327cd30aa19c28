"""Numbers that say whether a network is any good, each beside what costs nothing and what the
evidence knows by itself."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from flow3r_ros.network.calibration import calibration_error
from flow3r_ros.network.evidence import reproject
from flow3r_ros.network.model import Flow3r
from flow3r_ros.network.outputs import EvidenceInput
from flow3r_ros.training import losses
from flow3r_ros.training.sample import Batch, Sample, collate
from flow3r_ros.types import Bool, Float32, Float64


@torch.no_grad()
def validate(network: Flow3r, clips: Iterable[list[Sample]]) -> dict[str, float]:
    """Mean or median over clips; every list of samples is one forward. Unlabelled clips count for
    flow only.

    Keys: depth, median-aligned per clip: `abs_rel`, `delta_1.25`, and `abs_rel_constant` (one depth
    for everything), `abs_rel_no_evidence` (images only), `abs_rel_triangulated` and `abs_rel_there`
    (evidence and network where the evidence knows a depth), `triangulated_share`; poses over all
    pairs: `rotation_deg`, `direction_deg` medians, `rra_5`, `rta_15` shares, each also `_evidence`
    (the prior) and `rotation_deg_identity`; flow in pixels over covisible pixels: `epe_head`,
    `epe_geometry`, `epe_zero` medians over pairs; confidence: `confidence_mean`, `confidence_right`
    (share of pixels within 10 %), `confidence_auc` (chance that a right pixel is ranked above a
    wrong one), `confidence_error` (expected calibration error); `border_step`: log-depth steps
    across the borders of patches over those elsewhere.
    """
    was_training = network.training
    network.eval()
    rows: list[dict[str, list[float]]] = []
    for samples in clips:
        batch = collate(samples)
        outputs = answer(network, batch, batch.pairs, batch.evidence)
        row = _flow(outputs, batch)
        if len(batch.labelled):
            blind = answer(network, batch, None, None)
            row |= _depth(outputs["local_points"], blind["local_points"], batch)
            row |= _poses(outputs["camera_poses"], batch) | _confidence(outputs, batch)
            depth = outputs["local_points"][batch.labelled, ..., 2]
            row["border_step"] = [border_step(depth, network.config.encoder.patch_size)]
        rows.append(row)
    network.train(was_training)
    return _summary(rows)


@torch.no_grad()
def answer(
    network: Flow3r, batch: Batch, pairs: Tensor | None, evidence: EvidenceInput | None
) -> dict[str, Tensor]:
    """What the network says about a batch on the CPU, wherever the network is; tensors on the CPU,
    without flow for no pairs."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    seen = None if evidence is None else EvidenceInput(*(part.to(device) for part in evidence))
    outputs = network(batch.images.to(device), None if pairs is None else pairs.to(device), seen)
    return {
        name: value.float().cpu() for name, value in outputs.items() if isinstance(value, Tensor)
    }


def _depth(local: Tensor, blind: Tensor, batch: Batch) -> dict[str, list[float]]:
    truth, row = batch.truth, {}
    planes = batch.evidence.planes[batch.labelled]
    knows = planes[:, :, 3] > 0.3
    row["triangulated_share"] = [float(knows.float().mean())]
    for index in range(len(batch.labelled)):
        sample, z = int(batch.labelled[index]), truth.points[index, ..., 2]
        valid = truth.valid[index]
        ours = local[sample, ..., 2]
        relative, ratio = _aligned(ours[valid], z[valid])
        row.setdefault("abs_rel", []).append(relative)
        row.setdefault("delta_1.25", []).append(ratio)
        row.setdefault("abs_rel_no_evidence", []).append(
            _aligned(blind[sample, ..., 2][valid], z[valid])[0]
        )
        row.setdefault("abs_rel_constant", []).append(
            _aligned(torch.ones_like(z[valid]), z[valid])[0]
        )
        half = z[:, ::2, ::2][:, : knows.shape[2], : knows.shape[3]]
        there = knows[index] & valid[:, ::2, ::2]
        if there.sum() > 50:
            row.setdefault("abs_rel_triangulated", []).append(
                _aligned(planes[index, :, 2].exp()[there], half[there])[0]
            )
            row.setdefault("abs_rel_there", []).append(
                _aligned(ours[:, ::2, ::2][there], half[there])[0]
            )
    return row


def _aligned(estimate: Tensor, truth: Tensor) -> tuple[float, float]:
    """(AbsRel, share within 25 %) after scaling by the ratio of medians."""
    scaled = estimate * (truth.median() / estimate.median().clamp(min=1e-6))
    ratio = torch.maximum(scaled / truth, truth / scaled.clamp(min=1e-6))
    return float(((scaled - truth).abs() / truth).mean()), float((ratio < 1.25).float().mean())


def _poses(poses: Tensor, batch: Batch) -> dict[str, list[float]]:
    theirs = losses.relative_poses(batch.truth.poses)
    row: dict[str, list[float]] = {
        "rotation_deg_identity": _degrees(losses.rotation_angle(theirs[..., :3, :3]))
    }
    for suffix, estimate in (("", poses), ("_evidence", batch.evidence.poses)):
        ours = losses.relative_poses(estimate[batch.labelled])
        angle = _degrees(
            losses.rotation_angle(ours[..., :3, :3].transpose(-1, -2) @ theirs[..., :3, :3])
        )
        moved, target = ours[..., :3, 3], theirs[..., :3, 3]
        translates = target.norm(dim=-1) > 0.01
        cosine = torch.nn.functional.cosine_similarity(moved, target, dim=-1, eps=1e-9)[translates]
        direction = _degrees(torch.acos(cosine.clamp(-1, 1)))
        row |= {
            f"rotation_deg{suffix}": angle,
            f"rra_5{suffix}": [float(value < 5) for value in angle],
            f"direction_deg{suffix}": direction,
            f"rta_15{suffix}": [float(value < 15) for value in direction],
        }
    return row


def _flow(outputs: dict[str, Tensor], batch: Batch) -> dict[str, list[float]]:
    """End-point errors of the head, of the predicted geometry and of zero flow, pixels, mean over
    covisible pixels per pair."""
    height, width = batch.images.shape[-2:]
    half = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    clips = torch.arange(len(batch.images))[:, None]
    source, target = batch.pairs[..., 0], batch.pairs[..., 1]
    local = outputs["local_points"]
    rays = local[..., :2] / local[..., 2:]
    geometry = reproject(
        outputs["points"][clips, source].flatten(0, 1),
        outputs["camera_poses"][clips, target].flatten(0, 1),
        rays[clips, target].flatten(0, 1),
    ).reshape(batch.flow.shape)
    ys, xs = torch.meshgrid(
        torch.linspace(1, -1, height), torch.linspace(1, -1, width), indexing="ij"
    )
    still = torch.stack([xs, ys], dim=-1).expand(batch.flow.shape)
    row: dict[str, list[float]] = {}
    estimates = {"epe_head": outputs["flow"], "epe_geometry": geometry, "epe_zero": still}
    for name, estimate in estimates.items():
        error = ((estimate - batch.flow) * half).norm(dim=-1)
        seen = batch.covisibility > 0.5
        row[name] = [
            float(e[c].mean())
            for e, c in zip(error.flatten(0, 1), seen.flatten(0, 1), strict=True)
            if c.sum() > 50
        ]
    return row


def flow_errors(network: Flow3r, clips: Iterable[list[Sample]]) -> list[list[float]]:
    """End-point errors in pixels [head, geometry] of every pair of the clips with enough covisible
    pixels."""
    was_training = network.training
    network.eval()
    pairs: list[list[float]] = []
    for samples in clips:
        batch = collate(samples)
        row = _flow(answer(network, batch, batch.pairs, batch.evidence), batch)
        pairs += [list(both) for both in zip(row["epe_head"], row["epe_geometry"], strict=True)]
    network.train(was_training)
    return pairs


def border_step(depth: Tensor, patch: int) -> float:
    """Mean |step of log depth| between neighbours in two patches over that between neighbours in
    one, of maps `[..., H, W]`; 1 where patches leave no trace."""
    log = depth.clamp(min=1e-6).log()
    across, within = [], []
    for axis in (-1, -2):
        steps = log.diff(dim=axis).abs().movedim(axis, 0)
        on_border = torch.arange(1, len(steps) + 1) % patch == 0
        across.append(steps[on_border].flatten())
        within.append(steps[~on_border].flatten())
    return float(torch.cat(across).mean() / torch.cat(within).mean().clamp(min=1e-12))


@torch.no_grad()
def reliability(network: Flow3r, clips: Iterable[list[Sample]]) -> list[tuple[Float32, Bool]]:
    """Per labelled clip what the network says of its pixels (every 7th), float32 `[M]`, and whether
    they are right, bool `[M]`."""
    was_training = network.training
    network.eval()
    found = []
    for samples in clips:
        batch = collate(samples)
        if len(batch.labelled):
            probability, right = _said_and_right(
                answer(network, batch, None, batch.evidence), batch
            )
            valid = batch.truth.valid
            found.append((probability[valid][::7].numpy(), right[valid][::7].numpy()))
    network.train(was_training)
    return found


def _said_and_right(outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
    """Confidence and whether the depth is within 10 %, `[L, N, H, W]` each."""
    local = outputs["local_points"][batch.labelled]
    scale = losses.best_scale(local, batch.truth)
    z = batch.truth.points[..., 2]
    right = (local[..., 2] * scale[:, None, None, None] - z).abs() < losses.CONFIDENT_ERROR * z
    return outputs["conf"][batch.labelled][..., 0].sigmoid(), right


def _confidence(outputs: dict[str, Tensor], batch: Batch) -> dict[str, list[float]]:
    """Is the confidence a probability, and does it rank right pixels before wrong ones?"""
    probability, right = _said_and_right(outputs, batch)
    row: dict[str, list[float]] = {
        "confidence_mean": [float(probability[batch.truth.valid].mean())],
        "confidence_right": [float(right[batch.truth.valid].float().mean())],
    }
    chosen = probability[batch.truth.valid][::7].numpy(), right[batch.truth.valid][::7].numpy()
    if 0 < chosen[1].sum() < len(chosen[1]):
        row["confidence_auc"] = [_auc(*chosen)]
    row["confidence_error"] = [calibration_error(*chosen)]
    return row


def _auc(score: Float32, label: Float32) -> float:
    order = np.argsort(score)
    rank = np.empty(len(score), np.float64)
    rank[order] = np.arange(1, len(score) + 1)
    positive = label.astype(bool)
    count = int(positive.sum())
    return float((rank[positive].sum() - count * (count + 1) / 2) / (count * (len(score) - count)))


def _degrees(angles: Tensor) -> list[float]:
    return [float(value) for value in torch.rad2deg(angles).flatten()]


def _summary(rows: list[dict[str, list[float]]]) -> dict[str, float]:
    names = sorted({name for row in rows for name in row})
    pooled: dict[str, Float64] = {
        name: np.array([value for row in rows for value in row.get(name, [])]) for name in names
    }
    medians = ("rotation_deg", "direction_deg", "epe_")
    return {
        name: float(np.median(values) if name.startswith(medians) else np.mean(values))
        for name, values in pooled.items()
        if values.size
    } | {"clips": float(len(rows))}
