import cv2
import numpy as np
import pytest

from flow3r_ros.geometry import lie
from flow3r_ros.geometry.camera import Rectifier, scaled
from flow3r_ros.geometry.camera_file import load_camera
from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.geometry.two_view import hybrid_pose, moving_mask, triangulate
from flow3r_ros.types import PoseSource
from test.conftest import shared_path
from test.geometry.views import (
    CAMERA,
    direction_error_deg,
    exact_correspondence,
    render,
    rotation_error_deg,
)

MOTIONS = {
    "forward": [0.0, 0.0, 0.4, 0.0, 0.01, 0.0],
    "sideways": [0.3, 0.02, 0.0, 0.0, 0.05, 0.0],
    "turning": [0.1, -0.1, 0.2, 0.05, -0.1, 0.1],
    "backward": [0.05, 0.0, -0.3, -0.03, 0.0, 0.02],
}


@pytest.mark.parametrize("name", MOTIONS)
def test_exact_flow_gives_exact_motion(name):
    T = lie.se3_exp(MOTIONS[name])
    flow, view, _ = exact_correspondence(T)
    pair = hybrid_pose(flow, CAMERA)
    assert rotation_error_deg(pair.T, T) < 0.01
    assert direction_error_deg(pair.T, T) < 0.1
    assert np.linalg.norm(pair.T[:3, 3]) == pytest.approx(1.0)
    assert not pair.scaled
    scaled_pair = hybrid_pose(flow, CAMERA, view.depth)
    assert scaled_pair.scaled
    np.testing.assert_allclose(scaled_pair.T, T, atol=2e-3)
    assert scaled_pair.scale.spread < 0.05


@pytest.mark.parametrize("name", MOTIONS)
def test_noise_and_thirty_percent_outliers_are_tolerated(name):
    T = lie.se3_exp(MOTIONS[name])
    flow, view, _ = exact_correspondence(T, noise=0.3, outliers=0.3)
    pair = hybrid_pose(flow, CAMERA, view.depth)
    assert rotation_error_deg(pair.T, T) < 0.2
    assert direction_error_deg(pair.T, T) < 3.0
    assert np.linalg.norm(pair.T[:3, 3]) == pytest.approx(np.linalg.norm(T[:3, 3]), rel=0.05)
    assert 0.55 < pair.inliers < 0.95


@pytest.mark.parametrize("name", MOTIONS)
def test_rendered_images_through_the_matcher(name):
    T = lie.se3_exp(MOTIONS[name])
    a, b = render(np.eye(4), noise=2, seed=1), render(T, noise=2, seed=2)
    pair = hybrid_pose(Matcher().flow(a.gray, b.gray), CAMERA)
    assert rotation_error_deg(pair.T, T) < 0.15
    assert direction_error_deg(pair.T, T) < 3.0


def test_pure_rotation_has_no_translation_to_speak_of():
    T = lie.rigid(lie.so3_exp([0.03, -0.08, 0.05]), np.zeros(3))
    flow, view, _ = exact_correspondence(T, noise=0.2)
    for depth in (None, view.depth):
        pair = hybrid_pose(flow, CAMERA, depth)
        assert rotation_error_deg(pair.T, T) < 0.05
        assert np.linalg.norm(pair.T[:3, 3]) < 0.02
        assert pair.parallax_px < 0.5


def test_stationary_camera_with_noise_stays_put():
    for seed in range(3):
        a, b = render(np.eye(4), noise=3, seed=seed), render(np.eye(4), noise=3, seed=seed + 50)
        pair = hybrid_pose(Matcher().flow(a.gray, b.gray), CAMERA)
        assert pair.source is PoseSource.STATIONARY
        np.testing.assert_array_equal(pair.T, np.eye(4))


def test_small_parallax_takes_translation_from_depth():
    T = lie.se3_exp([0.004, 0.0, 0.0, 0.0, 0.03, 0.0])
    flow, view, _ = exact_correspondence(T, noise=0.1)
    pair = hybrid_pose(flow, CAMERA, view.depth)
    assert pair.source is PoseSource.PNP
    assert pair.scaled
    assert np.linalg.norm(pair.T[:3, 3] - T[:3, 3]) < 0.004


def test_an_unmatched_pair_says_predicted():
    flow, _, _ = exact_correspondence(np.eye(4))
    nothing = type(flow)(
        flow.flow,
        flow.covisibility * 0,
        flow.texture,
        flow.backward,
        flow.backward_covisibility * 0,
        flow.texture,
    )
    pair = hybrid_pose(nothing, CAMERA)
    assert pair.source is PoseSource.PREDICTED
    assert not np.isfinite(pair.cost)
    np.testing.assert_array_equal(pair.T, np.eye(4))


def test_triangulation_equals_the_depth_and_knows_its_error():
    T = lie.se3_exp(MOTIONS["sideways"])
    flow, view, _ = exact_correspondence(T, noise=0.5)
    found = triangulate(flow, CAMERA, T)
    known = np.isfinite(found.inverse)
    assert known.mean() > 0.6
    error = np.abs(found.inverse - 1 / view.depth)[known] / found.sigma[known]
    assert 0.4 < np.median(error) < 1.0
    behind = triangulate(flow, CAMERA, lie.rigid(T[:3, :3], -T[:3, 3]))
    assert np.isfinite(behind.inverse).mean() < 0.05


def test_a_moving_object_is_found_and_does_not_bend_the_pose():
    T = lie.se3_exp([0.1, 0.0, 0.3, 0.0, 0.02, 0.0])
    a, b = render(np.eye(4)), render(T, box_shift=np.array([0.1, 0.25, 0.0]))
    flow = Matcher().flow(a.gray, b.gray)
    pair = hybrid_pose(flow, CAMERA)
    assert rotation_error_deg(pair.T, T) < 0.35
    assert direction_error_deg(pair.T, T) < 5.0
    mask = moving_mask(flow, CAMERA, pair.T)
    box = np.zeros(mask.shape, bool)
    box[18:160, 125:268] = True  # where the square is, margin included
    inner = np.zeros(mask.shape, bool)
    inner[40:140, 145:245] = True
    assert mask[inner].mean() > 0.6
    assert mask[~box].mean() < 0.03
    still = Matcher().flow(a.gray, render(T).gray)
    assert moving_mask(still, CAMERA, T, a.depth).mean() < 0.03


def clip_pairs(name, stride, indices):
    """(gray a, gray b, camera of the grid, true T_a_b) of a shared clip."""
    folder = shared_path(f"video/{name}")
    rectifier = Rectifier(load_camera(folder / "camera.json"))
    truth = {}
    for line in (folder / "groundtruth.tum").read_text().splitlines():
        if not line.startswith("#"):
            values = [float(value) for value in line.split()]
            truth[round(values[0] * 1e6)] = lie.rigid(
                lie.matrix_from_quaternion(values[4:]), values[1:4]
            )
    stamps = [round(float(line) * 1e6) for line in (folder / "timestamps.txt").read_text().split()]
    files = sorted((folder / "frames").iterdir()) if (folder / "frames").is_dir() else None
    video = None if files else cv2.VideoCapture(str(folder / "frames.mp4"))

    def image(index):
        if files:
            return cv2.imread(str(files[index]))
        video.set(cv2.CAP_PROP_POS_FRAMES, index)
        return video.read()[1]

    matcher = Matcher()
    for index in indices:
        if stamps[index] in truth and stamps[index + stride] in truth:
            a, b = (matcher.prepare(rectifier.apply(image(i))) for i in (index, index + stride))
            T = lie.invert(truth[stamps[index]]) @ truth[stamps[index + stride]]
            yield matcher.flow(a, b), scaled(rectifier.rectified, a.shape[1], a.shape[0]), T


@pytest.mark.parametrize(
    ("name", "stride", "indices", "rotation_bound", "direction_bound"),
    [
        ("kitti_curve_51", 1, range(2, 50, 6), 0.1, 2.0),
        ("sevenscenes_redkitchen", 5, range(0, 120, 15), 0.8, 40.0),
        ("nerf_fox_50", 1, range(0, 28, 4), 0.4, 2.0),
    ],
)
def test_real_clips(name, stride, indices, rotation_bound, direction_bound):
    errors = []
    for flow, camera, T in clip_pairs(name, stride, indices):
        pair = hybrid_pose(flow, camera)
        errors.append((rotation_error_deg(pair.T, T), direction_error_deg(pair.T, T)))
    rotation, direction = np.median(np.array(errors), axis=0)
    assert rotation < rotation_bound
    assert direction < direction_bound


def test_the_same_flow_gives_the_same_pose_bit_for_bit():
    a, b = (
        render(np.eye(4), noise=4, seed=1),
        render(
            lie.se3_exp(MOTIONS["turning"]), box_shift=np.array([0.2, 0.1, 0.0]), noise=4, seed=2
        ),
    )
    flow = Matcher().flow(a.gray, b.gray)
    first, second = (hybrid_pose(flow, CAMERA, a.depth) for _ in range(2))
    np.testing.assert_array_equal(first.T, second.T)
    assert first.source is second.source
