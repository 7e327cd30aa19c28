"""A gyroscope beside the pictures: fast turns are followed, wrong ones are refused, gravity makes
the world level. (Without readings nothing changes: every other test of the odometry.)"""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import numpy as np
import pytest

from flow3r_ros.config import Config
from flow3r_ros.geometry.lie import invert, rotation_angle, so3_exp, so3_log
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.training.scenes.renderer import SceneClip
from flow3r_ros.types import Estimate, Float64, Frame, Inertial, TrackingState
from test.odometry.oracle import Oracle, clip_of
from test.odometry.plane import Network, bytes_of, frames_of, settings

PERIOD_NS, READING_NS = 100_000_000, 5_000_000
DOWN = np.array([0.0, 1.0, 0.0])
ORDER = [*range(21), *[9, 20, 31, 20] * 2]
"""pictures of a clip: a walk, then turns to and fro by 19 degrees from one picture to the next"""


def readings(frames: Sequence[Frame], poses: Float64) -> list[Inertial]:
    """A 200 Hz gyroscope with bias, noise and a clock that is 3 ms late."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(1, len(frames)):
        begin, end = frames[index - 1].stamp_ns, frames[index].stamp_ns
        turn = so3_log(poses[index - 1, :3, :3].T @ poses[index, :3, :3])
        for ns in range(begin, end, READING_NS):
            rate = turn / ((end - begin) * 1e-9) + 0.02 + 0.01 * rng.normal(size=3)
            found.append(Inertial(ns + 3_000_000, rate, None, DOWN))
    return found


def with_readings(
    engine: Engine, frames: Sequence[Frame], units: Sequence[Inertial]
) -> list[Estimate]:
    """Estimates of frames and readings in the order of their stamps."""
    waiting, found = list(units), []
    for frame in frames:
        while waiting and waiting[0].stamp_ns <= frame.stamp_ns + READING_NS:
            engine.add_inertial(waiting.pop(0))
        found += engine.step(frame)
    return found + engine.finish()


def turning_clip() -> SceneClip:
    """A camera that turns by 1.7 degrees from one picture to the next."""
    return clip_of(7, 34, 320, 240, motion="rotation", turn=0.03, speed=0.02, movers=0,
                   field_of_view=75.0)  # fmt: skip


def clip_frames(clip: SceneClip, order: Sequence[int]) -> list[Frame]:
    """Its pictures in this order, as a 10 Hz camera's."""
    return [Frame(i, (i + 1) * PERIOD_NS, clip.rgb[k], clip.camera) for i, k in enumerate(order)]


@pytest.mark.parametrize("gyroscope", [False, True])
def test_fast_turns_are_followed_with_a_gyroscope(gyroscope: bool) -> None:
    clip = turning_clip()
    frames, poses = clip_frames(clip, ORDER), clip.poses[ORDER]
    with Engine(Oracle(clip, order=ORDER), Config()) as engine:
        units = readings(frames, poses) if gyroscope else []
        estimates = with_readings(engine, frames, units)
    fast = [e.tracking_state is TrackingState.TRACKING for e in estimates[21:]]
    off = [
        rotation_angle((invert(poses[0]) @ pose)[:3, :3].T @ e.T_odom_cam[:3, :3])
        for e, pose in zip(estimates, poses, strict=True)
    ]
    if gyroscope:
        assert all(fast)
        assert max(off) < np.deg2rad(2.0)
    else:
        assert not all(fast), "without one it is lost here; if not, take a faster turn"


def test_a_proven_gyroscope_refuses_a_turn_that_only_the_pictures_make() -> None:
    clip, jump = turning_clip(), [*range(21), 22, 23]
    frames, felt = clip_frames(clip, jump), [*range(21), 20, 21]
    with Engine(Oracle(clip, order=jump), Config()) as engine:
        estimates = with_readings(engine, frames, readings(frames, clip.poses[felt]))
    assert {e.tracking_state for e in estimates[1:21]} == {TrackingState.TRACKING}
    assert estimates[21].tracking_state is TrackingState.DEGRADED
    assert estimates[21].reason == "the gyroscope contradicts the turn"


def test_gravity_makes_the_world_level() -> None:
    pitch = so3_exp([-0.3, 0.0, 0.1])  # of the camera in a level world
    felt = pitch.T @ (-9.81 * DOWN)
    frames = frames_of(range(8))
    with Engine(Network(range(8)), settings()) as engine:
        for index in range(20):
            ns = frames[0].stamp_ns - (20 - index) * READING_NS
            engine.add_inertial(Inertial(ns, None, felt, DOWN))
        level = [each for frame in frames for each in engine.step(frame)]
    with Engine(Network(range(8)), settings()) as engine:
        plain = [each for frame in frames for each in engine.step(frame)]
    first = level[0].T_odom_cam[:3, :3]
    np.testing.assert_allclose(first @ pitch.T @ DOWN, DOWN, atol=1e-6)
    for one, other in zip(level, plain, strict=True):
        np.testing.assert_allclose(
            one.T_odom_cam[:3, :3], first @ other.T_odom_cam[:3, :3], atol=0.003
        )
        np.testing.assert_allclose(
            one.T_odom_cam[:3, 3], first @ other.T_odom_cam[:3, 3], atol=0.01
        )


def test_what_was_felt_goes_on_with_a_snapshot() -> None:
    frames, begin = frames_of(range(12)), frames_of([0])[0].stamp_ns
    felt = np.array([0.1, -9.8, 0.0])
    units = [
        Inertial(begin + index * READING_NS, np.array([0.0, 0.01, 0.0]), felt, DOWN)
        for index in range(-20, 80)
    ]
    early = [unit for unit in units if unit.stamp_ns <= frames[6].stamp_ns]
    late = units[len(early) :]
    with Engine(Network(range(12)), settings()) as engine:
        whole = with_readings(engine, frames[:7], early)
        state = pickle.dumps(engine.snapshot())
        whole += with_readings(engine, frames[7:], late)
    with Engine(Network(range(12)), settings()) as engine:
        engine.restore(pickle.loads(state))
        again = with_readings(engine, frames[7:], late)
    assert bytes_of(again) == bytes_of(whole[-len(again) :])
