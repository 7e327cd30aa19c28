"""The window odometry against an oracle: exact where the oracle is exact, sane where it lies."""

from __future__ import annotations

import numpy as np
import pytest

from flow3r_ros.config import Config, load_config
from flow3r_ros.geometry.lie import rotation_angle
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.types import Estimate, Frame, PoseSource, Predictor, TrackingState
from test.odometry.oracle import Oracle, clip_of, frames_of, relative_ate

WALK = {
    "seed": 3,
    "frames": 24,
    "width": 168,
    "height": 126,
    "layout": "room",
    "motion": "handheld",
    "movers": 0,
    "noise": 0.0,
}


def settings(**overrides: object) -> Config:
    return load_config(
        None,
        {
            "assist.enabled": False,
            **{key.replace("__", "."): value for key, value in overrides.items()},
        },
    )


def run(predictor: Predictor, frames: list[Frame], config: Config) -> tuple[list[Estimate], Engine]:
    engine = Engine(predictor, config)
    estimates = [estimate for frame in frames for estimate in engine.step(frame)] + engine.finish()
    return estimates, engine


@pytest.mark.parametrize("mode", ["online", "chunked"])
def test_exact_windows_give_the_exact_trajectory(mode: str) -> None:
    clip = clip_of(**WALK)
    estimates, engine = run(Oracle(clip), frames_of(clip), settings(engine__mode=mode))
    assert [e.frame_id for e in estimates] == list(range(24))
    assert relative_ate(estimates, clip) < 1e-6
    assert engine.seams_refused == 0
    assert engine.seams > 0
    for estimate in estimates:
        assert (
            rotation_angle(clip.poses[estimate.frame_id][:3, :3].T @ estimate.T_odom_cam[:3, :3])
            < 1e-6
        )


@pytest.mark.parametrize("dropped", range(1, 24, 4))
def test_any_window_may_be_dropped(dropped: int) -> None:
    clip = clip_of(**WALK)
    estimates, engine = run(Oracle(clip, fails={dropped}), frames_of(clip), settings())
    assert [e.frame_id for e in estimates] == list(range(24))
    assert engine.windows_failed >= 1
    if dropped < 23:
        assert relative_ate(estimates, clip) < 1e-6


def test_a_static_camera_with_noise_never_turns_the_world() -> None:
    clip = clip_of(
        seed=5,
        frames=20,
        width=168,
        height=126,
        layout="room",
        motion="static",
        movers=0,
        noise=1.0,
    )
    estimates, _ = run(Oracle(clip, depth_noise=0.05, pose_noise=1e-3), frames_of(clip), settings())
    depth = float(np.nanmedian(estimates[0].depth))
    for estimate in estimates:
        assert np.degrees(rotation_angle(estimate.T_odom_cam[:3, :3])) < 0.5
        assert np.linalg.norm(estimate.T_odom_cam[:3, 3]) < 0.02 * depth


@pytest.mark.parametrize("motion", ["rotation", "sideways"])
def test_pure_rotation_and_straight_lines_do_not_degenerate(motion: str) -> None:
    clip = clip_of(
        seed=7, frames=20, width=168, height=126, layout="room", motion=motion, movers=0, noise=0.0
    )
    estimates, engine = run(
        Oracle(clip, depth_noise=0.02, pose_noise=2e-4), frames_of(clip), settings()
    )
    assert engine.seams_refused == 0
    unit = float(np.nanmedian(estimates[0].depth)) / float(np.median(clip.depth[0]))
    truth = np.linalg.inv(clip.poses[0]) @ clip.poses
    for estimate in estimates:
        expected = truth[estimate.frame_id]
        assert np.degrees(rotation_angle(expected[:3, :3].T @ estimate.T_odom_cam[:3, :3])) < 0.5
        assert np.linalg.norm(estimate.T_odom_cam[:3, 3] / unit - expected[:3, 3]) < 0.02 * float(
            np.median(clip.depth)
        )


def test_outliers_and_a_moving_object_are_tolerated() -> None:
    clip = clip_of(
        seed=9,
        frames=16,
        width=168,
        height=126,
        layout="room",
        motion="handheld",
        movers=1,
        noise=0.0,
    )
    estimates, engine = run(Oracle(clip, outliers=0.3), frames_of(clip), settings())
    assert engine.seams_refused == 0
    assert relative_ate(estimates, clip) < 1e-3


def test_garbage_leads_to_lost_and_good_predictions_recover() -> None:
    clip = clip_of(**WALK)
    frames = frames_of(clip)
    estimates, engine = run(Oracle(clip, lies=set(range(8, 16))), frames, settings())
    states = [e.tracking_state for e in estimates]
    assert states[7] is TrackingState.TRACKING
    assert states[8] is TrackingState.DEGRADED
    assert states[14] is TrackingState.LOST
    assert states[17:] == [TrackingState.TRACKING] * 7
    assert engine.seams_refused >= 8
    lost = next(e for e in estimates if e.tracking_state is TrackingState.LOST)
    assert np.diag(lost.covariance).min() >= 1e6
    traces = [float(np.trace(e.covariance)) for e in estimates[7:13]]
    assert traces == sorted(traces)
    assert traces[-1] > traces[0]
    good = [estimates[0], *(e for e in estimates if e.tracking_state is TrackingState.TRACKING)]
    assert relative_ate(good, clip) < 1e-6


def test_a_hard_cut_begins_a_new_segment() -> None:
    clip, other = clip_of(**WALK), clip_of(**{**WALK, "seed": 4})
    oracle = Oracle(clip)
    engine = Engine(oracle, settings())
    for frame in frames_of(clip)[:8]:
        engine.step(frame)
    oracle.clip, oracle.lies = other, {8}
    states = [e.tracking_state for frame in frames_of(other)[8:] for e in engine.step(frame)]
    assert states[-1] is TrackingState.TRACKING


def test_depth_cloud_and_trajectory_share_one_scale() -> None:
    clip = clip_of(**WALK)
    estimates, engine = run(
        Oracle(clip), frames_of(clip), settings(scale__source="fixed", scale__factor=3.0)
    )
    plain, _ = run(Oracle(clip), frames_of(clip), settings())
    truth = np.linalg.inv(clip.poses[0]) @ clip.poses
    for estimate, unscaled in zip(estimates, plain, strict=True):
        ratio = float(np.nanmedian(estimate.depth)) / float(
            np.median(clip.depth[estimate.frame_id])
        )
        position = truth[estimate.frame_id][:3, 3]
        assert np.allclose(
            estimate.T_odom_cam[:3, 3],
            ratio * position,
            atol=2e-2 * ratio * max(float(np.linalg.norm(position)), 0.05),
        )
        assert np.allclose(estimate.T_odom_cam[:3, 3], 3.0 * unscaled.T_odom_cam[:3, 3])
        assert np.allclose(estimate.points()[..., 2], estimate.depth, equal_nan=True)
    assert engine.map is not None
    assert len(engine.map) > 0


def test_the_same_frames_give_the_same_bytes() -> None:
    clip = clip_of(**WALK)
    first, _ = run(Oracle(clip, depth_noise=0.05, pose_noise=1e-3), frames_of(clip), settings())
    second, _ = run(Oracle(clip, depth_noise=0.05, pose_noise=1e-3), frames_of(clip), settings())
    for a, b in zip(first, second, strict=True):
        assert a.T_odom_cam.tobytes() == b.T_odom_cam.tobytes()
        assert a.depth.tobytes() == b.depth.tobytes()


def test_bad_frames_are_counted_and_skipped() -> None:
    clip = clip_of(**WALK)
    frames = frames_of(clip)
    small = np.ascontiguousarray(frames[3].rgb[::2, ::2])
    stream = [
        *frames[:3],
        Frame(3, frames[2].stamp_ns, frames[3].rgb, clip.camera),
        Frame(4, frames[1].stamp_ns, frames[3].rgb, clip.camera),
        Frame(5, frames[3].stamp_ns, small),
        Frame(6, frames[3].stamp_ns, frames[3].rgb[..., 0], clip.camera),
        *[
            Frame(7 + i, frame.stamp_ns, frame.rgb, frame.camera)
            for i, frame in enumerate(frames[3:])
        ],
    ]
    order = [0, 1, 2, 0, 0, 0, 0, *range(3, 24)]
    estimates, engine = run(Oracle(clip, order=order), stream, settings())
    assert engine.drops == {
        "repeated_stamp": 1,
        "non_monotonic_stamp": 1,
        "resolution_change": 1,
        "corrupt_image": 1,
    }
    assert len(estimates) + sum(engine.drops.values()) == engine.frames_in
    assert relative_ate(estimates, clip, order) < 1e-6


def test_a_lasting_resolution_change_restarts_the_stream() -> None:
    clip = clip_of(**WALK)
    frames = frames_of(clip)
    small = [Frame(f.id, f.stamp_ns, np.ascontiguousarray(f.rgb[::2, ::2])) for f in frames[4:]]
    estimates, engine = run(Oracle(clip), [*frames[:4], *small], settings())
    assert engine.drops == {"resolution_change": 1}
    assert [segment.first_frame for segment in engine.segments] == [0, 5]
    assert engine.segments[1].reason.startswith("image size changed from ")
    assert estimates[-1].tracking_state is TrackingState.TRACKING


def test_a_repeated_picture_repeats_the_pose() -> None:
    clip = clip_of(**WALK)
    frames = frames_of(clip)
    frames.insert(5, Frame(99, frames[4].stamp_ns + 1, frames[4].rgb.copy(), clip.camera))
    estimates, _ = run(Oracle(clip), frames, settings())
    assert estimates[5].pose_source is PoseSource.REPEATED
    assert estimates[5].frame_id == 99
    assert np.array_equal(estimates[5].T_odom_cam, estimates[4].T_odom_cam)


def test_memory_does_not_grow_with_the_run() -> None:
    clip = clip_of(**WALK)
    order = [*range(24), *range(22, 0, -1)] * 4
    frames = [Frame(i, i * 100_000_000, clip.rgb[j], clip.camera) for i, j in enumerate(order)]
    engine = Engine(Oracle(clip, order=order), settings(cloud__max_voxels=5000))
    for frame in frames:
        engine.step(frame)
    assert engine.map is not None
    assert len(engine.map) <= 5000
    assert len(engine._buffer.keyframes) <= engine._buffer.capacity
