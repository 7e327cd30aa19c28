"""What the network is taught by: factored flow, points up to scale, relative poses, normals,
confidence.

Sources: flow and poses, the authors' training code (`reference/flow3r_training_and_results.md`,
section 2b); points, normals and confidence, the recipe of pi3 (section 2); for the small network
the Charbonnier flow and the poses relative to the motion of `design/nano_recipe.md` (`loss.recipe:
relative`). Shapes: B clips, N frames,
S pairs, H x W pixels. Ground truth is first brought to unit size by `normalise`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHARBONNIER_EPSILON = 1e-3
"""NDC units; about 0.1 pixel of a 168-pixel image"""
FLOW_ALPHA, FLOW_SCALE, COVISIBLE = 0.5, 0.24, 0.5
"""shape and scale (NDC units) of the flow penalty and the covisibility a pixel must exceed, as in
the authors' training code (reference, section 2b)"""
SCALE_POINTS = 4096
"""points per clip that the scale is solved on"""
CONFIDENT_ERROR = 0.10
"""relative depth error below which a pixel counts as right: the confidence is the probability of
that"""


class Truth(NamedTuple):
    """Geometry of B clips in units of their mean distance from the first camera."""

    points: Tensor
    """`[B, N, H, W, 3]` in each camera's frame (0 where invalid)"""
    valid: Tensor
    """bool `[B, N, H, W]`"""
    poses: Tensor
    """`[B, N, 4, 4]` camera-to-world, first frame identity"""


def normalise(depth: Tensor, rays: Tensor, poses: Tensor) -> Truth:
    """Ground truth at unit size: divided by the mean distance of valid points from the first camera
    (pi3).

    Args:
        depth: `[B, N, H, W]`, not finite or <= 0 = unknown.
        rays: (x/z, y/z), `[B, N, H, W, 2]`.
        poses: camera-to-world `[B, N, 4, 4]`, same unit as depth.
    """
    valid = torch.isfinite(depth) & (depth > 0)
    z = torch.where(valid, depth, torch.zeros_like(depth))
    local = torch.cat([rays * z[..., None], z[..., None]], dim=-1)
    relative = torch.linalg.inv(poses[:, :1]) @ poses
    world = (
        torch.einsum("bnij,bnhwj->bnhwi", relative[..., :3, :3], local)
        + relative[..., None, None, :3, 3]
    )
    distance = (world.norm(dim=-1) * valid).sum((1, 2, 3)) / valid.sum((1, 2, 3)).clamp(min=1)
    unit = 1.0 / distance.clamp(min=1e-6)
    scaled = torch.cat(
        [relative[..., :3, :3], relative[..., :3, 3:] * unit[:, None, None, None]], dim=-1
    )
    return Truth(
        local * unit[:, None, None, None, None],
        valid,
        torch.cat([scaled, relative[..., 3:, :]], dim=-2),
    )


def point_weights(truth: Truth) -> Tensor:
    """w = 1 / (max(z, 0.1 mean z of the frame) + 1e-6) on valid pixels, 0 elsewhere, `[B, N, H, W]`
    (pi3)."""
    z = truth.points[..., 2]
    mean = (z * truth.valid).sum((2, 3)) / truth.valid.sum((2, 3)).clamp(min=1)
    return truth.valid / (torch.maximum(z, 0.1 * mean[..., None, None]) + 1e-6)


@torch.no_grad()
def best_scale(predicted: Tensor, truth: Truth) -> Tensor:
    """Scale `[B]` minimising sum w |s p^ - p|_1 over a clip: the exact weighted median of p / p^
    with weights w |p^|.

    Solved on at most `SCALE_POINTS` points (evenly spaced pixels, never interpolated); a negative
    scale is negated; clips without valid points get 1.
    """
    batch = len(predicted)
    weights, estimate, target = (
        value.reshape(batch, -1, *value.shape[4:])
        for value in (point_weights(truth), predicted.float(), truth.points)
    )
    stride = -(-weights.shape[1] // SCALE_POINTS)
    weights, estimate, target = weights[:, ::stride], estimate[:, ::stride], target[:, ::stride]
    cost = (weights[..., None] * estimate.abs()).flatten(1)
    ratio = (
        target / torch.where(estimate.abs() < 1e-8, torch.full_like(estimate, 1e-8), estimate)
    ).flatten(1)
    ratio, order = ratio.sort(dim=1)
    cumulative = cost.gather(1, order).cumsum(dim=1)
    middle = torch.searchsorted(cumulative, 0.5 * cumulative[:, -1:]).clamp(max=ratio.shape[1] - 1)
    scale = ratio.gather(1, middle)[:, 0].abs()
    usable = torch.isfinite(scale) & (scale > 1e-6) & (cumulative[:, -1] > 0)
    return torch.where(usable, scale, torch.ones_like(scale))


def point_loss(predicted: Tensor, truth: Truth, scale: Tensor) -> Tensor:
    """Mean of w |s p^ - p| over valid pixels and x, y, z (pi3; no gradient through s).

    Args:
        predicted: local points `[B, N, H, W, 3]`.
        scale: `[B]`, from `best_scale`.
    """
    error = (predicted * scale[:, None, None, None, None] - truth.points).abs().mean(dim=-1)
    return (error * point_weights(truth)).sum() / truth.valid.sum().clamp(min=1)


def relative_poses(poses: Tensor) -> Tensor:
    """inv(T_i) T_j of all ordered pairs i != j, `[B, N (N - 1), 4, 4]`."""
    frames = poses.shape[1]
    first, second = (
        index.flatten()
        for index in torch.meshgrid(torch.arange(frames), torch.arange(frames), indexing="ij")
    )
    apart = first != second
    source, target = poses[:, first[apart]], poses[:, second[apart]]
    rotation = source[..., :3, :3].transpose(-1, -2)
    top = torch.cat(
        [rotation @ target[..., :3, :3], rotation @ (target[..., :3, 3:] - source[..., :3, 3:])],
        dim=-1,
    )
    return torch.cat([top, target[..., 3:, :]], dim=-2)


def rotation_angle(rotations: Tensor) -> Tensor:
    """Angle of rotations `[..., 3, 3]` in radians, by atan2 of the skew part and the trace (regular
    at 0, unlike acos)."""
    skew = torch.stack(
        [
            rotations[..., 2, 1] - rotations[..., 1, 2],
            rotations[..., 0, 2] - rotations[..., 2, 0],
            rotations[..., 1, 0] - rotations[..., 0, 1],
        ],
        dim=-1,
    )
    trace = rotations.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.atan2((skew.square().sum(-1) + 1e-12).sqrt(), trace - 1.0)


def relative_pose_loss(predicted: Tensor, truth: Truth, scale: Tensor) -> Tensor:
    """Relative poses of all ordered pairs: 2 a + 0.2 a / (a* + .05) + 0.3 |dt| / (|t*| + .03) +
    0.15 (1 - cos(t, t*)).

    a is the geodesic angle to the truth in radians, a* the true motion's angle, t in unit-size
    clips; the relative and directional terms keep the answer from shrinking to identity, which
    plain errors reward (`design/nano_recipe.md`). Pairs that do not translate (|t*| < 0.01) have no
    direction.
    """
    ours, theirs = relative_poses(predicted), relative_poses(truth.poses)
    angle = rotation_angle(ours[..., :3, :3].transpose(-1, -2) @ theirs[..., :3, :3])
    motion = rotation_angle(theirs[..., :3, :3])
    moved, target = ours[..., :3, 3] * scale[:, None, None], theirs[..., :3, 3]
    length = target.norm(dim=-1)
    distance = ((moved - target).square().sum(-1) + 1e-10).sqrt()
    direction = 1.0 - F.cosine_similarity(moved, target, dim=-1, eps=1e-6)
    translates = length > 0.01
    direction = (direction * translates).sum() / translates.sum().clamp(min=1)
    relative = 0.2 * angle / (motion + 0.05) + 0.3 * distance / (length + 0.03)
    total: Tensor = (2.0 * angle + relative).mean() + 0.15 * direction
    return total


def flow_loss(predicted: Tensor, target: Tensor, covisibility: Tensor) -> Tensor:
    """Mean of Barron's penalty of |u^ - u| over the pixels that are covisible, in NDC (Flow3r).

    Args:
        predicted, target: absolute NDC positions `[B, S, H, W, 2]`.
        covisibility: `[B, S, H, W]` in [0, 1]; where it is at most `COVISIBLE` the target is
            ignored, NaN included.
    """
    seen = covisibility > COVISIBLE
    squared = (predicted[seen] - target[seen]).square().sum(-1) / FLOW_SCALE**2
    bend = abs(FLOW_ALPHA - 2.0)
    penalty = bend / FLOW_ALPHA * ((squared / bend + 1.0) ** (FLOW_ALPHA / 2) - 1.0)
    total: Tensor = penalty.sum() / seen.sum().clamp(min=1)
    return total


def pose_loss(predicted: Tensor, truth: Truth, scale: Tensor) -> Tensor:
    """Relative poses of all ordered pairs: 100 Huber(0.1) of the translation's components plus the
    mean geodesic angle (pi3, Flow3r)."""
    ours, theirs = relative_poses(predicted), relative_poses(truth.poses)
    moved = ours[..., :3, 3] * scale[:, None, None]
    distance = F.huber_loss(moved, theirs[..., :3, 3], delta=0.1)
    angle = rotation_angle(ours[..., :3, :3].transpose(-1, -2) @ theirs[..., :3, :3])
    total: Tensor = 100.0 * distance + angle.mean()
    return total


def charbonnier_flow_loss(predicted: Tensor, target: Tensor, covisibility: Tensor) -> Tensor:
    """Sum C sqrt(|u^ - u|^2 + eps^2) / sum C over all pairs, in NDC (Flow3r, eq. of L_flow; eps is
    ours).

    Args:
        predicted, target: absolute NDC positions `[B, S, H, W, 2]`.
        covisibility: C in [0, 1], `[B, S, H, W]`; where it is 0 the target is ignored, NaN
            included.
    """
    known = covisibility > 0
    difference = torch.where(known[..., None], predicted - target, torch.zeros_like(predicted))
    error = (difference.square().sum(-1) + CHARBONNIER_EPSILON**2).sqrt() - CHARBONNIER_EPSILON
    mean: Tensor = (error * covisibility).sum() / covisibility.sum().clamp(min=1.0)
    return mean


def normal_loss(predicted: Tensor, truth: Truth) -> Tensor:
    """Angles between the normals of 2 x 2 cells (pi3): four cross products a cell, clamped to [1,
    90] degrees, smooth-L1 (3 degrees).

    Cells on depth edges (relative jump > 3 %) or with invalid corners count as zero; the mean over
    all cells is divided by 4 max(H, W) as published.
    """
    cell = truth.points[..., 2].unfold(-2, 2, 1).unfold(-2, 2, 1).flatten(-2)
    whole = truth.valid.unfold(-2, 2, 1).unfold(-2, 2, 1).flatten(-2).all(-1)
    whole = whole & ((cell.amax(-1) - cell.amin(-1)) < 0.03 * cell.amin(-1))
    total = predicted.new_zeros(())
    for ours, theirs in zip(_cell_normals(predicted), _cell_normals(truth.points), strict=True):
        angle = torch.atan2(_length(torch.linalg.cross(ours, theirs)), (ours * theirs).sum(-1))
        low, high = torch.pi / 180.0, torch.pi / 2.0
        beta = 3.0 * torch.pi / 180.0
        bounded = angle.clamp(low, high)
        cost = torch.where(bounded < beta, 0.5 * bounded.square() / beta, bounded - 0.5 * beta)
        total = total + (cost * whole).mean()
    return total / (4 * max(predicted.shape[2:4]))


def _cell_normals(points: Tensor) -> list[Tensor]:
    """Cross products at the four corners of every 2 x 2 cell, each `[B, N, H-1, W-1, 3]`, scaled to
    the cell's size."""
    a, b, c, d = (
        points[:, :, :-1, :-1],
        points[:, :, :-1, 1:],
        points[:, :, 1:, 1:],
        points[:, :, 1:, :-1],
    )
    corners = [(a, b, d), (b, c, a), (c, d, b), (d, a, c)]
    return [
        F.normalize(torch.linalg.cross(following - at, before - at), dim=-1, eps=1e-12)
        for at, following, before in corners
    ]


def _length(vectors: Tensor) -> Tensor:
    return (vectors.square().sum(-1) + 1e-12).sqrt()


def confidence_loss(logits: Tensor, predicted: Tensor, truth: Truth, scale: Tensor) -> Tensor:
    """BCE between the confidence and "the depth of this pixel is within `CONFIDENT_ERROR`", so that
    it is a probability.

    pi3 asks whether the weighted point error is below 0.02; for depth maps a relative error is the
    same question without the field of view in it. No gradient reaches the points.
    """
    z = truth.points[..., 2]
    error = (predicted[..., 2].detach() * scale[:, None, None, None] - z).abs()
    right = (error < CONFIDENT_ERROR * z).to(logits.dtype)
    cost = F.binary_cross_entropy_with_logits(logits[..., 0], right, reduction="none")
    return (cost * truth.valid).sum() / truth.valid.sum().clamp(min=1)
