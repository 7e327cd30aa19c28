"""A camera and a trusted odometry teach in metres: depth is triangulated from known poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.geometry.lie import invert
from flow3r_ros.training.data import open_data
from flow3r_ros.training.posed_depth import depth_of_poses
from flow3r_ros.training.sample import collate
from test.datasets.test_labelled_bag import TOPICS, write_labelled_bag
from test.training.clip_factory import scene
from test.training.test_data import settings


def relative_error(found: np.ndarray, truth: np.ndarray) -> float:
    known = np.isfinite(found) & np.isfinite(truth)
    return float(np.median(np.abs(found[known] / truth[known] - 1)))


def test_depth_is_in_the_unit_of_the_poses() -> None:
    made = scene(frames=4)
    depth = depth_of_poses(made.rgb, made.camera, made.poses)
    assert depth.shape == made.depth.shape
    assert np.isfinite(depth).mean() > 0.3
    assert relative_error(depth, made.depth) < 0.05
    larger = made.poses.copy()
    larger[:, :3, 3] *= 3
    again = depth_of_poses(made.rgb, made.camera, larger)
    assert relative_error(again, 3 * made.depth) < 0.05


def test_a_camera_that_only_turns_gives_none() -> None:
    made = scene(frames=3)
    still = made.poses.copy()
    still[:, :3, 3] = still[0, :3, 3]
    assert np.isnan(depth_of_poses(made.rgb, made.camera, still)).all()


def test_wrong_poses_are_not_believed_everywhere() -> None:
    """Odometry that says forward where the camera went sideways: most matches leave their lines."""
    made = scene(frames=3)
    wrong = made.poses.copy()
    for k in (1, 2):
        wrong[k, :3, 3] = wrong[0, :3, 3] + 0.06 * k * wrong[0, :3, 2]
    right = np.isfinite(depth_of_poses(made.rgb, made.camera, made.poses)).mean()
    assert np.isfinite(depth_of_poses(made.rgb, made.camera, wrong)).mean() < 0.5 * right


@pytest.mark.parametrize("pose", ["/odom", "/tf"])
def test_a_bag_with_camera_and_odometry_teaches_in_metres(tmp_path: Path, pose: str) -> None:
    made = scene(frames=7)
    bag = write_labelled_bag(tmp_path / "bag", made, depth=False)
    topics = TOPICS.model_copy(update={"pose": pose, "depth": ""})
    data = open_data(
        [bag],
        settings(bag_topics=topics, augment=False, evidence=False),
        seed=1,
        clips_per_step=2,
        pairs=2,
        workspace=tmp_path / "work",
    )
    samples = data.source.batch(0)
    for sample in samples:
        assert sample.poses is not None
        assert sample.depth is not None
        steps = invert(sample.poses[0]) @ sample.poses
        travelled = np.linalg.norm(steps[-1, :3, 3])
        possible = [
            np.linalg.norm((invert(made.poses[i]) @ made.poses[j])[:3, 3])
            for i in range(6)
            for j in range(6)
        ]
        assert np.abs(np.array(possible) - travelled).min() < 1e-6, "metres, as the robot went"
        assert np.isfinite(sample.depth).mean() > 0.15
        assert 0.7 < np.nanmedian(sample.depth) / np.nanmedian(made.depth) < 1.4
        assert (sample.covisibility > 0.5).mean() > 0.1
    assert len(collate(samples).labelled) == 2, "geometry is taught, not flow alone"
    assert not (tmp_path / "work" / "labels").exists(), "nothing had to be labelled"
