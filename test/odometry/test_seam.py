"""The seam: one Sim(3) from window to odometry, exact where the prediction is, robust where it is
not, refused where it must be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flow3r_ros.config import EngineSettings
from flow3r_ros.geometry.camera import rays
from flow3r_ros.geometry.lie import rotation_angle, se3_exp, sim3, so3_exp
from flow3r_ros.odometry.seam import Known, fit_seam, robust_depth_scale, to_odometry
from flow3r_ros.types import Camera, Float64, Prediction

CAMERA = Camera(84, 63, 70.0, 70.0, 41.5, 31.0)
WINDOW = sim3(0.37, so3_exp([0.4, -0.8, 0.3]), np.array([3.0, -1.0, 2.0]))
"""from the window's own world to the odometry's"""
SETTINGS = EngineSettings()


def seen(count: int = 2, seed: int = 0) -> tuple[Prediction, dict[int, Known]]:
    """`count` frames with ids 7, 8, ... whose depth and pose the odometry knows, and the same in
    the window's world."""
    random = np.random.default_rng(seed)
    ray = np.concatenate([rays(CAMERA), np.ones((63, 84, 1), np.float32)], axis=-1)
    known, points, poses = {}, [], []
    for index in range(count):
        depth = random.uniform(1.0, 4.0, (63, 84)).astype(np.float32)
        pose = se3_exp(0.2 * random.normal(size=6))
        known[7 + index] = Known(pose, depth)
        points.append(ray * depth[..., None] / np.float32(0.37))
        poses.append(in_window(pose))
    return Prediction(
        tuple(known), np.stack(points), np.ones((count, 63, 84), np.float32), np.stack(poses)
    ), known


def in_window(pose: Float64) -> Float64:
    """A pose of the odometry's world in the window's."""
    moved = np.linalg.inv(WINDOW) @ pose
    moved[:3, :3] *= 0.37
    return np.asarray(moved)


def test_an_exact_window_is_joined_exactly() -> None:
    prediction, known = seen()
    seam = fit_seam(prediction, known, SETTINGS)
    assert seam.accepted
    np.testing.assert_allclose(seam.sim3, WINDOW, atol=1e-6)
    assert seam.scale == pytest.approx(0.37, rel=1e-6)
    assert seam.inliers == 1.0
    assert seam.residual < 1e-6
    np.testing.assert_allclose(to_odometry(prediction.poses[1], seam), known[8].pose, atol=1e-6)


def test_frames_are_shared_by_id_whatever_their_place() -> None:
    prediction, known = seen(3)
    shuffled = {8: known[8], 99: Known(np.eye(4), np.ones((63, 84), np.float32)), 7: known[7]}
    np.testing.assert_allclose(fit_seam(prediction, shuffled, SETTINGS).sim3, WINDOW, atol=1e-6)
    swapped = {7: known[8], 8: known[7]}
    assert not fit_seam(prediction, swapped, SETTINGS).accepted


def test_a_third_of_outliers_changes_nothing() -> None:
    prediction, known = seen()
    random = np.random.default_rng(1)
    points = prediction.local_points.copy()
    wrong = random.random(points.shape[:3]) < 0.3
    points[wrong] *= random.uniform(1.5, 6.0, (int(wrong.sum()), 1)).astype(np.float32)
    seam = fit_seam(replace(prediction, local_points=points), known, SETTINGS)
    assert seam.accepted
    np.testing.assert_allclose(seam.sim3, WINDOW, atol=1e-4)
    assert seam.inliers == pytest.approx(0.7, abs=0.03)


def test_points_without_confidence_have_no_say() -> None:
    prediction, known = seen()
    points, confidence = prediction.local_points.copy(), prediction.confidence.copy()
    points[:, :, :50] *= 3.0
    confidence[:, :, :50] = 0.0
    seam = fit_seam(
        replace(prediction, local_points=points, confidence=confidence), known, SETTINGS
    )
    assert seam.scale == pytest.approx(0.37, rel=1e-6)
    assert seam.inliers == 1.0


def test_one_shared_frame_or_a_camera_at_rest_is_enough() -> None:
    prediction, known = seen()
    np.testing.assert_allclose(
        fit_seam(prediction, {8: known[8]}, SETTINGS).sim3, WINDOW, atol=1e-6
    )
    still = {id_: replace(view, pose=known[7].pose) for id_, view in known.items()}
    at_rest = replace(prediction, poses=np.stack([in_window(known[7].pose)] * 2))
    np.testing.assert_allclose(fit_seam(at_rest, still, SETTINGS).sim3, WINDOW, atol=1e-6)


def test_the_heavier_pose_counts_more() -> None:
    prediction, known = seen()
    turned = known[7].pose.copy()
    turned[:3, :3] = so3_exp([0.0, 0.0, 0.1]) @ turned[:3, :3]

    def turn(weight: float) -> float:
        seam = fit_seam(
            prediction, {7: Known(turned, known[7].depth, weight), 8: known[8]}, SETTINGS
        )
        return float(rotation_angle(seam.sim3[:3, :3] @ WINDOW[:3, :3].T / (seam.scale * 0.37)))

    assert turn(1.0) == pytest.approx(0.05, abs=1e-3)
    assert turn(0.01) < 0.002


@pytest.mark.parametrize(
    "harm", ["nothing shared", "not finite", "mirrored", "no depth", "shapeless", "too far"]
)
def test_a_bad_window_is_refused_with_its_reason(harm: str) -> None:
    prediction, known = seen()
    random = np.random.default_rng(2)
    if harm == "nothing shared":
        known, reason = {99: known[7]}, "no shared frames"
    elif harm == "not finite":
        prediction, reason = (
            replace(prediction, poses=np.where(np.arange(4) == 3, np.nan, prediction.poses)),
            "not rigid",
        )
    elif harm == "mirrored":
        prediction, reason = (
            replace(prediction, poses=prediction.poses @ np.diag([1.0, 1.0, -1.0, 1.0])),
            "not rigid",
        )
    elif harm == "no depth":
        known, reason = (
            {
                id_: replace(view, depth=np.full((63, 84), np.nan, np.float32))
                for id_, view in known.items()
            },
            "too few valid",
        )
    elif harm == "shapeless":
        factor = np.exp(random.normal(0, 1.5, (2, 63, 84, 1))).astype(np.float32)
        prediction, reason = (
            replace(prediction, local_points=prediction.local_points * factor),
            "inlier share",
        )
    else:
        factor = np.exp(random.normal(0, 0.12, (2, 63, 84, 1))).astype(np.float32)
        prediction, reason = (
            replace(prediction, local_points=prediction.local_points * factor),
            "residual",
        )
    settings = SETTINGS if harm != "too far" else EngineSettings(seam_max_residual=0.02)
    seam = fit_seam(prediction, known, settings)
    assert not seam.accepted
    assert reason in seam.reason


def test_scale_of_depths_is_robust_and_needs_enough_pixels() -> None:
    random = np.random.default_rng(0)
    source = random.uniform(1, 5, 1000).astype(np.float32)
    target = source * np.float32(2.5)
    target[:350] = random.uniform(0.1, 50, 350)
    target[350:360], source[360:370] = np.nan, -1.0
    found = robust_depth_scale(source, target, np.ones(1000, np.float32))
    assert found == pytest.approx(2.5, rel=1e-3)
    assert robust_depth_scale(source[:29], source[:29], np.ones(29, np.float32)) is None
    assert robust_depth_scale(source, target, np.zeros(1000, np.float32)) is None
