import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow3r_ros.errors import CameraError
from flow3r_ros.geometry import camera as cameras
from flow3r_ros.geometry.camera_file import load_camera, save_camera
from flow3r_ros.types import Camera
from test.conftest import shared_path


def make_camera(**changes):
    return replace(Camera(640, 480, 500.0, 510.0, 322.0, 236.0), **changes)


RADTAN = make_camera(distortion_model="plumb_bob", distortion=(-0.28, 0.07, 0.0002, 0.0001))
RATIONAL = make_camera(
    distortion_model="rational_polynomial",
    distortion=(0.4, -0.1, 0.001, -0.001, 0.01, 0.7, -0.1, 0.02),
)
FISHEYE = make_camera(
    fx=200.0, fy=200.0, distortion_model="equidistant", distortion=(0.02, -0.01, 0.003, -0.001)
)


def test_camera_json_round_trip(tmp_path):
    for camera in (make_camera(), RADTAN, make_camera(estimated=True)):
        save_camera(camera, tmp_path / "camera.json")
        assert load_camera(tmp_path / "camera.json", (640, 480)) == camera


BROKEN = (
    {"fx": float("nan")},
    {"fx": 0.0},
    {"fy": None},
    {"cx": 1e9},
    {"width": "wide"},
    {"width": 320},
    {"width": 0},
    {"distortion_model": "magic"},
    {"distortion_model": "plumb_bob", "distortion": [0.1] * 15},
    {"distortion": 3},
)


@pytest.mark.parametrize("change", BROKEN)
def test_bad_camera_files_are_named_errors(tmp_path, change):
    path = tmp_path / "camera.json"
    save_camera(make_camera(), path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CameraError, match=r"camera\.json"):
        load_camera(path, (640, 480))


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", "\xff"])
def test_files_that_are_no_camera(tmp_path, text):
    (tmp_path / "camera.json").write_text(text, encoding="latin-1")
    with pytest.raises(CameraError, match=r"camera\.json"):
        load_camera(tmp_path / "camera.json")
    with pytest.raises(CameraError):
        load_camera(tmp_path / "absent.json")


def test_shared_clips_load():
    root = shared_path("video")
    known = {
        folder.parent.name: load_camera(folder) for folder in sorted(root.glob("*/camera.json"))
    }
    assert known["euroc_v101_start"].distortion_model == "plumb_bob"
    assert known["kitti_curve_51"].distortion_model == "none"
    assert known["carnd_highway"] is None


@given(st.integers(8, 2000), st.integers(8, 2000))
def test_scaling_keeps_rays(width, height):
    camera = make_camera()
    small = cameras.scaled(camera, width, height)
    corner = (-0.5 - camera.cx) / camera.fx
    assert (-0.5 - small.cx) / small.fx == pytest.approx(corner)
    assert (height - 0.5 - small.cy) / small.fy == pytest.approx((479.5 - camera.cy) / camera.fy)


def test_crop_and_binning():
    camera = make_camera()
    assert cameras.cropped(camera, 10, 20, 100, 50).matrix[:2, 2] == pytest.approx([312.0, 216.0])
    assert cameras.binned(camera, 0, 1) == camera
    half = cameras.binned(replace(camera, width=641), 2, 2)
    assert (half.width, half.height, half.fx) == (320, 240, 250.0)
    assert half.cx == pytest.approx((322.5) / 2 - 0.5)


@pytest.mark.parametrize(
    "camera", [RADTAN, RATIONAL, FISHEYE], ids=["radtan", "rational", "fisheye"]
)
def test_rectified_pixels_show_the_rays_of_the_pinhole(camera):
    """Paint the distorted image with its own ray coordinates; after rectification every pixel must
    show its pinhole ray."""
    columns, rows = np.meshgrid(np.arange(640.0), np.arange(480.0))
    rays = cameras.undistort_points(camera, np.stack([columns, rows], -1).reshape(-1, 2)).reshape(
        480, 640, 2
    )
    painted = np.clip(np.nan_to_num(rays) * 50 + 128, 0, 255).astype(np.uint8)
    rectifier = cameras.Rectifier(camera)
    shown = rectifier.apply(np.dstack([painted, np.full((480, 640), 255, np.uint8)]))
    expected = cameras.rays(rectifier.rectified) * 50 + 128
    assert np.abs(shown[..., :2] - expected).max() < 2.5
    assert rectifier.rectified.distortion_model == "none"


@pytest.mark.parametrize(
    "camera", [RADTAN, RATIONAL, FISHEYE], ids=["radtan", "rational", "fisheye"]
)
def test_rectification_has_no_borders_and_keeps_the_view(camera):
    target = cameras.pinhole(camera)
    rays = cameras.rays(target).reshape(-1, 1, 2).astype(np.float64)
    points = np.concatenate([rays, np.ones((len(rays), 1, 1))], axis=2)
    project = cv2.fisheye.projectPoints if camera is FISHEYE else cv2.projectPoints
    arguments = (points, np.zeros(3), np.zeros(3), camera.matrix, np.array(camera.distortion))
    pixels = project(*arguments)[0].reshape(-1, 2)
    assert pixels.min() > -1.0
    assert pixels[:, 0].max() < 640.0
    assert pixels[:, 1].max() < 480.0
    share = 0.65 if camera is FISHEYE else 0.9  # the fisheye's view ends at 61 degrees on purpose
    assert np.ptp(pixels[:, 0]) > share * 640
    assert np.ptp(pixels[:, 1]) > share * 480


def test_undistort_points_inverts_projection():
    for camera in (RADTAN, RATIONAL):
        rays = np.random.default_rng(0).uniform(-0.4, 0.4, (50, 2))
        points = np.concatenate([rays, np.ones((50, 1))], 1)
        pixels = cv2.projectPoints(
            points, np.zeros(3), np.zeros(3), camera.matrix, np.array(camera.distortion)
        )[0].reshape(-1, 2)
        np.testing.assert_allclose(cameras.undistort_points(camera, pixels), rays, atol=1e-6)


def test_rectifier_refuses_another_image_size():
    with pytest.raises(CameraError, match="320x240"):
        cameras.Rectifier(RADTAN).apply(np.zeros((240, 320, 3), np.uint8))


def test_no_distortion_returns_the_image_itself():
    image = np.zeros((480, 640, 3), np.uint8)
    assert (
        cameras.Rectifier(make_camera(distortion_model="plumb_bob", distortion=(0.0,) * 5)).apply(
            image
        )
        is image
    )
