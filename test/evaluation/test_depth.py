"""Depth metrics against the formulas written out pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.depth import evaluate_depth, fit_depth


def maps(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ref = rng.uniform(0.5, 5.0, (3, 6, 8)).astype(np.float32)
    est = (ref * rng.uniform(0.8, 1.3, ref.shape)).astype(np.float32)
    ref[0, :2], est[1, 3] = 0.0, np.nan
    return est, ref


def brute_force(est: np.ndarray, ref: np.ndarray) -> list[float]:
    frames = []
    for guess, truth in zip(est, ref, strict=True):
        pairs = [
            (float(a), float(b))
            for a, b in zip(guess.ravel(), truth.ravel(), strict=True)
            if np.isfinite(a) and a > 0 and b > 0
        ]
        scale = np.median([b for _, b in pairs]) / np.median([a for a, _ in pairs])
        pairs = [(a * scale, b) for a, b in pairs]
        frames.append(
            [
                np.mean([abs(a - b) / b for a, b in pairs]),
                np.mean([max(a / b, b / a) < 1.25 for a, b in pairs]),
                np.sqrt(np.mean([(a - b) ** 2 for a, b in pairs])),
                np.mean([abs(np.log10(a / b)) for a, b in pairs]),
            ]
        )
    return list(np.mean(frames, axis=0))


def test_equals_the_formulas_pixel_by_pixel() -> None:
    est, ref = maps()
    ours = evaluate_depth(0.01 * est, ref, align="median", per="frame")
    np.testing.assert_allclose(
        [ours[key] for key in ("abs_rel", "delta_1.25", "rmse", "log10")],
        brute_force(est, ref),
        rtol=1e-6,
    )
    assert ours["coverage"] == pytest.approx(1 - 8 / (3 * 48 - 16))


def test_scale_and_shift_is_the_least_squares_answer() -> None:
    est, ref = maps()
    a, b = est[2].ravel().astype(float), ref[2].ravel().astype(float)
    design = np.column_stack([a, np.ones_like(a)])
    np.testing.assert_allclose(
        fit_depth(a, b, "scale_shift"), np.linalg.lstsq(design, b, rcond=None)[0], rtol=1e-9
    )
    exact = evaluate_depth(
        (ref - 0.2) / 3 + (ref <= 0) * np.float32(1), ref, align="scale_shift", per="clip"
    )
    assert exact["abs_rel"] < 1e-5


def test_one_scale_a_clip_is_stricter_than_one_a_frame() -> None:
    _, ref = maps()
    est = ref * np.array([1.0, 1.5, 2.0], np.float32)[:, None, None]
    assert evaluate_depth(est, ref, per="frame")["abs_rel"] < 1e-6
    assert evaluate_depth(est, ref, per="clip")["abs_rel"] > 0.1


def test_another_size_another_unit_and_nothing_in_common_are_refused() -> None:
    est, ref = maps()
    with pytest.raises(EvaluationError, match="cannot be compared"):
        evaluate_depth(est[:, ::2], ref)
    with pytest.raises(EvaluationError, match="another unit"):
        evaluate_depth(1000 * est, ref, align="none")
    with pytest.raises(EvaluationError, match="no pixel"):
        evaluate_depth(np.full_like(ref, np.nan), ref)


def test_a_frame_without_estimate_is_counted() -> None:
    est, ref = maps()
    est[1] = np.nan
    result = evaluate_depth(est, ref)
    assert (result["frames"], result["frames_excluded"]) == (2, 1)
