"""Imu messages in the camera's axes, whichever way the unit is mounted."""

from __future__ import annotations

from typing import Any

import numpy as np

from flow3r_ros.bags.types import make
from flow3r_ros.geometry.frames import R_BODY_OPTICAL
from flow3r_ros.geometry.lie import rigid, so3_exp
from flow3r_ros.types import Float64
from flow3r_ros.wire.imu import KEPT, ImuReader
from flow3r_ros.wire.transforms import StaticTransforms, header_of, tf_message, vector3

R_BASE_IMU = so3_exp([0.4, -1.0, 2.0])
R_BASE_CAM = so3_exp([0.0, 0.3, 0.0]) @ R_BODY_OPTICAL.T
UP = np.array([0.0, 0.0, 1.0])


def imu(
    rate: Float64, felt: Float64, frame: str = "imu", measured: tuple[int, int] = (0, 0)
) -> Any:
    """A message with a rate and an acceleration of the base, as the unit feels them."""
    covariances = [np.zeros(9), np.zeros(9)]
    for covariance, first in zip(covariances, measured, strict=True):
        covariance[0] = first
    return make(
        "sensor_msgs/msg/Imu",
        header=header_of(make, 5_000_000_007, frame),
        orientation=make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        orientation_covariance=np.zeros(9),
        angular_velocity=vector3(make, rate @ R_BASE_IMU),
        angular_velocity_covariance=covariances[0],
        linear_acceleration=vector3(make, felt @ R_BASE_IMU),
        linear_acceleration_covariance=covariances[1],
    )


def reader(base: str = "base_link") -> tuple[ImuReader, dict[str, str]]:
    """A reader that knows where unit and camera sit, and what it says."""
    static, said = StaticTransforms(), {}
    for child, R in (("imu", R_BASE_IMU), ("cam", R_BASE_CAM)):
        static.add(tf_message(make, 0, "base_link", child, rigid(R, np.array([1.0, 2.0, 3.0]))))
    return ImuReader(static, base, said.setdefault), said


def test_a_reading_is_in_the_cameras_axes_whatever_the_mounting() -> None:
    unit, said = reader()
    (reading,) = unit.readings(imu(0.5 * UP, 9.81 * UP), "cam")
    assert reading.stamp_ns == 5_000_000_007
    np.testing.assert_allclose(R_BASE_CAM @ reading.rate, 0.5 * UP, atol=1e-12)
    np.testing.assert_allclose(R_BASE_CAM @ reading.acceleration, 9.81 * UP, atol=1e-12)
    np.testing.assert_allclose(R_BASE_CAM @ reading.down, -UP, atol=1e-12)
    assert not said
    (alone,) = reader(base="")[0].readings(imu(0.5 * UP, 9.81 * UP), "cam")
    np.testing.assert_allclose(R_BODY_OPTICAL @ alone.down, -UP, atol=1e-12)


def test_what_comes_before_the_first_image_is_kept() -> None:
    unit, _ = reader()
    for index in range(KEPT + 5):
        assert not unit.readings(imu(index * UP, 9.81 * UP), "")
    kept = unit.readings(None, "cam")
    assert len(kept) == KEPT
    np.testing.assert_allclose(R_BASE_CAM @ kept[0].rate, 5 * UP, atol=1e-9)
    assert not unit.readings(None, "cam")


def test_what_cannot_be_used_is_left_out_and_said() -> None:
    unit, said = reader()
    (gyro,) = unit.readings(imu(UP, UP, measured=(0, -1)), "cam")
    assert gyro.acceleration is None
    (felt,) = unit.readings(imu(UP, UP, measured=(-1, 0)), "cam")
    assert felt.rate is None
    assert not unit.readings(imu(UP, UP, measured=(-1, -1)), "cam")
    assert not unit.readings(imu(np.full(3, np.nan), np.full(3, np.nan)), "cam")
    assert not unit.readings(imu(UP, UP, frame="elsewhere"), "cam")
    assert set(said) == {"imu values", "imu elsewhere"}
    assert "no static transform cam -> elsewhere" in said["imu elsewhere"]
