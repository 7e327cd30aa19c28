"""A wrong clock is found by the motions themselves, and a right one is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flow3r_ros.cli.main import app
from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.trajectory import evaluate_trajectory
from flow3r_ros.geometry.time_offset import better_offset
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.wire.tum import write_tum
from test.evaluation.factories import disturbed, random_poses, trajectory


def walk(count: int = 120, seed: int = 0) -> tuple[Trajectory, Trajectory]:
    """An estimate with noise in a world and scale of its own, and its truth, with the right
    stamps."""
    rng = np.random.default_rng(seed)
    poses = random_poses(rng, count)
    return trajectory(disturbed(rng, poses, 0.003, 0.003), start_s=100.0), trajectory(
        poses, start_s=100.0
    )


def later(item: Trajectory, seconds: float) -> Trajectory:
    return Trajectory(item.stamps_ns + round(seconds * 1e9), item.poses, item.name)


@pytest.mark.parametrize("seconds", [2.5, -1.1, 1_700_000_000.0])
def test_a_shifted_clock_is_found(seconds: float) -> None:
    est, ref = walk()
    assert better_offset(est, later(ref, seconds)) == pytest.approx(seconds, abs=0.1)


def test_a_right_clock_is_left_alone() -> None:
    for seed in range(5):
        est, ref = walk(seed=seed)
        assert better_offset(est, ref) is None
        part = Trajectory(est.stamps_ns[30:90], est.poses[30:90])
        assert better_offset(part, ref) is None
        assert better_offset(part, later(ref, 0.8)) == pytest.approx(0.8, abs=0.1)


def test_motions_that_have_nothing_in_common_give_no_hint() -> None:
    est, _ = walk(seed=1)
    _, ref = walk(seed=2)
    assert better_offset(est, ref) is None
    still = Trajectory(ref.stamps_ns, np.tile(np.eye(4), (len(ref.stamps_ns), 1, 1)))
    assert better_offset(still, ref) is None
    short = Trajectory(ref.stamps_ns[:5], ref.poses[:5])
    assert better_offset(short, ref) is None


def test_a_partial_overlap_is_matched_as_it_is_and_the_hint_is_given(tmp_path: Path) -> None:
    est, ref = walk()
    write_tum(tmp_path / "est.tum", est)
    write_tum(tmp_path / "ref.tum", later(ref, 2.5))
    result = evaluate_trajectory(tmp_path / "est.tum", tmp_path / "ref.tum")
    assert result["matched"] == 95
    assert result["suggested_offset_s"] == pytest.approx(2.5, abs=0.1)
    command = [
        "evaluate",
        "trajectory",
        str(tmp_path / "est.tum"),
        str(tmp_path / "ref.tum"),
        "--json",
    ]
    assert "try --offset 2.5" in CliRunner().invoke(app, command).stderr
    right = CliRunner().invoke(app, [*command, "--offset", "2.5"])
    assert right.stderr == ""
    assert '"suggested_offset_s": null' in right.stdout
    with pytest.raises(EvaluationError, match=r"agree best at --offset 1700000000\.\d"):
        evaluate_trajectory(est, later(ref, 1_700_000_000.0))


def test_too_few_poses_are_said() -> None:
    est, ref = walk()
    with pytest.raises(EvaluationError, match="holds only 2 poses"):
        evaluate_trajectory(est, Trajectory(ref.stamps_ns[:2], ref.poses[:2]))
