"""A consumer that takes our odometry by the rules of robot_localization and REP-105."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from flow3r_ros.geometry.lie import invert, se3_log
from flow3r_ros.types import LOST_VARIANCE
from flow3r_ros.wire.transforms import matrix_of_pose
from test.ros.harness import stamp_of


def check_as_a_filter_would(messages: list[Any], odom: str, base: str) -> None:
    """Frames, stamps that grow, covariances that are symmetric and positive definite, and a twist
    in the axes of the base that is the way from pose to pose: what the filter predicts with."""
    assert {(m.header.frame_id, m.child_frame_id) for m in messages} == {(odom, base)}
    stamps = [stamp_of(message) for message in messages]
    assert all(later > earlier for earlier, later in pairwise(stamps))
    agree = []
    for before, after in pairwise(messages):
        for covariance in (after.pose.covariance, after.twist.covariance):
            matrix = np.array(covariance).reshape(6, 6)
            np.testing.assert_allclose(matrix, matrix.T, rtol=1e-6)
            assert np.linalg.eigvalsh(matrix).min() > 0
        sigma = np.sqrt(np.diag(np.array(after.twist.covariance).reshape(6, 6)))
        if sigma.max() >= np.sqrt(LOST_VARIANCE):
            continue
        linear, angular = after.twist.twist.linear, after.twist.twist.angular
        twist = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
        seconds = (stamp_of(after) - stamp_of(before)) * 1e-9
        poses = [matrix_of_pose(message.pose.pose) for message in (before, after)]
        moved = se3_log(invert(poses[0]) @ poses[1]) / seconds
        agree.append(np.linalg.norm((twist - moved)[:3]) / max(np.linalg.norm(moved[:3]), 1e-6))
    assert len(agree) > len(messages) / 2
    assert np.median(agree) < 0.2, agree
