"""Flow metrics on fields whose errors are known."""

from __future__ import annotations

import numpy as np
import pytest

from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.flow import evaluate_flow


def test_errors_of_known_size() -> None:
    ref = np.zeros((2, 4, 2), np.float32)
    est = ref.copy()
    est[0, :, 0] = [0.5, 2.0, 4.0, 100.0]
    est[1, :, 1] = [0.5, 2.0, 4.0, np.nan]
    covisible = np.ones((2, 4), bool)
    covisible[0, 3] = False
    result = evaluate_flow(est, ref, covisible)
    assert result["epe"] == pytest.approx(13 / 6)
    assert (result["below_1px"], result["below_3px"], result["below_5px"]) == pytest.approx(
        (2 / 7, 4 / 7, 6 / 7)
    )
    assert (result["pixels"], result["missing"]) == (7, 1)


def test_equals_a_loop() -> None:
    rng = np.random.default_rng(0)
    est, ref = rng.normal(0, 3, (2, 5, 6, 7, 2)).astype(np.float32)
    loop = np.mean(
        [np.hypot(*(a - b)) for a, b in zip(est.reshape(-1, 2), ref.reshape(-1, 2), strict=True)]
    )
    assert evaluate_flow(est, ref)["epe"] == pytest.approx(loop, rel=1e-6)


def test_sizes_and_empty_masks_are_refused() -> None:
    flow = np.zeros((3, 3, 2), np.float32)
    with pytest.raises(EvaluationError, match="cannot be compared"):
        evaluate_flow(flow, flow[:2])
    with pytest.raises(EvaluationError, match="covisible"):
        evaluate_flow(flow, flow, np.zeros((3, 3), bool))
    with pytest.raises(EvaluationError, match="finite"):
        evaluate_flow(flow * np.nan, flow)
