"""From image and CameraInfo messages to frames: decoding, the camera that belongs to an image,
stamps, and when to start anew.

No rclpy here; everything a camera driver gets wrong ends as a FrameError with the reason to count,
or as one remark.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flow3r_ros.config import NodeSettings
from flow3r_ros.errors import CameraError, FrameError
from flow3r_ros.ros.worker import Arrival
from flow3r_ros.types import Camera, Frame, UInt8
from flow3r_ros.wire.camera_info import camera_from_info
from flow3r_ros.wire.images import decode_compressed, decode_image

JUMP_BACK_NS = 500_000_000
"""a stamp this far before the last one means that the source started over; less is disorder and
counted as a dropped frame"""
WAIT_FOR_INFO_S = 2.0
"""how long images wait for their CameraInfo when somebody publishes it"""
WAIT_FOR_PUBLISHER_S = 0.5
"""how long they wait for somebody to publish it"""

Say = Callable[[str, str], None]
"""say(key, text): logged once per key"""


class Framing:
    """Turns image messages into arrivals for the worker.

    Args:
        settings: node settings (`image_transport`, `camera_frame`).
        info_announced: whether anybody publishes CameraInfo.
        say: receives remarks, each under a key.
        now_ns: clock for images without a stamp.
    """

    def __init__(
        self,
        settings: NodeSettings,
        info_announced: Callable[[], bool],
        say: Say,
        now_ns: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._info_announced = info_announced
        self._say = say
        self._now_ns = now_ns
        self._info: Camera | None = None
        self._used: tuple[Camera | None, tuple[int, int]] | None = None
        self._without_info_since: float | None = None
        self._last_stamp: int | None = None
        self._pending_restart = ""
        self.ignored_infos = 0

    def take_info(self, info: Any) -> None:
        """Remember the camera of a CameraInfo; a bad one is counted, said once, and ignored."""
        try:
            camera = camera_from_info(info)
        except CameraError as error:
            self.ignored_infos += 1
            self._say("bad_camera_info", f"CameraInfo ignored: {error}")
            return
        if camera is None:
            self._say("uncalibrated", "CameraInfo.k is all zero: the camera is uncalibrated")
            return
        self._info = camera

    def frame(self, message: Any, frame_id: int, received_at: float) -> Arrival:
        """The frame of an image message. Raises FrameError when it is unusable or still waits for
        its CameraInfo."""
        rgb = self._decode(message)
        size = (rgb.shape[1], rgb.shape[0])
        camera = self._camera(size, received_at)
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        if (
            stamp_ns == 0 and self._last_stamp is not None
        ):  # a recording may well begin at zero, but only once
            self._say("no_stamp", "images carry no stamp; the time of reception takes its place")
            stamp_ns = self._now_ns()
        restart = self._reason_to_restart(camera, size, stamp_ns)
        self._used, self._last_stamp = (camera, size), stamp_ns
        source_frame = (
            self._settings.camera_frame or message.header.frame_id or "camera_optical_frame"
        )
        return Arrival(Frame(frame_id, stamp_ns, rgb, camera, source_frame), restart)

    def forget_time(self) -> None:
        """The odometry was reset: the next stamp is taken as it comes."""
        self._last_stamp = None

    def restart_before_next(self, reason: str) -> None:
        """The odometry must start anew before the next frame."""
        self._pending_restart = reason

    def _decode(self, message: Any) -> UInt8:
        if self._settings.image_transport == "compressed":
            return decode_compressed(message)
        try:
            return decode_image(message)
        except FrameError as error:
            if error.reason != "unknown_encoding":
                raise
            return _decode_with_cv_bridge(message, error)

    def _camera(self, size: tuple[int, int], now: float) -> Camera | None:
        """The camera for images of this size; None (to be estimated) once waiting for it has been
        in vain."""
        info = self._info
        if info is not None and (info.width, info.height) == size:
            self._without_info_since = None
            return info
        if self._used is not None and self._used == (None, size):
            return None
        if self._without_info_since is None:
            self._without_info_since = now
        patience = WAIT_FOR_INFO_S if self._info_announced() else WAIT_FOR_PUBLISHER_S
        if now - self._without_info_since < patience:
            raise FrameError(
                "waiting_for_camera_info", "images wait for a CameraInfo of their size"
            )
        if info is None:
            self._say(
                "no_camera_info",
                "no CameraInfo arrives: intrinsics are estimated from the prediction; "
                "calibrate for better results",
            )
        else:
            self._say(
                f"camera_info_size_{size}",
                f"CameraInfo is of {info.width}x{info.height} images, these have "
                f"{size[0]}x{size[1]}: intrinsics are estimated instead",
            )
        self._without_info_since = None
        return None

    def _reason_to_restart(
        self, camera: Camera | None, size: tuple[int, int], stamp_ns: int
    ) -> str:
        pending, self._pending_restart = self._pending_restart, ""
        if pending:
            return pending
        if self._last_stamp is not None and stamp_ns < self._last_stamp - JUMP_BACK_NS:
            return (
                f"time jumped back by {(self._last_stamp - stamp_ns) / 1e9:.2f} s (a bag "
                "started over?)"
            )
        if self._used is None:
            return ""
        if size != self._used[1]:
            return (
                f"image size changed from {self._used[1][0]}x{self._used[1][1]} to "
                f"{size[0]}x{size[1]}"
            )
        return "intrinsics changed" if camera != self._used[0] else ""


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
