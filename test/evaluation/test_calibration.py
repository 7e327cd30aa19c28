"""Confidence is held against how often the depth was right."""

from __future__ import annotations

import numpy as np
import pytest

from flow3r_ros.evaluation.calibration import Calibration


def frame(rng: np.random.Generator, bend: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth that is right with probability `confidence ** bend`, in another unit."""
    confidence = rng.uniform(0, 1, (120, 160)).astype(np.float32)
    truth = rng.uniform(1, 5, (120, 160)).astype(np.float32)
    right = rng.random((120, 160)) < confidence**bend
    off = np.where(rng.random((120, 160)) < 0.5, 0.6, 1.5)
    depth = truth * np.where(right, rng.uniform(0.97, 1.03, (120, 160)), off)
    return confidence, depth.astype(np.float32) * 0.3, truth


def test_a_calibrated_confidence_has_next_to_no_error() -> None:
    rng, calibration = np.random.default_rng(0), Calibration()
    for _ in range(5):
        calibration.add(*frame(rng))
    summary = calibration.summary()
    assert summary["error"] < 0.03
    assert summary["pixels"] == 5 * 120 * 160
    assert summary["claimed"] == pytest.approx(0.5, abs=0.02)
    assert len(summary["curve"]) == 20


def test_overconfidence_is_measured() -> None:
    calibration = Calibration()
    confidence, depth, truth = frame(np.random.default_rng(1))
    calibration.add(np.full_like(confidence, 0.99), depth, truth)
    summary = calibration.summary()
    assert summary["error"] == pytest.approx(0.99 - summary["right"])
    assert summary["right"] == pytest.approx(0.5, abs=0.05)


def test_pixels_without_depth_make_no_claim() -> None:
    calibration = Calibration()
    confidence, depth, truth = frame(np.random.default_rng(2))
    calibration.add(confidence, np.full_like(depth, np.nan), truth)
    calibration.add(confidence, depth, np.zeros_like(truth))
    assert calibration.summary() == {"pixels": 0}
