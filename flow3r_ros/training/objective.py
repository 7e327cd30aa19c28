"""The weighted sum of the losses for one batch, with every term named for the log."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from flow3r_ros.network.outputs import Outputs
from flow3r_ros.training import losses
from flow3r_ros.training.flow_losses import projective_flow
from flow3r_ros.training.losses import Truth
from flow3r_ros.training.sample import Batch
from flow3r_ros.training.train_config import LossWeights

NOT_FINITE = "not_finite"
"""among the terms: how many were left out because they were not finite"""

_PREDICTION: dict[str, Literal["local_points", "camera_poses", "conf"]] = {
    "point": "local_points",
    "normal": "local_points",
    "pose": "camera_poses",
    "confidence": "conf",
}


def objective(
    outputs: Outputs, batch: Batch, weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss (scalar) and its unweighted terms, means over the samples of the batch.

    Every sample is scored by itself, so the mean over processes that share a batch is the loss of
    the whole batch. Geometry terms are zero for samples without labels. A term that is not finite
    becomes zero times the prediction, as in the authors' training code, and is counted under
    `NOT_FINITE`.
    """
    flow = outputs["flow"]
    if flow is not None and weights.flow_kind == "projective":
        flow = projective_flow(outputs, batch.pairs)
    flow_loss = losses.flow_loss if weights.recipe == "official" else losses.charbonnier_flow_loss
    size = len(batch.images)
    sums: dict[str, Tensor] = {}
    lost = torch.zeros((), device=batch.images.device)
    for index in range(size if flow is not None and weights.flow else 0):
        assert flow is not None
        one = slice(index, index + 1)
        value = flow_loss(flow[one], batch.flow[one], batch.covisibility[one])
        lost += _add(sums, "flow", value, flow[one])
    for row, sample in enumerate(batch.labelled.tolist()):
        truth = Truth(*(part[row : row + 1] for part in batch.truth))
        for name, value in _geometry(outputs, sample, truth, weights).items():
            lost += _add(sums, name, value, outputs[_PREDICTION[name]][sample])
    terms = {name: value / size for name, value in sums.items()}
    total = torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
    return total, {**terms, NOT_FINITE: lost}


def _geometry(
    outputs: Outputs, sample: int, truth: Truth, weights: LossWeights
) -> dict[str, Tensor]:
    """Terms of one labelled sample."""
    one = slice(sample, sample + 1)
    local = outputs["local_points"][one]
    scale = losses.best_scale(local, truth)
    pose_loss = losses.pose_loss if weights.recipe == "official" else losses.relative_pose_loss
    terms = {
        "point": losses.point_loss(local, truth, scale),
        "pose": pose_loss(outputs["camera_poses"][one], truth, scale),
        "confidence": losses.confidence_loss(outputs["conf"][one], local, truth, scale),
    }
    if weights.normal:
        terms["normal"] = losses.normal_loss(local, truth)
    return terms


def _add(sums: dict[str, Tensor], name: str, value: Tensor, prediction: Tensor) -> float:
    """Add a term to its sum; 1 where it is not finite and counts as zero."""
    finite = bool(torch.isfinite(value))
    term = value if finite else 0.0 * torch.nan_to_num(prediction).sum()
    sums[name] = sums[name] + term if name in sums else term
    return 0.0 if finite else 1.0
