"""Cameras: checks, rectification to a pinhole, intrinsics under resizing, rays, focal length from a
point map.

Everything behind this module sees pinhole images only. Pixel centres are at integers, so resizing W
columns to w maps `u` to `(u + 0.5) w / W - 0.5` and the principal point follows the same rule.
Distortion models are those of `sensor_msgs/CameraInfo`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from flow3r_ros.errors import CameraError
from flow3r_ros.geometry.distortion import canonical
from flow3r_ros.types import Camera, Float32, Float64, UInt8

_FOCAL = (0.05, 50.0)
"""focal lengths of cameras, as shares of the longer side: a fisheye of 220 degrees has 0.26, a
telescope of one degree 57"""
_ASPECT = 5.0
"""largest ratio of the two focal lengths, or of their rectified counterparts to them"""
_MAX_TANGENT = 1.8
"""widest half angle kept by rectification: 61 degrees; beyond it a pinhole stretches the border
beyond use"""


def check_camera(camera: Camera, size: tuple[int, int] | None = None) -> Camera:
    """The camera with the model's canonical name, or CameraError naming what is wrong; `size` =
    (width, height) of the images."""
    values = (camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion)
    if not all(math.isfinite(value) for value in values):
        raise CameraError(
            f"intrinsics are not finite: {values}", "calibrate again, or leave the camera out"
        )
    if camera.width < 1 or camera.height < 1:
        raise CameraError(f"image size {camera.width}x{camera.height} is not positive")
    if camera.fx <= 0 or camera.fy <= 0:
        raise CameraError(
            f"focal lengths {camera.fx}, {camera.fy} are not positive",
            "an uncalibrated camera sends zeros: leave it out",
        )
    low, high = (share * max(camera.width, camera.height) for share in _FOCAL)
    if not (low < camera.fx < high and low < camera.fy < high) or not (
        1 / _ASPECT < camera.fx / camera.fy < _ASPECT
    ):
        raise CameraError(
            f"focal lengths {camera.fx:g}, {camera.fy:g} of a {camera.width}x{camera.height} image "
            "are those of no camera",
            "calibrate again, or leave the camera out",
        )
    if not (
        -camera.width < camera.cx < 2 * camera.width
        and -camera.height < camera.cy < 2 * camera.height
    ):
        raise CameraError(
            f"principal point ({camera.cx}, {camera.cy}) is far outside "
            f"{camera.width}x{camera.height}"
        )
    if size is not None and (camera.width, camera.height) != size:
        raise CameraError(
            f"intrinsics are for {camera.width}x{camera.height}, images are {size[0]}x{size[1]}",
            "use the calibration of this image size",
        )
    model, distortion = canonical(camera.distortion_model, camera.distortion)
    return replace(camera, distortion_model=model, distortion=distortion)


def scaled(camera: Camera, width: int, height: int) -> Camera:
    """The camera of the image resized to `width` x `height`; distortion coefficients do not
    change."""
    sx, sy = width / camera.width, height / camera.height
    cx, cy = (camera.cx + 0.5) * sx - 0.5, (camera.cy + 0.5) * sy - 0.5
    return replace(
        camera, width=width, height=height, fx=camera.fx * sx, fy=camera.fy * sy, cx=cx, cy=cy
    )


def cropped(camera: Camera, x: int, y: int, width: int, height: int) -> Camera:
    """The camera of the region of interest whose top-left pixel is (x, y)."""
    return replace(camera, width=width, height=height, cx=camera.cx - x, cy=camera.cy - y)


def binned(camera: Camera, binning_x: int, binning_y: int) -> Camera:
    """The camera after binning, as in `CameraInfo.binning_x/y` (0 and 1 both mean none)."""
    bx, by = max(binning_x, 1), max(binning_y, 1)
    whole = cropped(camera, 0, 0, camera.width // bx * bx, camera.height // by * by)
    return scaled(whole, whole.width // bx, whole.height // by)


def default_camera(width: int, height: int, focal: float | None = None) -> Camera:
    """A guessed pinhole (`estimated`): centred, square pixels, `focal` pixels or 0.9 of the longer
    side."""
    value = 0.9 * max(width, height) if focal is None else focal
    return Camera(
        width, height, value, value, (width - 1) / 2.0, (height - 1) / 2.0, estimated=True
    )


def pinhole(camera: Camera) -> Camera:
    """The pinhole that `Rectifier` maps to: same image size, square-pixel ratio kept, no black
    borders, widest such view.

    Raises CameraError as `check_camera` does, or when the distortion folds the image over itself.
    """
    camera = check_camera(camera)
    if camera.distortion_model == "none":
        return camera
    left, right, top, bottom = _inner_view(camera)
    if not (right - left > 1e-3 and bottom - top > 1e-3):
        raise CameraError(
            "the distortion coefficients fold the image over itself", "calibrate again"
        )
    zoom = max(
        (camera.width - 1) / (right - left) / camera.fx,
        (camera.height - 1) / (bottom - top) / camera.fy,
    )
    if not 1 / _ASPECT < zoom < _ASPECT:
        raise CameraError(
            f"the distortion coefficients change the focal length by a factor of {zoom:.3g}",
            "calibrate again",
        )
    fx, fy = camera.fx * zoom, camera.fy * zoom
    cx = (camera.width - 1) / 2.0 - fx * (left + right) / 2.0
    cy = (camera.height - 1) / 2.0 - fy * (top + bottom) / 2.0
    return replace(camera, fx=fx, fy=fy, cx=cx, cy=cy, distortion_model="none", distortion=())


def undistort_points(camera: Camera, pixels: Float64) -> Float64:
    """Rays `[n, 2]` (x/z, y/z) of pixels `[n, 2]`, distortion removed; nan where the model has no
    such ray."""
    points = np.ascontiguousarray(pixels, dtype=np.float64).reshape(-1, 1, 2)
    if camera.distortion_model == "equidistant":
        return np.asarray(_undistort_equidistant(camera, points[:, 0]))
    coefficients = np.array(camera.distortion or (0.0,) * 4)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-10)
    return np.asarray(
        cv2.undistortPointsIter(
            points, camera.matrix, coefficients, np.eye(3), np.eye(3), criteria
        )[:, 0]
    )


def _undistort_equidistant(camera: Camera, pixels: Float64) -> Float64:
    """Kannala-Brandt inverse by Newton; angles of 85 degrees and more have no useful pinhole ray
    and become nan."""
    k1, k2, k3, k4 = camera.distortion
    xd, yd = (pixels[:, 0] - camera.cx) / camera.fx, (pixels[:, 1] - camera.cy) / camera.fy
    radius = np.hypot(xd, yd)
    theta = np.minimum(radius, 1.4)
    for _ in range(20):
        t2 = theta * theta
        value = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))) - radius
        slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
        theta = np.clip(theta - value / np.where(np.abs(slope) < 1e-6, 1e-6, slope), 0.0, 1.57)
    tangent = np.where(theta < math.radians(85), np.tan(np.minimum(theta, 1.5)), np.nan)
    ratio = np.where(radius > 1e-9, tangent / np.maximum(radius, 1e-9), 1.0)
    return np.stack([xd * ratio, yd * ratio], axis=1)


def _inner_view(camera: Camera) -> tuple[float, float, float, float]:
    """Largest (x_min, x_max, y_min, y_max) in ray units whose every pixel exists in the distorted
    image."""
    w, h, n = camera.width - 1.0, camera.height - 1.0, 65
    u, v = np.linspace(0, w, n), np.linspace(0, h, n)
    edges = [np.stack([np.full(n, x), v], 1) for x in (0.0, w)] + [
        np.stack([u, np.full(n, y)], 1) for y in (0.0, h)
    ]
    limits = []
    for edge, axis, keep in zip(
        edges, (0, 0, 1, 1), (np.nanmax, np.nanmin, np.nanmax, np.nanmin), strict=True
    ):
        rays_of_edge = undistort_points(camera, edge)[:, axis]
        outward = -_MAX_TANGENT if keep is np.nanmax else _MAX_TANGENT
        limit = float(keep(rays_of_edge)) if np.isfinite(rays_of_edge).any() else outward
        limits.append(float(np.clip(limit, -_MAX_TANGENT, _MAX_TANGENT)))
    return limits[0], limits[1], limits[2], limits[3]


def undistortion_maps(
    source: Camera, target: Camera, kind: int
) -> tuple[cv2.typing.MatLike, cv2.typing.MatLike]:
    """Maps of OpenCV's `kind` for `cv2.remap`: where in an image of `source` each pixel of the
    pinhole `target`, at the same place, is found."""
    build = (
        cv2.fisheye.initUndistortRectifyMap
        if source.distortion_model == "equidistant"
        else cv2.initUndistortRectifyMap
    )
    size = (target.width, target.height)
    coefficients = np.array(source.distortion)
    return build(source.matrix, coefficients, np.eye(3), target.matrix, size, kind)


class Rectifier:
    """Removes lens distortion with maps computed once.

    `rectified` is the pinhole of the images that `apply` returns; without distortion both are what
    came in. Raises CameraError as `pinhole` does.
    """

    def __init__(self, camera: Camera) -> None:
        self.camera = check_camera(camera)
        self.rectified = pinhole(self.camera)
        self._maps = (
            None
            if self.camera.distortion_model == "none"
            else undistortion_maps(self.camera, self.rectified, cv2.CV_16SC2)
        )

    def apply(self, rgb: UInt8) -> UInt8:
        """Rectified copy of an image `[H, W]` or `[H, W, 3]` (the image itself without distortion);
        CameraError for another size."""
        height, width = rgb.shape[:2]
        if (width, height) != (self.camera.width, self.camera.height):
            raise CameraError(
                f"image is {width}x{height}, the camera {self.camera.width}x{self.camera.height}",
                "use the calibration of this image size",
            )
        if self._maps is None:
            return rgb
        return np.asarray(
            cv2.remap(
                rgb, *self._maps, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            ),
            dtype=np.uint8,
        )


def rays(camera: Camera) -> Float32:
    """Ray of every pixel of a pinhole, float32 `[h, w, 2]` = (x/z, y/z). Raises CameraError for a
    distorted camera."""
    if camera.distortion:
        raise CameraError("rays are defined for a pinhole", "rectify the images first")
    x = (np.arange(camera.width) - camera.cx) / camera.fx
    y = (np.arange(camera.height) - camera.cy) / camera.fy
    return np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1).astype(np.float32)
