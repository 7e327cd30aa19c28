"""Frames of the node's image topic: `wire.frames` decides picture, camera and time, here images
wait for the CameraInfo that is on its way.

No rclpy here; everything a camera driver gets wrong ends as a FrameError with the reason to count,
or as one remark.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from flow3r_ros.config import NodeSettings
from flow3r_ros.errors import FrameError
from flow3r_ros.types import Frame, UInt8
from flow3r_ros.wire.camera_choice import CameraChoice
from flow3r_ros.wire.frames import FrameMaker, Say

WAIT_FOR_INFO_S = 2.0
"""how long images wait for their CameraInfo when somebody publishes it"""
WAIT_FOR_PUBLISHER_S = 0.5
"""how long they wait for somebody to publish it"""


class Framing:
    """Turns image messages into frames for the worker; called from several threads.

    Args:
        settings: node settings (`camera_frame`).
        topic: absolute name of the image topic.
        info_announced: whether anybody publishes CameraInfo.
        say: receives remarks, each under a key.
        inform: receives what was decided and is as it should be, each under a key.
    """

    def __init__(
        self,
        settings: NodeSettings,
        topic: str,
        info_announced: Callable[[], bool],
        say: Say,
        inform: Say,
    ) -> None:
        self._info_announced = info_announced
        self._say, self._inform = say, inform
        self._maker = FrameMaker(say, topic, settings.camera_frame, _decode_with_cv_bridge)
        self._settled: tuple[int, int] | None = None
        self._without_info_since: float | None = None
        self._lock = threading.Lock()

    @property
    def camera(self) -> CameraChoice:
        """What was decided about the camera of the last image, and why."""
        return self._maker.choice

    @property
    def ignored_infos(self) -> int:
        """CameraInfos that no camera can have sent."""
        return self._maker.ignored_infos

    def take_info(self, info: Any) -> None:
        """Remember the camera of a CameraInfo; a bad one is counted, said once, and ignored."""
        with self._lock:
            self._maker.take_info(info)

    def optical_frame_of(self, message: Any) -> str:
        """Name of the optical frame of an image."""
        return self._maker.optical_frame_of(message)

    def take_mask(self, message: Any) -> None:
        """Ignore the pixels of a mask from the next image on. Raises FrameError."""
        with self._lock:
            self._maker.take_mask(message)

    def frame(self, message: Any, frame_id: int, received_at: float, received_ns: int) -> Frame:
        """The frame of an image message received at `received_at` of `time.monotonic()`,
        `received_ns` of the node's clock. Raises FrameError when it is unusable or still waits for
        its CameraInfo."""
        with self._lock:
            rgb = self._maker.decode(message)
            size = (rgb.shape[1], rgb.shape[0])
            choice = self._maker.choose(size, str(message.header.frame_id).lstrip("/"))
            if choice.camera is None:
                self._wait_for_info(size, received_at)
            else:
                self._without_info_since = self._settled = None
            tell = self._say if choice.camera is None else self._inform
            tell(f"camera {choice.why}", choice.in_words())
            return self._maker.assemble(message, rgb, frame_id, received_ns)

    def forget_time(self) -> None:
        """The odometry was reset: the next stamp is taken as it comes."""
        with self._lock:
            self._maker.forget_time()

    def _wait_for_info(self, size: tuple[int, int], now: float) -> None:
        """Raise FrameError until waiting for a CameraInfo of this size has been in vain."""
        if self._settled == size:
            return
        if self._without_info_since is None:
            self._without_info_since = now
        patience = WAIT_FOR_INFO_S if self._info_announced() else WAIT_FOR_PUBLISHER_S
        if now - self._without_info_since < patience:
            raise FrameError(
                "waiting_for_camera_info", "images wait for a CameraInfo of their size"
            )
        self._settled, self._without_info_since = size, None


def _decode_with_cv_bridge(message: Any, error: FrameError) -> UInt8:
    """Exotic encodings through cv_bridge where the installation has it, else the original error."""
    try:
        from cv_bridge import CvBridge
    except ImportError:
        raise error from None
    try:
        rgb: UInt8 = CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8")
    except Exception as failure:
        raise FrameError(
            "unknown_encoding", f"image encoding '{message.encoding}': {failure}"
        ) from failure
    return rgb
