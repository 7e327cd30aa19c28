"""TUM files survive a round trip to the nanosecond, and damage is named with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.errors import EvaluationError, OutputError
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.wire.tum import read_tum, write_tum
from test.evaluation.factories import random_poses


def test_round_trip_keeps_nanoseconds_and_poses(tmp_path: Path) -> None:
    poses = random_poses(np.random.default_rng(0), 5)
    stamps = np.array(
        [-1_500_000_001, 0, 1, 1_763_800_000_123_456_789, 1_763_800_000_123_456_790], np.int64
    )
    write_tum(tmp_path / "a.tum", Trajectory(stamps, poses))
    again = read_tum(tmp_path / "a.tum")
    np.testing.assert_array_equal(again.stamps_ns, stamps)
    np.testing.assert_allclose(again.poses, poses, atol=1e-10)
    assert (tmp_path / "a.tum").read_text().splitlines()[3].startswith("1763800000.123456789 ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no pose"),
        ("# only a comment\n", "no pose"),
        ("0 0 0 0 0 0 0 1\n1 0 0 0 0 0 1\n", ":2: 7 fields"),
        ("0 0 0 x 0 0 0 1\n", ":1: not a number"),
        ("0 0 0 nan 0 0 0 1\n", ":1: the pose is not finite"),
        ("0 0 0 0 0 0 0 0\n", "quaternion is zero"),
        ("1 0 0 0 0 0 0 1\n0 0 0 0 0 0 0 1\n", "do not increase"),
        ("1 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n", "do not increase"),
    ],
)
def test_damage_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.tum"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=message) as caught:
        read_tum(path)
    assert "bad.tum" in str(caught.value)


def test_missing_and_unwritable_files(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_tum(tmp_path / "none.tum")
    with pytest.raises(OutputError):
        write_tum(tmp_path / "no" / "folder.tum", Trajectory(np.array([0]), np.eye(4)[None]))


def test_poses_that_are_not_finite_are_refused() -> None:
    poses = random_poses(np.random.default_rng(0), 3)
    poses[1, 0, 3] = np.nan
    with pytest.raises(EvaluationError, match="1 poses are not finite"):
        Trajectory(np.arange(3), poses)
