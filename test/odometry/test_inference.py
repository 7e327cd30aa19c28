"""The network's part of a keyframe: joined where it agrees, refused by name where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from flow3r_ros.config import EngineSettings
from flow3r_ros.errors import Flow3rError
from flow3r_ros.geometry.lie import se3_exp
from flow3r_ros.odometry.inference import Answer, ask_network
from flow3r_ros.types import Prediction
from test.odometry.plane import Network, depth_at, seen_at
from test.odometry.test_keyframes import keyframe_at

ORDER = list(range(40))
Mishap = Callable[[Prediction, int], Prediction]


def asked(mishap: Mishap | None = None, companions: tuple[int, ...] = (0, 4, 8)) -> Answer | None:
    known = [keyframe_at(index, 1000 * index)[0] for index in companions]
    new = keyframe_at(12, 50_000)[0]
    steps = [None] * len(known)
    return ask_network(Network(ORDER, mishap), known, new, steps, EngineSettings())


def test_a_window_in_another_unit_is_joined() -> None:
    def elsewhere(answer: Prediction, _: int) -> Prediction:
        poses = se3_exp(np.array([3.0, 1, 2, 0.3, -0.5, 0.2])) @ answer.poses
        poses[:, :3, 3] *= 0.4
        return replace(answer, poses=poses, local_points=answer.local_points * np.float32(0.4))

    answer = asked(elsewhere)
    assert answer is not None
    assert answer.seam is not None
    assert answer.seam.accepted
    assert answer.seam.scale == pytest.approx(2.5, rel=0.01)
    assert answer.window == (0, 4, 8, 12)
    height, width = answer.depth.shape
    exact = 1.0 / depth_at(12, seen_at(12)).resized(width, height).inverse
    np.testing.assert_allclose(answer.depth, exact, rtol=0.03)


def test_the_first_window_has_no_seam() -> None:
    answer = asked(companions=())
    assert answer is not None
    assert answer.seam is None
    assert answer.window == (12,)


def test_a_window_that_contradicts_is_refused_and_says_why() -> None:
    def garbage(answer: Prediction, _: int) -> Prediction:
        random = np.random.default_rng(0)
        factor = random.uniform(0.1, 10.0, answer.confidence.shape).astype(np.float32)
        return replace(answer, local_points=answer.local_points * factor[..., None])

    answer = asked(garbage)
    assert answer is not None
    assert answer.seam is not None
    assert not answer.seam.accepted
    assert answer.seam.reason


def raises(answer: Prediction, _: int) -> Prediction:
    raise Flow3rError("no memory left")


def nan_points(answer: Prediction, _: int) -> Prediction:
    return replace(answer, local_points=np.full_like(answer.local_points, np.nan))


def nan_poses(answer: Prediction, _: int) -> Prediction:
    return replace(answer, poses=np.full_like(answer.poses, np.nan))


def yesterday(answer: Prediction, _: int) -> Prediction:
    return replace(answer, frame_ids=tuple(id_ - 1000 for id_ in answer.frame_ids))


@pytest.mark.parametrize("mishap", [raises, nan_points, nan_poses, yesterday])
def test_a_network_that_fails_gives_no_answer_and_no_error(mishap: Mishap) -> None:
    assert asked(mishap) is None
