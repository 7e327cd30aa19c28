"""What may be believed: right poses through exposure and blur, and nothing of what a camera sees
that sees nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from flow3r_ros.geometry.camera_pose import PoseFit
from flow3r_ros.geometry.lie import se3_exp
from flow3r_ros.odometry.input import same_picture
from flow3r_ros.odometry.tracking import Tracker
from flow3r_ros.odometry.verification import (
    Verdict,
    Verifier,
    informative,
    judge,
    picture_likeness,
    recognised,
    sure_by_features,
)
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Float64, TrackingState, UInt8
from test.odometry.plane import BLACK, picture, reference_at, relative, seen_at, view

RIGHT, WRONG = Verdict(True, "", 1.0, 1.0), Verdict(False, "no", 0.0, 0.0)
NOISE = np.random.default_rng(0)


def examined(where: View, predicted: Float64) -> Verdict:
    """Tracked from a keyframe at moment 0 after its own picture, and judged."""
    reference, tracker = reference_at(0), Tracker()
    tracker.follow(reference, np.eye(4))
    tracker.track(seen_at(0), np.eye(4))
    tracked = tracker.track(where, predicted)
    assert tracked is not None
    depth, came_from = reference.seen_from(where, tracked.T_ref_cam)
    return judge(where, tracked, reference, came_from, np.isfinite(depth.inverse), predicted)


def changed(name: str) -> UInt8:
    """The right picture as a camera may show it."""
    right = picture(3)
    changes = {
        "as it is": right,
        "twice the exposure": cv2.convertScaleAbs(right, alpha=2.0),
        "half the exposure": cv2.convertScaleAbs(right, alpha=0.5),
        "a little blurred": cv2.GaussianBlur(right, (0, 0), 1.5),
        "noisy": cv2.add(right, NOISE.normal(0, 6, right.shape), dtype=cv2.CV_8U),
    }
    return np.asarray(changes[name], np.uint8)


def blind(name: str) -> UInt8:
    """What a camera sees that sees nothing, or something else."""
    shape = BLACK.shape
    kinds = {
        "black": BLACK,
        "lens cap": NOISE.integers(0, 3, shape),
        "white": 255 - NOISE.integers(0, 2, shape),
        "noise": NOISE.integers(0, 256, shape),
        "another place": np.roll(picture(3)[:, ::-1], 97, axis=0),
        "out of focus": cv2.GaussianBlur(picture(3), (0, 0), 25),
        "a wall": np.clip(120 + NOISE.normal(0, 1.5, shape), 0, 255),
    }
    return np.ascontiguousarray(kinds[name], np.uint8)


@pytest.mark.parametrize(
    "name",
    ["as it is", "twice the exposure", "half the exposure", "a little blurred", "noisy"],
)
def test_the_right_place_is_believed_however_it_looks(name: str) -> None:
    verdict = examined(view(changed(name), 3), relative(0, 2))
    assert verdict.believed, verdict
    assert verdict.reason == ""


@pytest.mark.parametrize(
    "name", ["black", "lens cap", "white", "noise", "another place", "out of focus", "a wall"]
)
def test_what_shows_nothing_of_the_place_is_not(name: str) -> None:
    verdict = examined(view(blind(name), 3), relative(0, 2))
    assert not verdict.believed, verdict
    assert verdict.reason


@pytest.mark.parametrize("name", ["black", "lens cap", "white", "out of focus", "a wall"])
def test_an_empty_picture_is_not_informative(name: str) -> None:
    assert not informative(view(blind(name)).tracking)
    assert informative(seen_at(0).tracking)


def test_a_jump_needs_more_than_a_step() -> None:
    """The same measurements with less agreement: enough for a step, too little for a jump."""
    reference, tracker = reference_at(0), Tracker()
    tracked = tracker.look(seen_at(3), reference, relative(0, 3))
    depth, came_from = reference.seen_from(seen_at(3), tracked.T_ref_cam)
    seen = np.isfinite(depth.inverse)
    judged = np.concatenate([np.ones(8), np.full(46, 9.0)])
    weak = type(tracked)(**{**vars(tracked), "judged": judged, "asked": 54})
    near = tracked.T_ref_cam
    turned = near @ se3_exp(np.array([0, 0, 0, 0, 0.2, 0]))
    far = near @ se3_exp(np.array([1.0, 0, 0, 0, 0, 0]))
    assert judge(seen_at(3), weak, reference, came_from, seen, near).believed
    for predicted in (turned, far, None):
        verdict = judge(seen_at(3), weak, reference, came_from, seen, predicted)
        assert not verdict.believed
        assert "jump" in verdict.reason
        assert judge(seen_at(3), tracked, reference, came_from, seen, predicted).believed


def test_corners_alone_do_not_do_where_the_picture_contradicts() -> None:
    reference, tracker = reference_at(0), Tracker()
    tracked = tracker.look(seen_at(3), reference, relative(0, 3))
    _, came_from = reference.seen_from(seen_at(3), tracked.T_ref_cam)
    elsewhere = (came_from + np.float32([40, 25])) % np.float32([160, 120])
    seen = np.ones(elsewhere.shape[:2], np.bool_)
    verdict = judge(seen_at(3), tracked, reference, elsewhere, seen, relative(0, 3))
    assert not verdict.believed
    assert "picture" in verdict.reason


def test_likeness_ignores_exposure_and_asks_for_enough_pixels() -> None:
    gray = seen_at(0).gray
    grid = np.stack(np.meshgrid(*map(np.arange, gray.shape[::-1])), axis=-1).astype(np.float32)
    grid = grid[::2, ::2]
    seen = np.ones(grid.shape[:2], np.bool_)
    assert picture_likeness(gray, gray, grid, seen) == pytest.approx(1.0, abs=1e-3)
    half = cv2.convertScaleAbs(gray, alpha=0.5, beta=40)
    assert picture_likeness(gray, half, grid, seen) > 0.95
    assert np.isnan(picture_likeness(gray, gray, grid, ~seen))


def test_a_repeated_picture_is_the_same_one_and_the_next_is_not() -> None:
    gray = seen_at(0).gray
    noisy = cv2.add(gray, NOISE.normal(0, 0.4, gray.shape), dtype=cv2.CV_8U)
    assert same_picture(gray, gray.copy())
    assert same_picture(gray, noisy)
    assert not same_picture(gray, seen_at(2).gray)
    assert not same_picture(gray, gray[::2])


@pytest.mark.parametrize(
    ("shift", "turn", "likeness", "believed"),
    [
        (0.002, 0.002, np.nan, True),  # settled: the picture may have changed
        (0.05, 0.002, np.nan, False),
        (0.002, 0.05, 0.2, False),
        (0.05, 0.05, 0.6, True),  # open, but the picture looks alike
    ],
)
def test_features_alone_must_settle_the_pose_or_the_picture_look_alike(
    shift: float, turn: float, likeness: float, believed: bool
) -> None:
    depth = 5.0
    sigma = np.array([depth * shift] * 3 + [turn] * 3) / np.sqrt(3)
    fit = PoseFit(np.eye(4), np.diag(1 / sigma**2), np.zeros((20, 2)), 1.0)
    assert sure_by_features(fit, depth, likeness) is believed


def test_a_recognised_place_needs_witnesses() -> None:
    assert recognised(np.ones(8), 0.9)
    assert not recognised(np.ones(5), 0.9)
    assert not recognised(np.concatenate([np.ones(8), np.full(20, 9.0)]), 0.9)
    assert not recognised(np.ones(8), 0.7)
    assert recognised(np.ones(20), 0.7)
    assert not recognised(np.ones(20), 0.5)


def test_the_state_goes_down_and_comes_back_by_evidence_alone() -> None:
    verifier = Verifier(3)
    assert verifier.state is TrackingState.INITIALIZING
    states = [verifier.accept(v) for v in (RIGHT, WRONG, WRONG, WRONG, WRONG, RIGHT, RIGHT)]
    assert [state.value for state in states] == [
        "tracking", "degraded", "degraded", "lost", "lost", "relocalizing", "tracking",
    ]  # fmt: skip
    assert verifier.unbelieved == 0


def test_a_frozen_picture_of_a_moving_camera_is_believed_once() -> None:
    verifier = Verifier(5)
    verifier.accept(RIGHT)
    assert verifier.hold(moving=False) is TrackingState.TRACKING
    assert verifier.hold(moving=True) is TrackingState.TRACKING
    assert verifier.hold(moving=True) is TrackingState.DEGRADED
    assert verifier.reason == "the picture repeats"
