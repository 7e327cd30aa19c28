"""The alternatives of the controlled experiment: right on true geometry, and their gradients go
where the paper says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flow3r_ros.geometry.camera import rays as rays_of
from flow3r_ros.geometry.flow import ndc_from_pixels, pixel_grid
from flow3r_ros.network import load_model
from flow3r_ros.training.export import export, initial_network
from flow3r_ros.training.flow_losses import TrackingHead, projective_flow
from flow3r_ros.training.losses import flow_loss
from flow3r_ros.training.objective import NOT_FINITE, objective
from flow3r_ros.training.sample import collate
from test.training.clip_factory import scene

PAIRS = torch.tensor([[[0, 1], [2, 0]]])


def true_outputs():
    made = scene(seed=3, frames=3, width=112, height=84)
    rays = torch.from_numpy(rays_of(made.camera))
    depth = torch.from_numpy(made.depth)
    local = torch.cat([rays.expand(3, -1, -1, 2) * depth[..., None], depth[..., None]], -1)[None]
    poses = torch.from_numpy(made.poses).float()[None]
    points = (
        torch.einsum("bnij,bnhwj->bnhwi", poses[..., :3, :3], local) + poses[..., None, None, :3, 3]
    )
    return made, {
        "points": points,
        "local_points": local,
        "camera_poses": poses,
        "conf": depth[None, ..., None],
        "flow": None,
    }


def ndc_from_flow(flow: np.ndarray) -> np.ndarray:
    """Absolute target positions in NDC `[h, w, 2]` of displacement in pixels."""
    height, width = flow.shape[:2]
    return ndc_from_pixels(pixel_grid(width, height) + flow, width, height)


def test_projective_flow_of_true_geometry_is_the_true_flow():
    made, outputs = true_outputs()
    flow = projective_flow(outputs, PAIRS)
    for k, (i, j) in enumerate(PAIRS[0].tolist()):
        truth, covisible = made.flow(i, j)
        expected = ndc_from_flow(truth)
        assert np.abs(flow[0, k].numpy() - expected)[covisible].max() < 2e-3


def test_projective_gradient_moves_a_wrong_pose_towards_the_truth():
    made, outputs = true_outputs()
    truth, covisible = made.flow(0, 1)
    wrong = outputs["camera_poses"].clone()
    wrong[0, 1, 0, 3] += 0.05
    wrong.requires_grad_(True)
    flow = projective_flow({**outputs, "camera_poses": wrong}, PAIRS[:, :1])
    target = torch.from_numpy(ndc_from_flow(truth)).float()[None, None]
    flow_loss(flow, target, torch.from_numpy(covisible).float()[None, None]).backward()
    assert wrong.grad is not None
    assert wrong.grad[0, 1, 0, 3] > 0


def test_the_tracking_head_learns_where_features_went():
    torch.manual_seed(0)
    head = TrackingHead(16, 14, channels=32)
    features = torch.randn(1, 6 * 8, 16)
    shifted = features.unflatten(1, (6, 8)).roll(1, dims=2).flatten(1, 2)
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    still = head(features, features, (6, 8)).detach()
    step = 2 * 14 / (8 * 14 - 1)
    target = still - torch.tensor([step, 0.0])
    seen = torch.ones(1, 84, 112)
    seen[:, :, -28:] = 0
    first = float(flow_loss(head(features, shifted, (6, 8)), target, seen))
    for _ in range(80):
        optimizer.zero_grad()
        loss = flow_loss(head(features, shifted, (6, 8)), target, seen)
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.4 * first


@pytest.mark.parametrize("kind", ["factored", "projective", "tracking"])
def test_which_parts_flow_supervision_reaches(kind, samples, tiny_settings):
    settings = tiny_settings(loss={"flow": 1.0, "flow_kind": kind})
    torch.manual_seed(1)
    network = initial_network(settings)
    batch = collate(samples[3:])
    unlabelled = batch._replace(labelled=batch.labelled[:0])
    loss, terms = objective(
        network(batch.images, batch.pairs, batch.evidence), unlabelled, settings.loss
    )
    assert list(terms) == ["flow", NOT_FINITE]
    assert terms[NOT_FINITE] == 0
    loss.backward()
    camera = network.camera_head.parameters()
    reached = any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in camera)
    assert reached == (kind != "tracking")
    assert any(
        p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.decoder.parameters()
    )


def test_the_tracking_head_stays_out_of_the_exported_model(tmp_path, tiny_settings):
    settings = tiny_settings(loss={"flow_kind": "tracking"})
    network = initial_network(settings)
    average = {name: value.clone() for name, value in network.state_dict().items()}
    folder = export(
        network, average, tmp_path / "model", settings, steps=1, seconds=1.0, metrics={}
    )
    assert not any("tracking" in name for name in load_model(folder).state_dict())
