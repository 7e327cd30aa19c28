"""Every loss equals a slow reference, and points where it should."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from flow3r_ros.geometry.lie import so3_exp
from flow3r_ros.training import losses
from flow3r_ros.training.losses import Truth, normalise


def make_truth(batch=2, frames=3, height=6, width=8, seed=0, invalid=True) -> Truth:
    generator = torch.Generator().manual_seed(seed)
    depth = 1.0 + 3.0 * torch.rand(batch, frames, height, width, generator=generator)
    if invalid:
        depth[0, 0, :2] = float("nan")
        depth[1, 2, 3, 4] = 0.0
    rays = torch.rand(batch, frames, height, width, 2, generator=generator) - 0.5
    poses = torch.eye(4).repeat(batch, frames, 1, 1)
    rng = np.random.default_rng(seed)
    for b in range(batch):
        for n in range(frames):
            poses[b, n, :3, :3] = torch.from_numpy(so3_exp(rng.normal(size=3) * 0.3)).float()
            poses[b, n, :3, 3] = torch.from_numpy(rng.normal(size=3)).float()
    return normalise(depth, rays, poses)


def test_normalised_truth_has_unit_mean_distance_and_starts_at_identity():
    truth = make_truth()
    torch.testing.assert_close(truth.poses[:, 0], torch.eye(4).expand(2, 4, 4), atol=1e-6, rtol=0)
    for b in range(2):
        distances = [
            float(
                (
                    truth.poses[b, n, :3, :3] @ truth.points[b, n, y, x] + truth.poses[b, n, :3, 3]
                ).norm()
            )
            for n in range(3)
            for y in range(6)
            for x in range(8)
            if truth.valid[b, n, y, x]
        ]
        assert np.mean(distances) == pytest.approx(1.0, abs=1e-5)
    assert not truth.valid[0, 0, :2].any()
    assert not truth.valid[1, 2, 3, 4]


def slow_scale_cost(scale: float, predicted: torch.Tensor, truth: Truth, clip: int) -> float:
    weights = losses.point_weights(truth)
    return float(
        (weights[clip][..., None] * (scale * predicted[clip] - truth.points[clip]).abs()).sum()
    )


def test_the_scale_is_the_exact_minimum_of_the_weighted_l1_cost():
    truth = make_truth()
    predicted = (
        truth.points
        * torch.tensor([0.4, 3.0])[:, None, None, None, None]
        * (1 + 0.3 * torch.randn_like(truth.points))
    )
    scale = losses.best_scale(predicted, truth)
    for clip in range(2):
        best = slow_scale_cost(float(scale[clip]), predicted, truth, clip)
        for candidate in np.concatenate(
            [np.linspace(0.1, 5, 400), float(scale[clip]) * np.array([0.999, 1.001])]
        ):
            assert best <= slow_scale_cost(float(candidate), predicted, truth, clip) * (1 + 1e-5)


def test_scale_of_a_clip_without_valid_points_is_one():
    truth = make_truth()
    empty = Truth(truth.points, torch.zeros_like(truth.valid), truth.poses)
    torch.testing.assert_close(losses.best_scale(truth.points, empty), torch.ones(2))


def test_point_loss_equals_the_slow_sum_and_is_zero_at_the_truth():
    truth = make_truth()
    predicted = truth.points + 0.1 * torch.randn_like(truth.points)
    scale = torch.tensor([1.1, 0.9])
    total, count = 0.0, 0
    for b in range(2):
        for n in range(3):
            z = truth.points[b, n, ..., 2]
            mean = float(z[truth.valid[b, n]].mean())
            for y in range(6):
                for x in range(8):
                    if truth.valid[b, n, y, x]:
                        weight = 1.0 / (max(float(z[y, x]), 0.1 * mean) + 1e-6)
                        total += weight * float(
                            (scale[b] * predicted[b, n, y, x] - truth.points[b, n, y, x])
                            .abs()
                            .mean()
                        )
                        count += 1
    assert float(losses.point_loss(predicted, truth, scale)) == pytest.approx(
        total / count, rel=1e-4
    )
    assert float(losses.point_loss(truth.points, truth, torch.ones(2))) == pytest.approx(
        0.0, abs=1e-6
    )


def test_pose_loss_equals_the_slow_sum_over_ordered_pairs():
    truth, other = make_truth(seed=0), make_truth(seed=5)
    scale = torch.tensor([1.2, 0.7])
    costs, directions = [], []
    for b in range(2):
        for i in range(3):
            for j in range(3):
                if i == j:
                    continue
                ours = torch.linalg.inv(other.poses[b, i]) @ other.poses[b, j]
                theirs = torch.linalg.inv(truth.poses[b, i]) @ truth.poses[b, j]
                angle = math.acos(
                    max(-1, min(1, (float(torch.trace(ours[:3, :3].T @ theirs[:3, :3])) - 1) / 2))
                )
                motion = math.acos(max(-1, min(1, (float(torch.trace(theirs[:3, :3])) - 1) / 2)))
                t, target = scale[b] * ours[:3, 3], theirs[:3, 3]
                distance, length = float((t - target).norm()), float(target.norm())
                costs.append(
                    2 * angle + 0.2 * angle / (motion + 0.05) + 0.3 * distance / (length + 0.03)
                )
                directions.append(1 - float(t @ target) / (float(t.norm()) * length))
    expected = np.mean(costs) + 0.15 * np.mean(directions)
    assert float(losses.relative_pose_loss(other.poses, truth, scale)) == pytest.approx(
        expected, rel=1e-3
    )
    assert float(losses.relative_pose_loss(truth.poses, truth, torch.ones(2))) == pytest.approx(
        0.0, abs=2e-3
    )


def test_pose_loss_ignores_the_world_frame_and_its_gradient_exists_at_the_truth():
    truth = make_truth()
    moved = torch.eye(4)
    moved[:3, :3] = torch.from_numpy(so3_exp([0.3, -0.2, 0.5])).float()
    moved[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    other = make_truth(seed=5).poses
    ours, same = (
        losses.relative_pose_loss(poses, truth, torch.ones(2)) for poses in (other, moved @ other)
    )
    torch.testing.assert_close(ours, same, atol=1e-4, rtol=0)
    poses = truth.poses.clone().requires_grad_()
    losses.relative_pose_loss(poses, truth, torch.ones(2)).backward()
    assert poses.grad is not None
    assert torch.isfinite(poses.grad).all()


def test_official_flow_loss_is_barrons_penalty_over_covisible_pixels_alone():
    generator = torch.Generator().manual_seed(3)
    predicted, target = (torch.randn(1, 2, 4, 5, 2, generator=generator) for _ in range(2))
    covisibility = torch.rand(1, 2, 4, 5, generator=generator)
    covisibility[0, 0, 0] = 0.5
    target[0, 0, 0] = float("nan")
    costs = []
    for place in (covisibility > 0.5).nonzero().tolist():
        error = float((predicted[tuple(place)] - target[tuple(place)]).norm()) / 0.24
        costs.append(1.5 / 0.5 * ((error**2 / 1.5 + 1) ** 0.25 - 1))
    predicted.requires_grad_()
    loss = losses.flow_loss(predicted, target, covisibility)
    assert float(loss.detach()) == pytest.approx(np.mean(costs), rel=1e-5)
    loss.backward()
    assert torch.isfinite(predicted.grad).all()
    assert not predicted.grad[covisibility <= 0.5].any()
    nothing = losses.flow_loss(predicted, target, torch.zeros_like(covisibility))
    assert float(nothing.detach()) == 0


def test_official_pose_loss_equals_the_slow_sum_over_ordered_pairs():
    truth, other = make_truth(seed=0), make_truth(seed=5)
    scale = torch.tensor([1.2, 0.7])
    distances, angles = [], []
    for b in range(2):
        for i in range(3):
            for j in range(3):
                if i == j:
                    continue
                ours = torch.linalg.inv(other.poses[b, i]) @ other.poses[b, j]
                theirs = torch.linalg.inv(truth.poses[b, i]) @ truth.poses[b, j]
                cosine = (float(torch.trace(ours[:3, :3].T @ theirs[:3, :3])) - 1) / 2
                angles.append(math.acos(max(-1, min(1, cosine))))
                for error in (scale[b] * ours[:3, 3] - theirs[:3, 3]).abs().tolist():
                    distances.append(0.5 * error**2 if error < 0.1 else 0.1 * (error - 0.05))
    expected = 100 * np.mean(distances) + np.mean(angles)
    assert float(losses.pose_loss(other.poses, truth, scale)) == pytest.approx(expected, rel=1e-3)
    still = losses.pose_loss(truth.poses, truth, torch.ones(2))
    assert float(still) == pytest.approx(0.0, abs=1e-4)


def test_charbonnier_flow_loss_equals_the_slow_sum_and_ignores_hidden_pixels():
    generator = torch.Generator().manual_seed(3)
    predicted, target = (
        torch.randn(1, 2, 4, 5, 2, generator=generator),
        torch.randn(1, 2, 4, 5, 2, generator=generator),
    )
    covisibility = torch.rand(1, 2, 4, 5, generator=generator)
    covisibility[0, 0, 0] = 0
    target[0, 0, 0] = float("nan")
    total = 0.0
    for s in range(2):
        for y in range(4):
            for x in range(5):
                if covisibility[0, s, y, x] > 0:
                    squared = float((predicted[0, s, y, x] - target[0, s, y, x]).square().sum())
                    error = (
                        math.sqrt(squared + losses.CHARBONNIER_EPSILON**2)
                        - losses.CHARBONNIER_EPSILON
                    )
                    total += float(covisibility[0, s, y, x]) * error
    expected = total / float(covisibility.sum())
    predicted.requires_grad_()
    loss = losses.charbonnier_flow_loss(predicted, target, covisibility)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert torch.isfinite(predicted.grad).all()
    assert not predicted.grad[0, 0, 0].any()
    towards = -(predicted.grad * (target - predicted.detach())).sum(-1)[covisibility > 0]
    assert (towards > 0).all()


def test_normal_loss_equals_the_slow_sum():
    truth = make_truth(1, 1, 5, 6, invalid=False)
    depth = 2.0 + 0.01 * torch.arange(30.0).reshape(1, 1, 5, 6)
    depth[0, 0, :, 4:] += 2.0
    rays = torch.stack(
        torch.meshgrid(torch.linspace(-0.4, 0.4, 6), torch.linspace(-0.3, 0.3, 5), indexing="xy"),
        dim=-1,
    )[None, None]
    truth = normalise(depth, rays, torch.eye(4)[None, None])
    predicted = truth.points * (1 + 0.1 * torch.randn_like(truth.points[..., :1]))
    total, degree = 0.0, math.pi / 180
    for y in range(4):
        for x in range(5):
            corners = [(y, x), (y, x + 1), (y + 1, x + 1), (y + 1, x)]
            z = [float(truth.points[0, 0, a, b, 2]) for a, b in corners]
            if max(z) - min(z) >= 0.03 * min(z):
                continue
            for k in range(4):
                here, following, before = corners[k], corners[(k + 1) % 4], corners[k - 1]
                normals = []
                for points in (predicted[0, 0], truth.points[0, 0]):
                    normals.append(
                        torch.linalg.cross(
                            points[following] - points[here], points[before] - points[here]
                        )
                    )
                cosine = float(
                    torch.nn.functional.cosine_similarity(normals[0], normals[1], dim=0, eps=1e-30)
                )
                angle = min(max(math.acos(max(-1.0, min(1.0, cosine))), degree), 90 * degree)
                total += (
                    0.5 * angle**2 / (3 * degree) if angle < 3 * degree else angle - 1.5 * degree
                )
    assert total > 0
    assert float(losses.normal_loss(predicted, truth)) == pytest.approx(
        total / 20 / (4 * 6), rel=1e-3
    )


def test_confidence_loss_is_least_at_the_share_of_right_pixels_and_leaves_the_points_alone():
    truth = make_truth(invalid=False)
    predicted = truth.points.clone()
    predicted[:, :, :2, :, 2] *= 1.5
    predicted.requires_grad_()
    share = 4 / 6

    def at(probability: float) -> torch.Tensor:
        logits = torch.full(
            (*truth.valid.shape, 1), math.log(probability / (1 - probability)), requires_grad=True
        )
        return losses.confidence_loss(logits, predicted, truth, torch.ones(2))

    entropy = -(share * math.log(share) + (1 - share) * math.log(1 - share))
    assert float(at(share).detach()) == pytest.approx(entropy, rel=1e-4)
    assert at(share) < at(share + 0.1)
    assert at(share) < at(share - 0.1)
    at(0.5).backward()
    assert predicted.grad is None
