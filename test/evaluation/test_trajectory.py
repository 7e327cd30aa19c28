"""Trajectory metrics equal evo's, and what cannot be compared is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evo.core import metrics, sync
from evo.core.trajectory import PoseTrajectory3D
from evo.tools import file_interface
from typer.testing import CliRunner

from flow3r_ros.cli.main import app
from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.machine import PACKAGE
from flow3r_ros.evaluation.trajectory import evaluate_trajectory
from flow3r_ros.geometry.motion import path_length
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.wire.tum import write_tum
from test.conftest import shared_path
from test.evaluation.factories import disturbed, random_poses, trajectory

BUNDLED = PACKAGE.parent / "demo" / "clip" / "groundtruth.tum"


def evo_values(
    est: Trajectory, ref: Trajectory, align: str, delta: float, unit: metrics.Unit, all_pairs: bool
) -> tuple[float, ...]:
    pair = [
        PoseTrajectory3D(poses_se3=list(item.poses), timestamps=item.stamps_ns / 1e9)
        for item in (ref, est)
    ]
    reference, estimate = sync.associate_trajectories(*pair, max_diff=0.01)
    if align != "none":
        estimate.align(
            reference, correct_scale=align == "sim3", correct_only_scale=align == "scale"
        )
    values = []
    ape = metrics.APE(metrics.PoseRelation.translation_part)
    ape.process_data((reference, estimate))
    values.append(ape.get_statistic(metrics.StatisticsType.rmse))
    for relation in (
        metrics.PoseRelation.translation_part,
        metrics.PoseRelation.rotation_angle_deg,
    ):
        rpe = metrics.RPE(
            relation, delta=delta, delta_unit=unit, all_pairs=all_pairs, pairs_from_reference=True
        )
        rpe.process_data((reference, estimate))
        values.append(rpe.get_statistic(metrics.StatisticsType.rmse))
    return tuple(values)


@pytest.mark.parametrize("align", ["none", "scale", "se3", "sim3"])
@pytest.mark.parametrize(
    ("delta", "unit", "all_pairs"),
    [
        (1, "frames", False),
        (5, "frames", True),
        (5, "frames", False),
        (1.0, "metres", False),
        (1.0, "metres", True),
    ],
)
def test_values_equal_evo(align: str, delta: float, unit: str, all_pairs: bool) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        poses = random_poses(rng, 80)
        ref = trajectory(poses, start_s=1700000000.25)
        kept = np.sort(rng.choice(80, 60, replace=False))
        est = Trajectory(
            ref.stamps_ns[kept] + rng.integers(-2_000_000, 2_000_000, 60),
            disturbed(rng, poses[kept]),
        )
        ours = evaluate_trajectory(
            est, ref, align=align, delta=delta, delta_unit=unit, all_pairs=all_pairs
        )
        theirs = evo_values(
            est,
            ref,
            align,
            delta,
            metrics.Unit.frames if unit == "frames" else metrics.Unit.meters,
            all_pairs,
        )
        assert ours["matched"] == 60
        np.testing.assert_allclose(
            [ours["ate_rmse"], ours["rpe_trans_rmse"], ours["rpe_rot_deg_rmse"]],
            theirs,
            rtol=1e-9,
            atol=1e-9,
        )


@pytest.mark.parametrize("align", ["none", "scale", "se3", "sim3"])
@pytest.mark.parametrize(
    "clip", ["bundled", "kitti_curve_51", "nerf_fox_50", "sevenscenes_redkitchen"]
)
def test_values_equal_evo_on_the_clips(clip: str, align: str, tmp_path: Path) -> None:
    """Files on both sides, RPE over one frame, ten frames and a twentieth of the way."""
    path = BUNDLED if clip == "bundled" else shared_path(f"video/{clip}/groundtruth.tum")
    truth = file_interface.read_tum_trajectory_file(str(path))
    stamps = np.array([round(stamp * 1e9) for stamp in truth.timestamps], np.int64)
    est = Trajectory(stamps, disturbed(np.random.default_rng(1), np.array(truth.poses_se3)))
    write_tum(tmp_path / "est.tum", est)  # nine decimals, which evo gets too
    written = file_interface.read_tum_trajectory_file(str(tmp_path / "est.tum"))
    est = Trajectory(stamps, np.array(written.poses_se3))
    reference = Trajectory(stamps, np.array(truth.poses_se3))
    for delta, unit in (
        (1, "frames"),
        (10, "frames"),
        (path_length(reference.poses) / 20, "metres"),
    ):
        ours = evaluate_trajectory(
            tmp_path / "est.tum", path, align=align, delta=delta, delta_unit=unit
        )
        theirs = evo_values(
            est,
            reference,
            align,
            delta,
            metrics.Unit.frames if unit == "frames" else metrics.Unit.meters,
            False,
        )
        np.testing.assert_allclose(
            [ours["ate_rmse"], ours["rpe_trans_rmse"], ours["rpe_rot_deg_rmse"]],
            theirs,
            rtol=1e-9,
            atol=1e-9,
        )


def test_exact_up_to_sim3_scores_zero() -> None:
    rng = np.random.default_rng(3)
    poses = random_poses(rng, 40)
    result = evaluate_trajectory(trajectory(disturbed(rng, poses, 0.0, 0.0)), trajectory(poses))
    assert result["ate_rmse"] < 1e-12
    assert result["rpe_rot_deg_rmse"] < 1e-12


def test_another_time_base_is_refused_with_its_offset_and_accepted_when_given() -> None:
    poses = random_poses(np.random.default_rng(0), 30)
    est, ref = trajectory(poses), trajectory(poses, start_s=1000.5)
    with pytest.raises(EvaluationError, match=r"starts differ by \+1000\.5"):
        evaluate_trajectory(est, ref)
    assert evaluate_trajectory(est, ref, offset_s=1000.5)["matched"] == 30


def test_shorter_longer_and_gaps_are_counted() -> None:
    poses = random_poses(np.random.default_rng(0), 50)
    ref = trajectory(poses)
    kept = np.r_[0:20, 30:45]
    est = Trajectory(ref.stamps_ns[kept], poses[kept])
    result = evaluate_trajectory(est, ref, align="none")
    assert (result["matched"], result["ref_frames"], result["gaps"], result["unmatched"]) == (
        35,
        50,
        1,
        0,
    )
    assert evaluate_trajectory(ref, est, align="none")["unmatched"] == 15


def test_a_reference_pose_is_used_once() -> None:
    poses = random_poses(np.random.default_rng(0), 20)
    stamps = np.arange(20, dtype=np.int64) * 1_000_000
    ref = Trajectory(np.arange(5, dtype=np.int64) * 4_000_000, poses[::4])
    assert evaluate_trajectory(Trajectory(stamps, poses), ref, align="none")["matched"] == 5


def test_motion_without_extent_has_no_scale() -> None:
    poses = random_poses(np.random.default_rng(0), 10)
    still = trajectory(np.tile(np.eye(4), (10, 1, 1)))
    with pytest.raises(EvaluationError, match="estimate does not move"):
        evaluate_trajectory(still, trajectory(poses))
    with pytest.raises(EvaluationError, match="reference does not move"):
        evaluate_trajectory(trajectory(poses), still)
    assert evaluate_trajectory(still, trajectory(poses), align="se3")["scale"] == 1.0


def test_settings_that_make_no_sense_are_refused() -> None:
    line = trajectory(random_poses(np.random.default_rng(0), 10))
    with pytest.raises(EvaluationError, match="alignment"):
        evaluate_trajectory(line, line, align="affine")
    with pytest.raises(EvaluationError, match="apart"):
        evaluate_trajectory(line, line, delta=100)
    with pytest.raises(EvaluationError, match="positive"):
        evaluate_trajectory(line, line, delta=0)


def test_delta_scale_and_offset_from_the_command_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    poses = random_poses(rng, 60)
    est, ref = trajectory(disturbed(rng, poses)), trajectory(poses, start_s=50.0)
    write_tum(tmp_path / "est.tum", est)
    write_tum(tmp_path / "ref.tum", ref)
    command = [
        "evaluate",
        "trajectory",
        str(tmp_path / "est.tum"),
        str(tmp_path / "ref.tum"),
        "--json",
        "--align",
        "scale",
    ]
    refused = CliRunner().invoke(app, command)
    assert "--offset" in str(refused.exception)
    done = CliRunner().invoke(
        app, [*command, "--offset", "50", "--delta", "0.5", "--delta-unit", "metres"]
    )
    shifted = Trajectory(est.stamps_ns + 50_000_000_000, est.poses)
    theirs = evo_values(shifted, ref, "scale", 0.5, metrics.Unit.meters, False)
    ours = json.loads(done.stdout)
    np.testing.assert_allclose(
        [ours["ate_rmse"], ours["rpe_trans_rmse"], ours["rpe_rot_deg_rmse"]], theirs, rtol=1e-6
    )
    assert ours["offset_s"] == 50.0
