"""Our clouds and rotations as ROS 2's own packages read them. Neither is on PyPI: this runs where
they are installed with apt (`ros-DISTRO-sensor-msgs-py`, `ros-DISTRO-tf-transformations`)."""

from __future__ import annotations

import numpy as np
import pytest

from flow3r_ros.geometry.lie import matrix_from_quaternion, quaternion_from_matrix, so3_exp

REASON = "{} is not installed; it is not on PyPI, apt has it"


def test_sensor_msgs_py_reads_our_cloud() -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    point_cloud2 = pytest.importorskip(
        "sensor_msgs_py.point_cloud2", reason=REASON.format("sensor_msgs_py")
    )
    from flow3r_ros.ros.messages import make
    from flow3r_ros.wire.clouds import map_cloud
    from flow3r_ros.wire.transforms import header_of

    random = np.random.default_rng(0)
    points = random.normal(size=(50, 3)).astype(np.float32)
    rgb = random.integers(0, 255, (50, 3), np.uint8)
    confidence = random.uniform(0, 1, 50).astype(np.float32)
    cloud = map_cloud(make, header_of(make, 5, "odom"), points, rgb, confidence)
    read = point_cloud2.read_points(cloud)
    assert read.dtype.names == ("x", "y", "z", "rgb", "confidence")
    for index, axis in enumerate("xyz"):
        np.testing.assert_array_equal(read[axis], points[:, index])
    np.testing.assert_array_equal(read["confidence"], confidence)
    packed = np.ascontiguousarray(read["rgb"]).view(np.uint32)
    for index, shift in enumerate((16, 8, 0)):
        np.testing.assert_array_equal((packed >> shift) & 255, rgb[:, index])
    xyz = point_cloud2.read_points_numpy(cloud, field_names=["x", "y", "z"])
    np.testing.assert_array_equal(xyz, points)


def test_tf_transformations_agrees_on_quaternions() -> None:
    oracle = pytest.importorskip("tf_transformations", reason=REASON.format("tf_transformations"))
    random = np.random.default_rng(1)
    for _ in range(50):
        R = so3_exp(random.normal(size=3) * 2)
        matrix = np.eye(4)
        matrix[:3, :3] = R
        ours, theirs = quaternion_from_matrix(R), np.array(oracle.quaternion_from_matrix(matrix))
        assert abs(ours @ theirs) == pytest.approx(1.0, abs=1e-12), "x y z w, up to the sign"
        np.testing.assert_allclose(oracle.quaternion_matrix(ours)[:3, :3], R, atol=1e-12)
        np.testing.assert_allclose(matrix_from_quaternion(theirs), R, atol=1e-12)
