import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from flow3r_ros.geometry import flow as flows
from flow3r_ros.geometry import lie
from flow3r_ros.types import Camera
from test.conftest import shared_path


@pytest.fixture(scope="module")
def golden():
    return load_file(shared_path("reference/utils_golden.safetensors"))


def test_conversions_equal_the_reference(golden):
    ndc, height, width = golden["coords_ndc"], *golden["coords_ndc"].shape[1:3]
    np.testing.assert_allclose(
        flows.ndc_from_pixels(golden["coords_px"], width, height), ndc, atol=1e-5
    )
    np.testing.assert_allclose(
        flows.pixels_from_ndc(ndc, width, height), golden["coords_px_back"], atol=1e-5
    )
    np.testing.assert_allclose(flows.flow_from_ndc(ndc), golden["flow_px"], atol=1e-5)


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 1000))
def test_ndc_round_trip(width, height, seed):
    flow = np.random.default_rng(seed).normal(0, 10, (height, width, 2))
    ndc = flows.ndc_from_pixels(flows.pixel_grid(width, height) + flow, width, height)
    np.testing.assert_allclose(flows.flow_from_ndc(ndc), flow, atol=1e-4)


def plane_pair(T_a_b):
    """Exact depth of the plane z = 4 + 0.2 x - 0.1 y (frame a) in two cameras."""
    camera = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
    normal, offset = np.array([-0.2, 0.1, 1.0]), 4.0
    columns, rows = np.meshgrid(np.arange(64), np.arange(48))
    rays = np.stack([(columns - 31.5) / 60, (rows - 23.5) / 60, np.ones((48, 64))], -1)
    depth_a = offset / (rays @ normal)
    depth_b = (offset - normal @ T_a_b[:3, 3]) / (rays @ T_a_b[:3, :3].T @ normal)
    return camera, depth_a.astype(np.float32), depth_b.astype(np.float32)


def test_geometric_flow_of_a_plane_is_its_homography_and_composes():
    T = lie.se3_exp([0.2, -0.1, 0.3, 0.02, -0.03, 0.05])
    camera, depth_a, depth_b = plane_pair(T)
    forward, covisible = flows.geometric_flow(depth_a, T, camera, camera, depth_b)
    backward, _ = flows.geometric_flow(depth_b, lie.invert(T), camera, camera, depth_a)
    normal = np.array([-0.2, 0.1, 1.0])
    T_b_a = lie.invert(T)
    H = (
        camera.matrix
        @ (T_b_a[:3, :3] + np.outer(T_b_a[:3, 3], normal) / 4.0)
        @ np.linalg.inv(camera.matrix)
    )
    grid = flows.pixel_grid(64, 48).astype(float)
    mapped = np.concatenate([grid, np.ones((48, 64, 1))], -1) @ H.T
    np.testing.assert_allclose(forward, mapped[..., :2] / mapped[..., 2:] - grid, atol=1e-3)
    assert covisible.mean() > 0.6
    there_and_back = flows.compose(forward, backward)
    assert np.abs(there_and_back[covisible]).max() < 0.02


def test_hidden_and_unknown_points_are_not_covisible():
    camera, depth, _ = plane_pair(np.eye(4))
    wall = depth.copy()
    wall[:, :20] = 1.0
    depth[5, 40] = np.nan
    flow, covisible = flows.geometric_flow(depth, np.eye(4), camera, camera, wall)
    assert not covisible[:, :20].any()
    assert not covisible[5, 40]
    assert covisible[:, 21:].sum() == covisible[:, 21:].size - 1
    assert np.isfinite(flow).all()
    assert not flows.geometric_flow(depth, lie.rigid(np.eye(3), [0, 0, 50.0]), camera, camera)[
        1
    ].any()


def test_warp_by_a_shift_reproduces_the_image():
    image = np.random.default_rng(0).integers(0, 255, (20, 30), dtype=np.uint8)
    shift = np.zeros((20, 30, 2), np.float32) + np.float32([3, -2])
    np.testing.assert_array_equal(flows.warp(image, shift)[2:, :-3], image[:-2, 3:])


@pytest.mark.parametrize(("width", "height"), [(32, 24), (128, 96), (64, 48)])
def test_resizing_scales_displacements(width, height):
    flow = np.zeros((48, 64, 2), np.float32) + np.float32([4, -2])
    resized = flows.resize_flow(flow, width, height)
    assert resized.shape == (height, width, 2)
    np.testing.assert_allclose(resized[5, 5], [4 * width / 64, -2 * height / 48], rtol=1e-5)
