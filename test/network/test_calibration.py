"""The curve makes a probability of a confidence, and never turns two pixels around."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from flow3r_ros.config import ModelSettings
from flow3r_ros.network.calibration import Calibration, calibration_error, fit_calibration
from flow3r_ros.network.catalog import read_folder
from flow3r_ros.network.checkpoint import write_manifest
from flow3r_ros.network.runner import open_predictor
from test.network.factories import tiny_folder, window


def overconfident(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    said = rng.random(20_000).astype(np.float32)
    return said, rng.random(20_000) < said**3


def test_a_fitted_curve_is_calibrated_on_pixels_it_has_not_seen() -> None:
    curve = fit_calibration(*overconfident(0))
    said, right = overconfident(1)
    assert calibration_error(said, right) > 0.2
    assert calibration_error(curve.apply(said), right) < 0.02
    assert curve.apply(np.array([0.8], np.float32))[0] == pytest.approx(0.8**3, abs=0.03)


def test_the_curve_never_falls_however_noisy_the_shares_are() -> None:
    rng = np.random.default_rng(2)
    said = rng.random(300).astype(np.float32)
    curve = fit_calibration(said, rng.random(300) < 1 - said)
    assert (np.diff(curve.right) >= 0).all()
    assert np.mean(curve.right) == pytest.approx(np.mean(1 - said), abs=0.1)


def test_one_confidence_for_everything_becomes_the_share_that_is_right() -> None:
    curve = fit_calibration(np.full(100, 0.9, np.float32), np.arange(100) < 30)
    assert curve.apply(np.array([[0.1, 0.9]], np.float32)) == pytest.approx(0.3)


def test_a_perfect_confidence_has_no_error() -> None:
    said = np.array([0.0] * 10 + [1.0] * 10, np.float32)
    assert calibration_error(said, said > 0.5) == 0
    assert calibration_error(said, said < 0.5) == 1


def test_a_curve_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="one length"):
        Calibration(said=(0.1, 0.5), right=(0.2,))
    with pytest.raises(ValidationError, match="ascending"):
        Calibration(said=(0.5, 0.1), right=(0.2, 0.3))


def test_the_runner_gives_calibrated_confidence(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    settings = ModelSettings(name=str(folder.path), device="cpu", dtype="float32")
    raw = open_predictor(settings).predict(window([0, 1, 2], [2]))
    curve = Calibration(said=(0.0, 1.0), right=(0.0, 0.5))
    write_manifest(folder.path, folder.manifest.model_copy(update={"calibration": curve}))
    assert read_folder(folder.path).manifest.calibration == curve
    calibrated = open_predictor(settings).predict(window([0, 1, 2], [2]))
    np.testing.assert_allclose(calibrated.confidence, 0.5 * raw.confidence, atol=1e-6)
    tree = yaml.safe_load((folder.path / "manifest.yaml").read_text())
    assert tree["calibration"]["right"] == [0.0, 0.5]
