import numpy as np
import pytest

from flow3r_ros.errors import CameraError
from flow3r_ros.geometry import lie
from flow3r_ros.geometry.calibration import estimate_focal, focal_from_points
from flow3r_ros.geometry.camera import rays
from flow3r_ros.types import Camera
from test.geometry.views import exact_correspondence

MOTIONS = (
    [0.2, 0.05, 0.1, 0.03, -0.08, 0.05],
    [-0.2, 0.1, 0.1, -0.06, 0.1, 0.0],
    [0.1, -0.1, 0.3, 0.1, 0.05, -0.05],
)


def test_focal_is_found_from_turning_motions():
    flows = [
        exact_correspondence(lie.se3_exp(motion), noise=0.2, seed=i)[0]
        for i, motion in enumerate(MOTIONS)
    ]
    found = estimate_focal(flows, 672, 504)
    assert found.observable
    assert found.confidence > 0.5
    assert found.focal == pytest.approx(2 * 280.0, rel=0.05)


def test_nothing_to_see_falls_back_and_says_so():
    still = exact_correspondence(np.eye(4), noise=0.2)[0]
    for flows in ([], [still]):
        found = estimate_focal(flows, 640, 480)
        assert (found.observable, found.confidence, found.focal) == (
            False,
            0.0,
            pytest.approx(576.0),
        )


def test_straight_motion_before_a_wall_is_not_observable():
    """Shifting without turning scales with the focal length: any value explains it."""
    flow = exact_correspondence(lie.rigid(np.eye(3), [0.3, 0.0, 0.0]), noise=0.3)[0]
    assert not estimate_focal([flow], 336, 252).observable


def test_focal_is_recovered_despite_outliers():
    rng = np.random.default_rng(0)
    camera = Camera(80, 60, 70.0, 65.0, 39.5, 29.5)
    depth = rng.uniform(1, 5, (60, 80)).astype(np.float32)
    points = np.concatenate([rays(camera) * depth[..., None], depth[..., None]], -1)
    points += rng.normal(0, 0.01, points.shape).astype(np.float32)
    bad = rng.random((60, 80)) < 0.25
    points[bad] = rng.normal(0, 3, (int(bad.sum()), 3))
    points[0, 0] = np.nan
    fx, fy = focal_from_points(points, np.ones((60, 80), np.float32))
    assert fx == pytest.approx(70.0, rel=0.02)
    assert fy == pytest.approx(65.0, rel=0.02)


def test_focal_of_nothing_is_an_error():
    with pytest.raises(CameraError):
        focal_from_points(np.full((4, 4, 3), np.nan, np.float32), np.ones((4, 4), np.float32))
