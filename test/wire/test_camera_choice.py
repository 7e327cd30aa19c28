"""Which camera an image has: every row of the table in `wire.camera_choice`."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flow3r_ros.bags.types import make
from flow3r_ros.types import Camera
from flow3r_ros.wire.camera_choice import choose_camera, is_neighbour, is_rectified
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.transforms import header_of

CAMERA = Camera(640, 480, 500.0, 510.0, 320.5, 239.0, "plumb_bob", (0.1, -0.2, 0.001, 0.002, 0.05))
PLAIN = replace(CAMERA, distortion_model="none", distortion=())
SIZE = (640, 480)
P = np.array([450.0, 0, 330, 0, 0, 455, 235, 0, 0, 0, 1, 0])
ZERO = np.zeros(9)


def info(camera: Camera = CAMERA, **changes: Any) -> Any:
    built = info_from_camera(make, header_of(make, 1, "cam"), camera)
    for key, value in changes.items():
        setattr(built, key, value)
    return built


def roi(x: int, y: int, width: int, height: int) -> Any:
    return SimpleNamespace(x_offset=x, y_offset=y, width=width, height=height, do_rectify=False)


@pytest.mark.parametrize(
    "camera",
    [
        CAMERA,
        PLAIN,
        replace(CAMERA, distortion_model="equidistant", distortion=(0.1, 0.01, -0.02, 0.003)),
        replace(
            CAMERA,
            distortion_model="rational_polynomial",
            distortion=(0.1, 0.01, 0.001, 0.002, 0.3, 0.01, 0.02, 0.03),
        ),
    ],
    ids=lambda camera: camera.distortion_model,
)
def test_round_trip(camera: Camera) -> None:
    choice = choose_camera(info(camera), SIZE)
    assert (choice.camera, choice.source) == (camera, "info_k")


def test_ros1_names() -> None:
    new = info()
    names = ("header", "width", "height", "distortion_model", "binning_x", "binning_y", "roi")
    old = SimpleNamespace(**{name: getattr(new, name) for name in names})
    old.K, old.D, old.P = new.k, new.d, new.p
    assert choose_camera(old, SIZE).camera == CAMERA


@pytest.mark.parametrize(
    ("changes", "topic", "source", "fx"),
    [
        ({"p": P}, "/cam/image_rect", "info_p", 450.0),
        ({"p": P}, "/cam/image_rect_color/compressed", "info_p", 450.0),
        ({"p": P}, "/cam/image_raw", "info_k", 500.0),
        ({"p": P, "d": np.zeros(0)}, "/cam/image_raw", "info_p", 450.0),
        ({"p": np.zeros(12)}, "/cam/image_rect", "info_k", 500.0),
        ({"p": P, "k": ZERO}, "/cam/image_raw", "info_p", 450.0),
    ],
)
def test_k_or_p(changes: dict[str, Any], topic: str, source: str, fx: float) -> None:
    choice = choose_camera(info(**changes), SIZE, topic)
    assert choice.camera is not None
    assert (choice.source, choice.camera.fx) == (source, fx)
    raw = source == "info_k" and topic == "/cam/image_raw"
    assert choice.camera.distortion == (CAMERA.distortion if raw else ())


def test_uncalibrated_and_absent_are_unknown() -> None:
    for nothing in (None, info(k=ZERO, p=np.zeros(12))):
        choice = choose_camera(nothing, SIZE)
        assert (choice.camera, choice.source) == (None, "estimated")


@pytest.mark.parametrize(
    ("changes", "fx", "cx"),
    [
        ({"width": 0, "height": 0}, 500.0, 320.5),
        ({"binning_x": 2, "binning_y": 2}, 500.0, 320.5),
        ({"roi": roi(100, 40, 640, 480)}, 500.0, 320.5),
        ({"roi": roi(0, 0, 640, 480)}, 500.0, 320.5),
    ],
    ids=["no size", "binned already", "cut already", "whole"],
)
def test_what_the_intrinsics_hold_already(changes: dict[str, Any], fx: float, cx: float) -> None:
    camera = choose_camera(info(**changes), SIZE).camera
    assert camera is not None
    assert (camera.width, camera.height, camera.fx, camera.cx) == (*SIZE, fx, cx)


def test_region_then_binning() -> None:
    binned = info(roi=roi(100, 40, 320, 240), binning_x=2, binning_y=2)
    camera = choose_camera(binned, (160, 120)).camera
    assert camera is not None
    assert (camera.width, camera.height, camera.fx, camera.fy) == (160, 120, 250.0, 255.0)
    # the centre of binned pixel u is the mean of full-resolution pixels 2u and 2u + 1
    assert camera.cx == pytest.approx((320.5 - 100 + 0.5) / 2 - 0.5)
    assert camera.cy == pytest.approx((239.0 - 40 + 0.5) / 2 - 0.5)


@pytest.mark.parametrize(
    ("model", "coefficients", "expected"),
    [
        ("plumb_bob", (0.1, -0.2, 0.001, 0.002, 0.05, 0, 0, 0), ("plumb_bob", 5)),
        ("plumb_bob", (0.1, -0.2), ("plumb_bob", 4)),
        ("plumb_bob", (0.1, -0.2, 0, 0, 0.01, 0.3, 0.2, 0.1), ("rational_polynomial", 8)),
        ("rational_polynomial", (0.1, -0.2, 0, 0, 0.01), ("plumb_bob", 5)),
        ("Brown Conrady", (0.1, -0.2, 0, 0, 0.01), ("plumb_bob", 5)),
        ("Inverse Brown Conrady", (0.0,) * 5, ("none", 0)),
        ("kannala_brandt4", (0.1, 0.01, 0, 0), ("equidistant", 4)),
        ("equidistant", (0.1, 0.01, 0, 0, 0.0), ("equidistant", 4)),
        ("FISHEYE", (0.1,), ("equidistant", 4)),
        ("", (0.1, -0.2, 0, 0, 0), ("plumb_bob", 5)),
        ("pinhole", (0.0,) * 5, ("none", 0)),
        ("none", (0.0,) * 5, ("none", 0)),
    ],
)
def test_lens_models_as_drivers_spell_and_count_them(
    model: str, coefficients: tuple[float, ...], expected: tuple[str, int]
) -> None:
    camera = choose_camera(info(distortion_model=model, d=np.array(coefficients)), SIZE).camera
    assert camera is not None
    assert (camera.distortion_model, len(camera.distortion)) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"k": np.array([np.nan, 0, 1, 0, 1, 1, 0, 0, 1.0])},
        {"k": np.array([1e300, 0, 320, 0, 1e300, 240, 0, 0, 1.0])},
        {"k": np.array([-500.0, 0, 320, 0, -500, 240, 0, 0, 1.0])},
        {"k": np.array([500.0, 0, 1e9, 0, 500, 240, 0, 0, 1.0])},
        {"d": np.array([np.nan, 0, 0, 0, 0])},
        {"d": np.array([1e9, 0, 0, 0, 0])},
        {"d": np.full(20, 0.1)},
        {"distortion_model": "equidistant", "d": np.array([1e9, 0, 0, 0])},
        {"distortion_model": "seven_lenses"},
        {"width": 0},
        {"width": 320, "height": 240},
    ],
)
def test_values_of_no_camera_are_refused_in_words(changes: dict[str, Any]) -> None:
    choice = choose_camera(info(**changes), SIZE)
    assert choice.camera is None
    assert choice.why.startswith("CameraInfo is not used: ")


def test_another_cameras_info_is_not_used() -> None:
    for frame, same in (("/cam", True), ("cam_optical_frame", True), ("", True), ("depth", False)):
        assert (choose_camera(info(), SIZE, "", frame).camera is not None) is same
    choice = choose_camera(
        info(), SIZE, "/camera/color/image_raw", "cam", "/camera/depth/camera_info"
    )
    assert choice.camera is None
    assert "/camera/depth/camera_info is of another camera" in choice.why


@pytest.mark.parametrize(
    ("info_topic", "image_topic", "expected"),
    [
        ("/camera/camera_info", "/camera/image_raw", True),
        ("/camera/camera_info", "/camera/image_raw/compressed", True),
        ("/camera_info", "/usb_cam/image_raw", True),
        ("/camera/camera_info", "/camera/color/image_raw", True),
        ("/camera/image/camera_info", "/camera/image", True),
        ("/camera/depth/camera_info", "/camera/color/image_raw", False),
        ("/camera/depth/camera_info", "/camera/image_raw", False),
        ("/left/camera_info", "/right/image_raw", False),
    ],
)
def test_neighbours(info_topic: str, image_topic: str, expected: bool) -> None:
    assert is_neighbour(info_topic, image_topic) is expected


def test_names_of_rectified_topics() -> None:
    assert all(map(is_rectified, ("/a/image_rect", "/a/image_rect_color", "/a/rgb_rect")))
    assert not any(map(is_rectified, ("/a/image_raw", "/a/image", "/rect/image", "/a/rectangle")))
