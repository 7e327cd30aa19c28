"""The weighted sum of the losses for one batch, with every term named for the log."""

from __future__ import annotations

import torch
from torch import Tensor

from flow3r_ros.network.model import Outputs
from flow3r_ros.training import losses
from flow3r_ros.training.flow_losses import projective_flow
from flow3r_ros.training.losses import Truth
from flow3r_ros.training.sample import Batch
from flow3r_ros.training.train_config import LossWeights


def objective(
    outputs: Outputs, batch: Batch, weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss (scalar) and its unweighted terms, means over the samples of the batch.

    Every sample is scored by itself, so the mean over processes that share a batch is the loss of
    the whole batch. Geometry terms are zero for samples without labels.
    """
    flow = outputs["flow"]
    if flow is not None and weights.flow_kind == "projective":
        flow = projective_flow(outputs, batch.pairs)
    size = len(batch.images)
    sums: dict[str, Tensor] = {}
    for index in range(size if flow is not None and weights.flow else 0):
        assert flow is not None
        one = slice(index, index + 1)
        flow_loss = losses.official_flow_loss if weights.kind == "official" else losses.flow_loss
        _add(sums, "flow", flow_loss(flow[one], batch.flow[one], batch.covisibility[one]))
    for row, sample in enumerate(batch.labelled.tolist()):
        for name, value in _geometry(
            outputs, sample, Truth(*(part[row : row + 1] for part in batch.truth)), weights
        ).items():
            _add(sums, name, value)
    terms = {name: value / size for name, value in sums.items()}
    total = torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
    return total, terms


def _geometry(
    outputs: Outputs, sample: int, truth: Truth, weights: LossWeights
) -> dict[str, Tensor]:
    """Terms of one labelled sample."""
    one = slice(sample, sample + 1)
    local = outputs["local_points"][one]
    scale = losses.best_scale(local, truth)
    terms = {
        "point": losses.point_loss(local, truth, scale),
        "pose": (losses.official_pose_loss if weights.kind == "official" else losses.pose_loss)(
            outputs["camera_poses"][one], truth, scale
        ),
        "confidence": losses.confidence_loss(outputs["conf"][one], local, truth, scale),
    }
    if weights.normal:
        terms["normal"] = losses.normal_loss(local, truth)
    return terms


def _add(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value if name in sums else value
