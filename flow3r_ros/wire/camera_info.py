"""`sensor_msgs/CameraInfo` to Camera and back: region of interest and binning honoured, an
uncalibrated camera is None."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flow3r_ros.errors import CameraError
from flow3r_ros.geometry.camera import binned, check_camera, cropped
from flow3r_ros.types import Camera
from flow3r_ros.wire.images import Make


def camera_from_info(info: Any) -> Camera | None:
    """Camera of the images that go with a CameraInfo (ROS 1 or ROS 2 field names); None when K is
    all zero (uncalibrated).

    K is that of the full image: the region of interest (full-resolution pixels) is cut out first,
    then binning divides; pixel centres stay at integers. Raises CameraError for values that are not
    finite, sizes that make no sense, or an unknown distortion model.
    """
    intrinsics = [float(value) for value in (info.k if hasattr(info, "k") else info.K)]
    if not any(intrinsics):
        return None
    if not all(math.isfinite(value) for value in intrinsics):
        raise CameraError(
            f"CameraInfo.k is not finite: {intrinsics}",
            "calibrate the camera, or send k of zeros for unknown",
        )
    distortion = tuple(float(value) for value in (info.d if hasattr(info, "d") else info.D))
    model = str(info.distortion_model)
    full = Camera(
        int(info.width),
        int(info.height),
        intrinsics[0],
        intrinsics[4],
        intrinsics[2],
        intrinsics[5],
        model,
        distortion,
    )
    full = check_camera(full)
    roi = info.roi
    if int(roi.width) and int(roi.height):
        x, y, width, height = int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)
        if x + width > full.width or y + height > full.height:
            raise CameraError(
                f"CameraInfo.roi {width}x{height} at ({x}, {y}) leaves the "
                f"{full.width}x{full.height} image"
            )
        full = cropped(full, x, y, width, height)
    binning = int(info.binning_x), int(info.binning_y)
    if binning[0] > full.width or binning[1] > full.height:
        raise CameraError(
            f"CameraInfo.binning {binning[0]}x{binning[1]} leaves nothing of a "
            f"{full.width}x{full.height} image"
        )
    return binned(full, *binning)


def info_from_camera(make: Make, header: Any, camera: Camera) -> Any:
    """`sensor_msgs/CameraInfo` of a camera: R is the identity, P = [K 0], no region of interest, no
    binning."""
    projection = np.zeros((3, 4))
    projection[:, :3] = camera.matrix
    model = "plumb_bob" if camera.distortion_model == "none" else camera.distortion_model
    return make(
        "sensor_msgs/msg/CameraInfo",
        header=header,
        height=camera.height,
        width=camera.width,
        distortion_model=model,
        d=np.array(camera.distortion or (0.0,) * 5, dtype=np.float64),
        k=camera.matrix.reshape(-1).copy(),
        r=np.eye(3).reshape(-1),
        p=projection.reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=make(
            "sensor_msgs/msg/RegionOfInterest",
            x_offset=0,
            y_offset=0,
            height=0,
            width=0,
            do_rectify=False,
        ),
    )
