"""The angular protocol against a plain loop over pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.angular import angular_metrics
from test.evaluation.factories import disturbed, random_poses


def brute_force(est: np.ndarray, ref: np.ndarray) -> tuple[float, float, float]:
    """RRA@15, RTA@15, AUC@30, pair by pair, as the published evaluation scripts do."""
    rotation, translation = [], []
    for i in range(len(est)):
        for j in range(i + 1, len(est)):
            a, b = (np.linalg.inv(poses[i]) @ poses[j] for poses in (est, ref))
            rotation.append(np.degrees(Rotation.from_matrix(a[:3, :3].T @ b[:3, :3]).magnitude()))
            cosine = a[:3, 3] @ b[:3, 3] / np.linalg.norm(a[:3, 3]) / np.linalg.norm(b[:3, 3])
            angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
            translation.append(min(angle, 180 - angle))
    worst = np.maximum(rotation, translation)
    curve = [np.mean(worst < limit) for limit in range(1, 31)]
    return (
        100 * np.mean(np.array(rotation) < 15),
        100 * np.mean(np.array(translation) < 15),
        100 * np.mean(curve),
    )


def test_equals_a_loop_over_pairs() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        ref = random_poses(rng, 12, turn=0.3)
        est = disturbed(rng, ref, 0.2, 0.15)
        ours = angular_metrics(est, ref)
        np.testing.assert_allclose(
            [ours["RRA@15"], ours["RTA@15"], ours["AUC@30"]], brute_force(est, ref), atol=1e-9
        )
        assert ours["pairs"] == 66


def test_perfect_poses_score_full_marks_in_any_world() -> None:
    rng = np.random.default_rng(0)
    ref = random_poses(rng, 6)
    scores = angular_metrics(disturbed(rng, ref, 0, 0), ref)
    assert scores["RRA@5"] == scores["RTA@5"] == scores["AUC@30"] == 100.0


def test_motion_without_translation_has_no_rta() -> None:
    ref = np.tile(np.eye(4), (4, 1, 1))
    scores = angular_metrics(random_poses(np.random.default_rng(0), 4), ref)
    assert scores["RTA@30"] is None
    assert scores["AUC@30"] is None
    assert scores["undefined_directions"] == 6


def test_an_estimate_that_stands_still_earns_no_direction() -> None:
    ref = random_poses(np.random.default_rng(0), 4, turn=0.0)
    assert angular_metrics(np.tile(np.eye(4), (4, 1, 1)), ref)["RTA@30"] == 0.0


def test_shapes_must_agree() -> None:
    with pytest.raises(EvaluationError):
        angular_metrics(np.tile(np.eye(4), (4, 1, 1)), np.tile(np.eye(4), (3, 1, 1)))
