"""Geometry beside the network: it repairs bad predictions, leaves good ones alone, and holds still
when the camera does."""

from __future__ import annotations

import cv2
import numpy as np

from flow3r_ros.config import Config, load_config
from flow3r_ros.geometry.lie import rotation_angle
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.training.scenes.renderer import SceneClip
from flow3r_ros.types import Estimate, Float64, Frame, PoseSource, Predictor, TrackingState
from test.odometry.oracle import EvidenceOracle, Oracle, clip_of, frames_of, relative_ate

WALK = {
    "seed": 2,
    "frames": 14,
    "width": 280,
    "height": 210,
    "layout": "room",
    "motion": "handheld",
    "movers": 0,
    "noise": 0.3,
    "speed": 0.02,
    "turn": 0.015,
    "textures": "photographs",
}


def run(
    predictor: Predictor, frames: list[Frame], **overrides: object
) -> tuple[list[Estimate], Engine]:
    config: Config = load_config(
        None, {key.replace("__", "."): value for key, value in overrides.items()}
    )
    engine = Engine(predictor, config)
    return [
        estimate for frame in frames for estimate in engine.step(frame)
    ] + engine.finish(), engine


def test_good_predictions_are_left_alone() -> None:
    clip = clip_of(**WALK)
    on, engine = run(Oracle(clip), frames_of(clip))
    off, _ = run(Oracle(clip), frames_of(clip), assist__enabled=False)
    assert relative_ate(off, clip) < 1e-6
    assert relative_ate(on, clip) < 1e-6
    assert engine.pose_sources["network"] >= 10


def test_bad_predictions_are_repaired() -> None:
    clip = clip_of(**WALK)
    noise = {"depth_noise": 0.2, "pose_noise": 0.02}
    on, _ = run(Oracle(clip, **noise), frames_of(clip))
    off, _ = run(Oracle(clip, **noise), frames_of(clip), assist__enabled=False)
    assert relative_ate(on, clip) < 0.3 * relative_ate(off, clip)
    turned = [
        np.degrees(rotation_angle(clip.poses[e.frame_id][:3, :3].T @ e.T_odom_cam[:3, :3]))
        for e in on
    ]
    assert max(turned) < 1.0


def test_geometry_goes_on_while_the_network_lies() -> None:
    clip = clip_of(**WALK)
    estimates, engine = run(Oracle(clip, lies=set(range(6, 11))), frames_of(clip))
    assert engine.seams_refused >= 4
    assert all(e.tracking_state is not TrackingState.LOST for e in estimates)
    assert relative_ate(estimates, clip) < 0.03


def test_a_camera_at_rest_is_held_exactly() -> None:
    clip = clip_of(**{**WALK, "motion": "static", "movers": 1, "noise": 0.5, "frames": 10})
    estimates, _ = run(Oracle(clip, depth_noise=0.05, pose_noise=2e-3), frames_of(clip))
    for estimate in estimates:
        assert np.array_equal(estimate.T_odom_cam, estimates[0].T_odom_cam)
    assert {e.pose_source for e in estimates[1:]} <= {PoseSource.STATIONARY, PoseSource.REPEATED}


def test_an_unknown_camera_is_estimated_and_no_frame_is_lost() -> None:
    clip = clip_of(**WALK)
    estimates, _ = run(Oracle(clip), frames_of(clip, calibrated=False))
    assert [e.frame_id for e in estimates] == list(range(14))
    assert all(e.camera.estimated for e in estimates)
    expected = clip.camera.fx * estimates[0].camera.width / clip.camera.width
    assert abs(estimates[0].camera.fx / expected - 1.0) < 0.02


def test_the_same_frames_give_the_same_bytes() -> None:
    clip = clip_of(**WALK)
    runs = [
        run(Oracle(clip, depth_noise=0.2, pose_noise=0.02), frames_of(clip))[0] for _ in range(2)
    ]
    for a, b in zip(*runs, strict=True):
        assert a.T_odom_cam.tobytes() == b.T_odom_cam.tobytes()
        assert a.depth.tobytes() == b.depth.tobytes()


def test_a_network_that_follows_the_evidence_keeps_the_trajectory() -> None:
    """The way of the bundled model: it is given pose and depth of geometry and answers with them,
    completed."""
    clip = clip_of(**WALK)
    oracle = EvidenceOracle(clip, depth_noise=0.02)
    estimates, engine = run(oracle, frames_of(clip))
    assert [e.frame_id for e in estimates] == list(range(14))
    assert oracle.windows_with_depth >= 10, "the evidence holds what geometry has triangulated"
    assert engine.seams_refused == 0
    assert all(e.tracking_state is not TrackingState.LOST for e in estimates)
    assert relative_ate(estimates, clip) < 0.02
    last = estimates[-1]
    known = np.isfinite(last.depth)
    assert known.mean() > 0.9, "depth is completed where geometry knows none"
    assert np.median(relative_depth_error(last, clip)) < 0.05


def relative_depth_error(estimate: Estimate, clip: SceneClip) -> Float64:
    """Of every known pixel, after one scale."""
    truth = cv2.resize(
        clip.depth[estimate.frame_id], estimate.depth.shape[::-1], interpolation=cv2.INTER_NEAREST
    )
    known = np.isfinite(estimate.depth)
    ratio = (estimate.depth[known] / truth[known]).astype(np.float64)
    return np.abs(ratio / np.median(ratio) - 1)


def test_a_network_that_follows_the_evidence_is_no_second_opinion_when_it_lies() -> None:
    clip = clip_of(**WALK)
    oracle = EvidenceOracle(clip, lies=set(range(6, 11)))
    estimates, engine = run(oracle, frames_of(clip))
    assert engine.seams_refused >= 4
    assert relative_ate(estimates, clip) < 0.03
