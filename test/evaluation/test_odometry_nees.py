"""Published odometry whose errors are as its covariances say has a NEES of one, in any unit and any
axes of odom."""

from __future__ import annotations

import numpy as np
import pytest

from flow3r_ros.evaluation.odometry_nees import odometry_nees
from flow3r_ros.geometry.frames import R_BODY_OPTICAL
from flow3r_ros.geometry.lie import rigid, se3_exp, se3_log
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.types import LOST_VARIANCE

PERIOD_NS, UNIT = 100_000_000, 2.5
SIGMA = np.array([0.01, 0.02, 0.01, 0.002, 0.003, 0.002])
"""of a step, metres and rad, in the camera's axes"""


@pytest.mark.parametrize(("claim", "expected"), [(1.0, 1.0), (4.0, 0.25)])
def test_honest_odometry_has_a_nees_of_one(claim: float, expected: float) -> None:
    rng, count = np.random.default_rng(0), 400
    stamps = np.arange(count, dtype=np.int64) * PERIOD_NS
    truth = [se3_exp([1.0, 2.0, 3.0, 0.5, 0.5, 0.5])]
    told, covariances = [rigid(R_BODY_OPTICAL, np.zeros(3))], [np.zeros((6, 6))]
    twists, position = [np.zeros(6)], np.zeros((3, 3))
    for _ in range(1, count):
        step = se3_exp([0.0, 0.02, 0.2, 0.0, 0.0, 0.0])
        truth.append(truth[-1] @ step)
        error = SIGMA * rng.normal(size=6) * [1, 1, 1, 0, 0, 0]
        seen = step @ rigid(np.eye(3), error[:3])
        shrunk = rigid(seen[:3, :3], seen[:3, 3] / UNIT)
        turn = se3_exp([0, 0, 0, *(SIGMA[3:] * rng.normal(size=3))])
        twists.append(se3_log(shrunk @ turn) / (PERIOD_NS * 1e-9))
        told.append(told[-1] @ shrunk)
        R = told[-1][:3, :3]
        position = position + R @ np.diag(SIGMA[:3] ** 2) @ R.T / UNIT**2
        covariances.append(np.diag([0.0] * 3 + [1.0] * 3))
        covariances[-1][:3, :3] = position
    per_second = np.diag((SIGMA / [UNIT, UNIT, UNIT, 1, 1, 1]) ** 2) / (PERIOD_NS * 1e-9) ** 2
    twist_covariances = np.stack([per_second] * count)
    twist_covariances[7] = np.eye(6) * LOST_VARIANCE
    result = odometry_nees(
        Trajectory(stamps, np.stack(told)), claim * np.stack(covariances), np.stack(twists),
        claim * twist_covariances, Trajectory(stamps, np.stack(truth)),
    )  # fmt: skip
    assert result["twist"]["mean"] == pytest.approx(expected, rel=0.15)
    assert result["twist"]["messages"] == count - 2
    assert 0.1 * expected < result["position"]["median"] < 4.0 * expected, "one walk is one sample"
