"""From the optical world of the odometry to the axes of ROS (REP-103, REP-105), covariance
included.

The engine's world is the *optical* frame of the first camera (x right, y down, z forward). ROS
wants an `odom` frame with x forward, y left, z up. Two cases: with the static extrinsics
`T_base_optical` the published edge is `odom -> base`, and odom is the base frame at the first
stamp; without them it is `odom -> camera optical frame`, and odom is the body-oriented first
camera.
"""

from __future__ import annotations

import numpy as np

from flow3r_ros.geometry.lie import hat, invert, rigid
from flow3r_ros.types import Float64

R_BODY_OPTICAL: Float64 = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""REP-103: rotates optical vectors (x right, y down, z forward) into body axes (x forward, y left,
z up)"""


def odom_from_optical(T_world_cam: Float64, T_base_optical: Float64 | None = None) -> Float64:
    """Pose `[4, 4]` of the published child in `odom`, from the camera-to-world pose of the engine.

    With extrinsics E = `T_base_optical` (optical frame in base): `T_odom_base = E T_world_cam
    E^-1`. Without: `T_odom_optical = R_BODY_OPTICAL T_world_cam`, whose child keeps optical axes.
    """
    if T_base_optical is None:
        return np.asarray(rigid(R_BODY_OPTICAL, np.zeros(3)) @ T_world_cam)
    return np.asarray(T_base_optical @ T_world_cam @ invert(T_base_optical))


def optical_from_odom(T_odom_child: Float64) -> Float64:
    """Inverse of `odom_from_optical` without a base: `T_world_cam [4, 4]` from the camera's pose
    in `odom`."""
    return np.asarray(rigid(R_BODY_OPTICAL.T, np.zeros(3)) @ T_odom_child)


def odom_covariance(
    covariance: Float64, T_world_cam: Float64, T_base_optical: Float64 | None = None
) -> Float64:
    """Covariance `[6, 6]` (x y z rx ry rz) of the published child in odom axes, as
    `nav_msgs/Odometry.pose` wants it.

    The input is in axes of the optical world with rotation errors on the left, `R = exp(error)
    R_true`. With extrinsics the lever arm from camera to base is carried over.
    """
    axes = R_BODY_OPTICAL if T_base_optical is None else T_base_optical[:3, :3]
    jacobian = np.zeros((6, 6))
    jacobian[:3, :3] = jacobian[3:, 3:] = axes
    if T_base_optical is not None:
        lever = axes @ T_world_cam[:3, :3] @ invert(T_base_optical)[:3, 3]
        jacobian[:3, 3:] = -hat(lever) @ axes
    rotated = jacobian @ covariance @ jacobian.T
    return np.asarray((rotated + rotated.T) / 2.0)
