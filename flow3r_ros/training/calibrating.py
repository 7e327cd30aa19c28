"""The calibration curve of a trained network, from held-out clips: fitted on every other one,
checked on the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from flow3r_ros.network.calibration import Calibration, calibration_error, fit_calibration
from flow3r_ros.network.model import Flow3r
from flow3r_ros.training.sample import Sample
from flow3r_ros.training.validation import reliability
from flow3r_ros.types import Bool, Float32

LEAST_CLIPS = 4
"""labelled clips below which no curve is fitted"""


def calibrate(network: Flow3r, clips: Iterable[list[Sample]], where: str) -> Calibration | None:
    """The curve with its error on clips that it was not fitted on; None with fewer than
    `LEAST_CLIPS` labelled clips. `where` says what the clips are."""
    found = reliability(network, clips)
    if len(found) < LEAST_CLIPS:
        return None
    said, right = _joined(found[::2])
    other, truth = _joined(found[1::2])
    curve = fit_calibration(said, right)
    return curve.model_copy(
        update={
            "measured_on": f"{len(found)} clips of {where}: fitted on every other one, error on "
            "the rest",
            "error": round(calibration_error(curve.apply(other), truth), 4),
            "error_before": round(calibration_error(other, truth), 4),
        }
    )


def _joined(parts: Sequence[tuple[Float32, Bool]]) -> tuple[Float32, Bool]:
    return np.concatenate([said for said, _ in parts]), np.concatenate([ok for _, ok in parts])
