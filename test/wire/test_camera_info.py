"""CameraInfo and Camera say the same thing, binning and region of interest included."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flow3r_ros.bags.types import make
from flow3r_ros.errors import CameraError
from flow3r_ros.types import Camera
from flow3r_ros.wire.camera_info import camera_from_info, info_from_camera
from flow3r_ros.wire.transforms import header_of

CAMERA = Camera(640, 480, 500.0, 510.0, 320.5, 239.0, "plumb_bob", (0.1, -0.2, 0.001, 0.002, 0.05))


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
        replace(CAMERA, distortion_model="none", distortion=()),
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
    assert camera_from_info(info(camera)) == camera


def test_ros1_names() -> None:
    new = info()
    old = SimpleNamespace(
        **{
            name: getattr(new, name)
            for name in ("width", "height", "distortion_model", "binning_x", "binning_y", "roi")
        }
    )
    old.K, old.D = new.k, new.d
    assert camera_from_info(old) == CAMERA


def test_zero_k_is_unknown() -> None:
    assert camera_from_info(info(k=np.zeros(9))) is None


def test_region_then_binning() -> None:
    camera = camera_from_info(info(roi=roi(100, 40, 320, 240), binning_x=2, binning_y=2))
    assert camera is not None
    assert (camera.width, camera.height, camera.fx, camera.fy) == (160, 120, 250.0, 255.0)
    # the centre of binned pixel u is the mean of full-resolution pixels 2u and 2u + 1
    assert camera.cx == pytest.approx((320.5 - 100 + 0.5) / 2 - 0.5)
    assert camera.cy == pytest.approx((239.0 - 40 + 0.5) / 2 - 0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"k": np.array([np.nan, 0, 1, 0, 1, 1, 0, 0, 1.0])},
        {"d": np.array([np.nan, 0, 0, 0, 0])},
        {"distortion_model": "seven_lenses"},
        {"width": 0},
        {"roi": roi(600, 0, 320, 240)},
        {"binning_x": 700},
    ],
    ids=["nan k", "nan d", "model", "size", "roi", "binning"],
)
def test_nonsense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CameraError):
        camera_from_info(info(**changes))
