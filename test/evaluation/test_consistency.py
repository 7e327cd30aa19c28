"""Lies are found where they are, and NEES tells right covariances from wrong ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flow3r_ros.evaluation.claims import Claims, position_errors, rotation_agreement
from flow3r_ros.evaluation.consistency import (
    confident_lies,
    consistency_of,
    judge_run,
    lying_frames,
    relative_nees,
    truth_jitter,
)
from flow3r_ros.geometry.lie import rigid, so3_exp
from flow3r_ros.report.record import RunRecord
from flow3r_ros.types import TrackingState
from test.evaluation.claim_samples import SCALE, bent, honest_claims
from test.evaluation.factories import disturbed, make_estimate, random_poses, trajectory


@pytest.mark.parametrize("seed", range(3))
def test_an_honest_run_has_a_nees_of_one(seed: int) -> None:
    result = consistency_of(honest_claims(seed))
    for gap in (1, 10, 50):
        # the median of chi-square with 6 degrees over 6 is .89; overlapping pairs scatter more
        assert 0.55 < result[f"gap_{gap}"]["median"] < 1.5, gap
        assert result[f"gap_{gap}"]["undefined"] == 0
    assert result["gap_1"]["pairs"] == 399
    assert np.mean(relative_nees(honest_claims(seed), 1)) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(("factor", "expected"), [(1 / 9, 9.0), (9.0, 1 / 9)])
def test_nees_follows_what_is_claimed(factor: float, expected: float) -> None:
    claims = honest_claims()
    right, wrong = (
        consistency_of(replace(claims, covariances=claims.covariances * share))
        for share in (1.0, factor)
    )
    for gap in ("gap_1", "gap_10", "gap_50"):
        assert wrong[gap]["median"] / right[gap]["median"] == pytest.approx(expected)


def test_the_covariance_of_one_step_as_that_of_the_pose_is_found_out() -> None:
    """What the odometry did before: no growth, so the difference of two poses has none."""
    claims = honest_claims()
    constant = claims.covariances.copy()
    constant[:, 0] = claims.covariances[1, 1]
    result = consistency_of(replace(claims, covariances=constant))
    assert result["gap_1"]["median"] < 3
    assert np.isinf(result["gap_50"]["median"])
    assert result["gap_50"]["undefined"] > 0.9


def test_no_covariance_at_all_is_infinite_and_no_scale_no_value() -> None:
    claims = honest_claims(frames=60)
    empty = replace(claims, covariances=np.zeros_like(claims.covariances))
    assert np.isinf(relative_nees(empty, 10)).all()
    still = replace(claims, poses=np.tile(np.eye(4), (60, 1, 1)))
    assert len(relative_nees(still, 10)) == 0
    assert set(consistency_of(still)) == {"truth_jitter_position", "truth_jitter_rad"}


def test_noise_of_the_truth_is_measured_and_allowed_for() -> None:
    rng = np.random.default_rng(3)
    claims = honest_claims(position=1e-4, rotation=1e-4)
    noisy = claims.truth.copy()
    noisy[:, :3, 3] += rng.normal(0, 0.01, (len(noisy), 3))
    noisy[:, :3, :3] = noisy[:, :3, :3] @ so3_exp(rng.normal(0, 0.005, (len(noisy), 3)))
    smooth, rough = truth_jitter(random_poses(rng, 200, 1e-4, 1e-4)), truth_jitter(noisy)
    assert max(smooth) < 1e-4
    assert rough == pytest.approx((0.01, 0.005), rel=0.25)
    result = consistency_of(replace(claims, truth=noisy))["gap_1"]
    assert result["median"] > 100
    assert 0.4 < result["median_with_truth_jitter"] < 2


def test_an_honest_run_does_not_lie() -> None:
    assert confident_lies(honest_claims()) == {
        "share": 0.0,
        "lies": 0,
        "frames": 400,
        "tracking": 1.0,
        "first": None,
    }


@pytest.mark.parametrize(
    ("jump", "lies"),
    [({"degrees": 11.0}, 10), ({"degrees": 8.0}, 0), ({"metres": 1.5}, 10), ({"metres": 0.2}, 0)],
    ids=str,
)
def test_a_jump_that_nothing_says_lies_for_ten_frames(jump: dict[str, float], lies: int) -> None:
    claims = bent(honest_claims(), 150, **jump)
    lying = np.flatnonzero(lying_frames(claims))
    assert list(lying) == list(range(150, 150 + lies))
    said = claims.tracking.copy()
    said[150:160] = False
    assert not lying_frames(replace(claims, tracking=said)).any(), "it was said"
    segments = np.where(np.arange(400) >= 150, 1, 0)
    assert not lying_frames(replace(claims, segments=segments)).any(), "a new segment was said"


def test_frames_without_a_pose_are_neither_start_nor_end() -> None:
    claims = bent(honest_claims(), 150, degrees=40.0)
    has_pose = np.ones(400, bool)
    has_pose[140:150] = False
    tracking = claims.tracking & has_pose
    lying = np.flatnonzero(lying_frames(replace(claims, has_pose=has_pose, tracking=tracking)))
    assert not len(lying), "the ten frames before the jump have none; what follows agrees"
    has_pose[145] = True
    lying = np.flatnonzero(lying_frames(replace(claims, has_pose=has_pose, tracking=tracking)))
    assert list(lying) == [150, 151, 152, 153, 154, 155]


def test_each_segment_has_its_own_unit() -> None:
    claims = honest_claims(position=1e-5, rotation=1e-5)
    poses, half = claims.poses.copy(), np.arange(400) >= 200
    poses[half, :3, 3] *= 5.0
    other = rigid(so3_exp([1.0, 2.0, 0.5]), (9.0, 9.0, 9.0))
    poses[half] = other @ poses[half]
    depth = np.where(half, 5.0, 1.0) * claims.median_depth
    whole = replace(claims, poses=poses, segments=half.astype(np.int64), median_depth=depth)
    assert np.unique(whole.scales().round(3)) == pytest.approx([SCALE / 5, SCALE], abs=2e-3)
    assert confident_lies(whole)["lies"] == 0
    position = position_errors(whole)
    assert (position["segments"], position["covered"]) == (2, 1.0)
    assert position["ate_rmse"] < 0.01
    assert position_errors(replace(whole, segments=np.zeros(400, np.int64)))["ate_rmse"] > 0.5


def test_rotation_over_pairs() -> None:
    claims = honest_claims(rotation=1e-5)
    perfect = rotation_agreement(claims)
    assert perfect["rra_5"] == perfect["answered"] == 1.0
    assert perfect["pairs"] == 100 * 99 // 2
    assert perfect["rotation_median_deg"] < 0.1
    turned = rotation_agreement(bent(claims, 200, degrees=20.0))
    assert turned["rra_5"] == pytest.approx(2 * 50 * 49 / 2 / 4950)
    split = rotation_agreement(replace(claims, segments=np.repeat([0, 1], 200)))
    assert split["rra_5"] == split["answered"] == turned["rra_5"], "not answered counts as wrong"
    nothing = rotation_agreement(replace(claims, has_pose=np.zeros(400, bool)))
    assert (nothing["rra_5"], nothing["rotation_median_deg"]) == (0.0, None)
    assert position_errors(replace(claims, has_pose=np.zeros(400, bool)))["ate_rmse"] is None


def test_a_run_record_is_judged() -> None:
    rng = np.random.default_rng(0)
    poses = random_poses(rng, 40)
    record = RunRecord("run")
    for index, pose in enumerate(disturbed(rng, poses, 1e-4, 1e-4)):
        state = TrackingState.LOST if index == 30 else TrackingState.TRACKING
        record.add(make_estimate(rng, index, pose, state))
    claims = Claims.of(record, trajectory(poses))
    assert claims.has_pose.sum() == claims.tracking.sum() == 39
    assert np.isfinite(claims.median_depth).all()
    judged = judge_run(record, trajectory(poses))
    assert judged["lies"]["frames"] == 40
    assert judged["position"]["covered"] == 39 / 40
    assert judged["rotation"]["rra_5"] == judged["rotation"]["answered"] < 1
    assert np.isinf(judged["nees"]["gap_10"]["median"])
