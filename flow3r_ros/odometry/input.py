"""The door of the odometry: what comes in is checked, rectified and put on the depth grid; what
does not fit is refused by name.

Refusals are `FrameError`s whose reason is a drop counter: `corrupt_image`, `repeated_stamp`,
`non_monotonic_stamp`, `time_jumped_back`, `resolution_change`.

One restart policy, live and offline (`restarted` names the reason):

| what changed | what happens |
|---|---|
| time goes back by less than 0.5 s | disorder: the frame is dropped |
| time goes back by more | the second such frame in a row starts a new segment |
| image size | the second frame in a row of the same new size starts a new segment |
| intrinsics by more than 1 %, the lens, or they become known | a new segment at once |
| intrinsics by less (a lens that focuses), or none are given any more | the stream goes on |
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from flow3r_ros.errors import FrameError
from flow3r_ros.geometry.camera import Rectifier, default_camera, scaled
from flow3r_ros.geometry.correspondence import matching_size
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Bool, Camera, Frame, UInt8

JUMP_BACK_NS = 500_000_000
"""a stamp this far before the last one means that the source started over; less is disorder"""
SAME_CAMERA = 0.01
"""largest change of focal length (relative) and principal point (share of the image's size) that a
lens in focus makes; calibrations of two cameras differ by more"""
TRACKING_WIDTH = 640
"""width in pixels (of a 4:3 image) that corners are followed at"""
REPEAT_SHIFT = 0.05
"""pixels: two images are the same picture when they differ by less than such a shift of their
content would make"""
REPEAT_DIFFERENCE = 0.6
"""gray levels: and by no more than this on average, which is what decoding the same exposure twice
leaves"""


class Input:
    """Turns frames into views.

    The depth grid is the matcher's grid for `width`; `restarted` says after `admit` why everything
    remembered about the stream must go, and is empty when nothing must; `given` is the camera that
    the frames brought, None when they brought none.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.assumed: Camera | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the stream: the next frame sets size and time anew."""
        self.restarted = ""
        self.given: Camera | None = None
        self._size: tuple[int, int] | None = None
        self._stamp_ns: int | None = None
        self._doubtful: tuple[tuple[int, int], int] | None = None
        self._rectifier: Rectifier | None = None

    def admit(self, frame: Frame) -> View:
        """Check, rectify and resize one frame. Raises FrameError for a frame to drop, CameraError
        for intrinsics that cannot be."""
        self.restarted = ""
        rgb = frame.rgb
        if (
            not isinstance(rgb, np.ndarray)
            or rgb.dtype != np.uint8
            or rgb.ndim != 3
            or rgb.shape[2] != 3
            or min(rgb.shape[:2]) < 16
        ):
            shape = getattr(rgb, "shape", None)
            raise FrameError(
                "corrupt_image",
                f"frame {frame.id}: not a uint8 [H, W, 3] image of 16 pixels or more but {shape}",
            )
        size = rgb.shape[1], rgb.shape[0]
        change = self._change(frame, size)
        if change:
            self.reset()
            self.restarted = change
        self.given = frame.camera or self.given
        rectifier = self._rectifier_for(size)
        image = rectifier.apply(rgb)
        self._size, self._stamp_ns, self._doubtful = size, frame.stamp_ns, None
        ignored = _rectified_mask(frame.ignored, rectifier, size)
        rectified = replace(frame, rgb=image, camera=rectifier.rectified, ignored=ignored)
        return view_of(rectified, self.width)

    def _change(self, frame: Frame, size: tuple[int, int]) -> str:
        """Why the stream must start anew at this frame, empty when it goes on. Raises FrameError
        for a frame to drop."""
        if self._stamp_ns is None or self._size is None:
            return ""
        back_ns = self._stamp_ns - frame.stamp_ns
        if back_ns == 0:
            raise FrameError(
                "repeated_stamp", f"frame {frame.id}: stamp {frame.stamp_ns} ns came before"
            )
        if 0 < back_ns <= JUMP_BACK_NS:
            raise FrameError(
                "non_monotonic_stamp",
                f"frame {frame.id}: stamp {frame.stamp_ns} ns is before {self._stamp_ns} ns",
                "stamps of one run increase",
            )
        if back_ns > 0:
            change = f"time jumped back by {back_ns / 1e9:.2f} s (a recording started over?)"
            self._confirm("time_jumped_back", change, frame, size)
            return change
        if size != self._size:
            change = (
                f"image size changed from {self._size[0]}x{self._size[1]} to {size[0]}x{size[1]}"
            )
            self._confirm("resolution_change", change, frame, size)
            return change
        if frame.camera is not None and not _same_camera(frame.camera, self.given):
            return "intrinsics changed"
        return ""

    def _confirm(self, reason: str, change: str, frame: Frame, size: tuple[int, int]) -> None:
        """Drop the first frame of a change, which may be a stray one; pass the second, which has
        the same size and a later stamp."""
        first, self._doubtful = self._doubtful, (size, frame.stamp_ns)
        if first is None or first[0] != size or frame.stamp_ns <= first[1]:
            raise FrameError(reason, f"frame {frame.id}: {change}", "the next one decides")

    def _rectifier_for(self, size: tuple[int, int]) -> Rectifier:
        camera = self.given or self.assumed
        if camera is None or (self.given is None and (camera.width, camera.height) != size):
            camera = default_camera(*size)
        if self._rectifier is None or self._rectifier.camera != camera:
            self._rectifier = Rectifier(camera)
        return self._rectifier


def _rectified_mask(
    ignored: Bool | None, rectifier: Rectifier, size: tuple[int, int]
) -> Bool | None:
    """A mask `[h, w]` of any size on the rectified image; None where nothing is ignored."""
    if ignored is None or not ignored.any():
        return None
    full = cv2.resize(ignored.view(np.uint8) * 255, size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(rectifier.apply(np.asarray(full, np.uint8)) > 0)


def _same_camera(camera: Camera, other: Camera | None) -> bool:
    """Whether two calibrations are of one lens in one place."""
    if other is None or (camera.width, camera.height) != (other.width, other.height):
        return False
    return (
        camera.distortion_model == other.distortion_model
        and math.isclose(camera.fx, other.fx, rel_tol=SAME_CAMERA)
        and math.isclose(camera.fy, other.fy, rel_tol=SAME_CAMERA)
        and abs(camera.cx - other.cx) <= SAME_CAMERA * camera.width
        and abs(camera.cy - other.cy) <= SAME_CAMERA * camera.height
        and np.allclose(camera.distortion, other.distortion, rtol=0.1, atol=0.01)
    )


def view_of(frame: Frame, depth_width: int) -> View:
    """A rectified frame with a pinhole, at the sizes that its readers want."""
    assert frame.camera is not None
    height, width = frame.rgb.shape[:2]
    gray = np.asarray(cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    lens = scaled(frame.camera, *matching_size(width, height, TRACKING_WIDTH))
    camera = scaled(frame.camera, *matching_size(width, height, depth_width))
    tracking = _resized(gray, lens.width, lens.height)
    # two pixels to one: linear is the area there, and quicker
    linear = width < 2 * camera.width
    rgb = _resized(frame.rgb, camera.width, camera.height, linear)
    on_grid = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    ignored = frame.ignored
    if ignored is not None:
        full = ignored.view(np.uint8) * np.uint8(255)
        ignored = _resized(full, camera.width, camera.height) > 0  # what touches it, too
    return View(frame, tracking, lens, rgb, on_grid, camera, ignored)


def _resized(image: UInt8, width: int, height: int, linear: bool = False) -> UInt8:
    if image.shape[:2] == (height, width):
        return image
    how = cv2.INTER_LINEAR if linear else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)


def same_picture(gray: UInt8, other: UInt8) -> bool:
    """True when two gray images `[h, w]` show the same exposure: identical, or different by no more
    than decoder noise."""
    if gray.shape != other.shape:
        return False
    difference = float(cv2.norm(gray, other, cv2.NORM_L1)) / gray.size
    contrast = (
        float(cv2.norm(gray[:, 1:], gray[:, :-1], cv2.NORM_L1))
        + float(cv2.norm(gray[1:], gray[:-1], cv2.NORM_L1))
    ) / gray.size
    return difference <= min(REPEAT_SHIFT * contrast, REPEAT_DIFFERENCE)
