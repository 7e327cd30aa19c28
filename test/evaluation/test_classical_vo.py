"""The classical baseline really measures the camera's way, and stays put when nothing moves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from flow3r_ros.evaluation.classical_vo import ClassicalOdometry, stand_still, straight_line
from flow3r_ros.evaluation.trajectory import evaluate_trajectory
from flow3r_ros.geometry.motion import path_length
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.training.scenes.renderer import SceneClip, render_clip
from flow3r_ros.types import Frame

STAMPS = np.arange(24, dtype=np.int64) * 100_000_000


@pytest.fixture(scope="module")
def clip() -> SceneClip:
    return render_clip(
        5,
        frames=24,
        width=320,
        height=240,
        layout="room",
        motion="orbit",
        movers=0,
        speed=0.06,
        turn=0.06,
        field_of_view=70.0,
    )


def frames_of(clip: SceneClip, order: list[int] | None = None) -> Iterator[Frame]:
    for index, stamp in enumerate(STAMPS):
        yield Frame(index, int(stamp), clip.rgb[order[index] if order else index], clip.camera)


def test_it_beats_the_answers_that_need_no_images(clip: SceneClip) -> None:
    truth = Trajectory(STAMPS, clip.poses)
    ours = evaluate_trajectory(ClassicalOdometry()(frames_of(clip)), truth)
    line = evaluate_trajectory(straight_line(STAMPS.tolist()), truth)
    still = evaluate_trajectory(stand_still(STAMPS.tolist()), truth, align="se3")
    assert ours["ate_rmse"] < 0.5 * min(line["ate_rmse"], still["ate_rmse"])
    assert ours["rpe_rot_deg_rmse"] < 0.5 * still["rpe_rot_deg_rmse"]


def test_a_camera_that_stands_still_stays_put(clip: SceneClip) -> None:
    rng = np.random.default_rng(0)
    noisy = [
        Frame(
            i,
            int(s),
            np.clip(clip.rgb[0] + rng.normal(0, 2, clip.rgb[0].shape), 0, 255).astype(np.uint8),
            clip.camera,
        )
        for i, s in enumerate(STAMPS[:8])
    ]
    assert path_length(ClassicalOdometry()(noisy).poses) == 0.0


def test_frames_without_texture_are_counted_as_failures(clip: SceneClip) -> None:
    odometry = ClassicalOdometry()
    blank = [
        Frame(i, int(s), np.full_like(clip.rgb[0], 128), clip.camera)
        for i, s in enumerate(STAMPS[:5])
    ]
    poses = odometry(blank).poses
    assert odometry.failures == 4
    assert np.isfinite(poses).all()


def test_without_intrinsics_a_camera_is_assumed(clip: SceneClip) -> None:
    bare = [Frame(frame.id, frame.stamp_ns, frame.rgb) for frame in frames_of(clip)][:6]
    assert np.isfinite(ClassicalOdometry()(bare).poses).all()
