"""The door of the odometry: what comes in is checked, rectified and put on the depth grid; what
does not fit is refused by name.

Refusals are `FrameError`s whose reason is a drop counter: `corrupt_image`, `repeated_stamp`,
`non_monotonic_stamp`, `resolution_change`. A refusal that persists is not noise but a new situation
(another camera mode, a bag that looped): after `PERSISTENT` refusals in a row of the same kind the
door asks for a restart and lets the stream in again.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from flow3r_ros.errors import FrameError
from flow3r_ros.geometry.camera import Rectifier, default_camera, scaled
from flow3r_ros.geometry.correspondence import matching_size
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Camera, Frame, UInt8

PERSISTENT = 5
"""refusals in a row for a changed size or a stamp in the past after which the stream is taken as it
now is"""
REPEAT_SHIFT = 0.05
"""pixels: two images are the same picture when they differ by less than such a shift of their
content would make"""
REPEAT_DIFFERENCE = 0.6
"""gray levels: and by no more than this on average, which is what decoding the same exposure twice
leaves"""


class Admission:
    """Turns frames into views.

    The depth grid is the matcher's grid for `width`; `restarted` is True after `admit` when the
    stream changed for good and everything remembered about it must go.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.assumed: Camera | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the stream: the next frame sets size and time anew."""
        self.restarted = False
        self._size: tuple[int, int] | None = None
        self._stamp_ns: int | None = None
        self._refused = ""
        self._refused_in_row = 0
        self._rectifier: Rectifier | None = None

    def admit(self, frame: Frame) -> View:
        """Check, rectify and resize one frame. Raises FrameError for a frame to drop, CameraError
        for intrinsics that cannot be."""
        self.restarted = False
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
        if self._stamp_ns is not None and frame.stamp_ns == self._stamp_ns:
            raise FrameError(
                "repeated_stamp", f"frame {frame.id}: stamp {frame.stamp_ns} ns came before"
            )
        if self._stamp_ns is not None and frame.stamp_ns < self._stamp_ns:
            self._refuse(
                "non_monotonic_stamp",
                f"frame {frame.id}: stamp {frame.stamp_ns} ns is before {self._stamp_ns} ns",
            )
        if self._size is not None and size != self._size:
            self._refuse(
                "resolution_change",
                f"frame {frame.id}: {size[0]}x{size[1]} after {self._size[0]}x{self._size[1]}",
            )
        rectifier = self._rectifier_for(frame, size)
        image = rectifier.apply(rgb)
        self._size, self._stamp_ns, self._refused_in_row = size, frame.stamp_ns, 0
        camera = scaled(rectifier.rectified, *matching_size(*size, self.width))
        small = np.asarray(
            cv2.resize(image, (camera.width, camera.height), interpolation=cv2.INTER_AREA),
            dtype=np.uint8,
        )
        gray = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
        view = View(replace(frame, rgb=image, camera=rectifier.rectified), small, gray, camera)
        view.forget_depth()
        return view

    def _rectifier_for(self, frame: Frame, size: tuple[int, int]) -> Rectifier:
        camera = frame.camera or self.assumed
        if camera is None or (frame.camera is None and (camera.width, camera.height) != size):
            camera = default_camera(*size)
        if self._rectifier is None or self._rectifier.camera != camera:
            self._rectifier = Rectifier(camera)
        return self._rectifier

    def _refuse(self, reason: str, what: str) -> None:
        """Raise, unless the same refusal came `PERSISTENT` times: then restart and go on."""
        self._refused_in_row = self._refused_in_row + 1 if reason == self._refused else 1
        self._refused = reason
        if self._refused_in_row <= PERSISTENT:
            raise FrameError(
                reason, what, "frames of one run share a size and their stamps increase"
            )
        self.reset()
        self.restarted = True


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
