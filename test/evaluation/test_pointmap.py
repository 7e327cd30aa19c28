"""Point-map metrics against brute force over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.pointmap import evaluate_clouds, evaluate_point_map, normals_of


def test_equals_brute_force_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    est, ref = rng.normal(0, 1, (60, 3)), rng.normal(0, 1, (80, 3))
    distance = np.linalg.norm(est[:, None] - ref[None], axis=-1)
    forth, back = distance.min(axis=1), distance.min(axis=0)
    ours = evaluate_clouds(est, ref, thresholds=(0.3, 0.6))
    np.testing.assert_allclose(
        [
            ours["accuracy"],
            ours["accuracy_median"],
            ours["completeness"],
            ours["completeness_median"],
            ours["chamfer"],
        ],
        [
            forth.mean(),
            np.median(forth),
            back.mean(),
            np.median(back),
            (forth.mean() + back.mean()) / 2,
        ],
    )
    for threshold in (0.3, 0.6):
        p, r = np.mean(forth < threshold), np.mean(back < threshold)
        assert ours[f"fscore@{threshold:g}"] == pytest.approx(2 * p * r / (p + r))


def surface(seed: int = 0) -> np.ndarray:
    """Two views of a wavy sheet, `[2, 20, 24, 3]`."""
    y, x = np.meshgrid(np.linspace(-1, 1, 20), np.linspace(-1, 1, 24), indexing="ij")
    return np.stack(
        [np.stack([x, y, 3 + 0.2 * np.sin(3 * x + k) * np.cos(2 * y)], axis=-1) for k in range(2)]
    )


def test_a_similarity_is_no_error_and_noise_is() -> None:
    ref = surface()
    turn = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
    exact = evaluate_point_map(2.5 * ref @ turn.T + 1.0, ref)
    assert exact["mse"] < 1e-20
    assert exact["scale"] == pytest.approx(0.4)
    assert exact["normal_consistency"] > 0.999
    assert exact["fscore@0.05"] == 1.0
    noisy = evaluate_point_map(ref + np.random.default_rng(0).normal(0, 0.1, ref.shape), ref)
    assert noisy["mse"] == pytest.approx(0.03, rel=0.15)
    assert noisy["normal_consistency"] < 0.95


def test_unknown_pixels_are_left_out() -> None:
    ref, est = surface(), surface()
    ref[0, 3:6] = np.nan
    est[1, 0, 0] = np.inf
    result = evaluate_point_map(est, ref)
    assert result["mse"] < 1e-20
    assert result["pixels"] == 2 * 20 * 24 - 3 * 24 - 1


def test_normals_of_a_plane() -> None:
    y, x = np.meshgrid(np.arange(5.0), np.arange(6.0), indexing="ij")
    normals = normals_of(np.stack([x, y, 1 + 0.5 * x], axis=-1))
    expected = np.array([-0.5, 0, 1]) / np.linalg.norm([-0.5, 0, 1])
    np.testing.assert_allclose(normals[1:-1, 1:-1], np.broadcast_to(expected, (3, 4, 3)))
    assert np.isnan(normals[0]).all()


def test_empty_clouds_and_other_sizes_are_refused() -> None:
    with pytest.raises(EvaluationError, match="empty"):
        evaluate_clouds(np.zeros((0, 3)), np.zeros((4, 3)))
    with pytest.raises(EvaluationError, match="cannot be compared"):
        evaluate_point_map(surface(), surface()[:, :5])
    with pytest.raises(EvaluationError, match="only 0 pixels"):
        evaluate_point_map(surface() * np.nan, surface())
