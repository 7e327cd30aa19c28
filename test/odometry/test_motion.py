"""Constant velocity: exact while it lasts, slower with every frame that nothing measures."""

from __future__ import annotations

import numpy as np

from flow3r_ros.geometry.lie import se3_exp
from flow3r_ros.odometry.motion import DAMPING, Motion, at_rest

TWIST = np.array([0.1, 0.02, -0.03, 0.01, 0.02, -0.01])


def test_a_steady_motion_is_predicted_exactly_whatever_the_time() -> None:
    motion = at_rest(np.eye(4), 100).through(se3_exp(TWIST), 200)
    np.testing.assert_allclose(motion.predict(300), se3_exp(2 * TWIST), atol=1e-12)
    np.testing.assert_allclose(motion.predict(250), se3_exp(1.5 * TWIST), atol=1e-12)
    np.testing.assert_allclose(motion.predict(100), np.eye(4), atol=1e-12)


def test_at_rest_nothing_moves() -> None:
    pose = se3_exp(TWIST)
    np.testing.assert_allclose(at_rest(pose, 5).predict(10**12), pose)


def test_unmeasured_frames_slow_down() -> None:
    motion = at_rest(np.eye(4), 0).through(se3_exp(TWIST), 100)
    bridged = motion.bridged(200)
    np.testing.assert_allclose(bridged.pose, motion.predict(200))
    np.testing.assert_allclose(bridged.velocity, DAMPING * motion.velocity)
    for step in range(3, 60):
        bridged = bridged.bridged(100 * step)
    assert np.linalg.norm(bridged.pose[:3, 3]) < 0.1 * (1 + 1 / (1 - DAMPING)) * 1.1


def test_a_stamp_that_does_not_advance_keeps_the_velocity() -> None:
    motion = at_rest(np.eye(4), 0).through(se3_exp(TWIST), 100)
    again = motion.through(se3_exp(2 * TWIST), 100)
    np.testing.assert_allclose(again.velocity, motion.velocity)
    np.testing.assert_allclose(motion.moved_to(np.eye(4)).velocity, motion.velocity)


def test_what_stands_keeps_its_velocity_for_later() -> None:
    motion = Motion(np.eye(4), 0, np.array([1e-9, 0, 0, 0, 0, 0]))
    later = motion.standing(500)
    np.testing.assert_array_equal(later.pose, motion.pose)
    np.testing.assert_array_equal(later.velocity, motion.velocity)
    assert later.stamp_ns == 500


def test_motion_is_told_from_rest_in_median_depths() -> None:
    slow = Motion(np.eye(4), 0, np.array([0.1e-9, 0, 0, 0, 0, 0]))
    assert slow.moves(1.0)
    assert not slow.moves(10.0)
    assert Motion(np.eye(4), 0, np.array([0, 0, 0, 0, 0.1e-9, 0])).moves(10.0)
    assert not at_rest(np.eye(4), 0).moves(1.0)
