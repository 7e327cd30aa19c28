"""The curve of a network from held-out clips: none with too few, honest about clips it has not
seen."""

from __future__ import annotations

import numpy as np
import pytest

from flow3r_ros.errors import TrainingError
from flow3r_ros.network import load_model
from flow3r_ros.network.calibration import calibration_error
from flow3r_ros.training.calibrating import LEAST_CLIPS, calibrate, calibrate_both
from flow3r_ros.training.validation import reliability


def test_a_curve_is_fitted_on_every_other_clip_and_judged_on_the_rest(samples, tiny_settings):
    network = load_model(tiny_settings().start_from)
    clips = [[sample] for sample in samples]
    assert calibrate(network, clips[: LEAST_CLIPS - 1], "too few") is None
    curve = calibrate(network, clips, "four rooms")
    assert curve is not None
    assert "4 clips of four rooms" in curve.measured_on
    found = reliability(network, clips)
    said, right = (np.concatenate([found[k][part] for k in (1, 3)]) for part in (0, 1))
    assert abs(curve.error_before - calibration_error(said, right)) < 1e-3
    assert abs(curve.error - calibration_error(curve.apply(said), right)) < 1e-3
    assert curve.error < curve.error_before, "an untrained confidence says one half of everything"
    assert not network.training


def test_two_kinds_of_clips_weigh_the_same_in_one_curve(samples, tiny_settings):
    network = load_model(tiny_settings().start_from)
    clips = [[sample] for sample in samples]
    with pytest.raises(TrainingError, match="a curve needs"):
        calibrate_both(network, clips, clips[:1], "rooms")
    curve = calibrate_both(network, clips * 3, clips, "rooms")
    assert "4 windows" in curve.measured_on
    found = reliability(network, clips)
    said, right = (np.concatenate([found[k][part] for k in (1, 3)]) for part in (0, 1))
    assert abs(curve.error - calibration_error(curve.apply(said), right)) < 0.05
    assert curve.error < curve.error_before
