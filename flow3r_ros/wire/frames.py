"""The one way from an image message to a Frame, for the node, for bags and for labelled bags.

Decoding (`encodings`, `compressed`), the camera that belongs to the image (`camera_choice`), its
time (`stamps`) and the name of its frame are decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from flow3r_ros.errors import FrameError
from flow3r_ros.types import Bool, Frame, UInt8
from flow3r_ros.wire.camera_choice import CameraChoice, choose_camera, unknown
from flow3r_ros.wire.compressed import decode_compressed
from flow3r_ros.wire.encodings import decode_image
from flow3r_ros.wire.stamps import Stamps
from flow3r_ros.wire.tones import Tones
from flow3r_ros.wire.transforms import stamp_ns

MASKS = ("mono8", "8uc1")
"""encodings of masks"""
FRAME = "camera_optical_frame"
"""frame id of images that carry none"""
Say = Callable[[str, str], None]
"""say(key, text): receives remarks; the receiver says each key once"""
Exotic = Callable[[Any, FrameError], UInt8]
"""decodes an image whose encoding is unknown here, or raises the error it is given"""


class FrameMaker:
    """Makes the frames of one image topic, in the order they were received.

    `choice` is what was decided about the camera of the last image, `optical_frame` the name of its
    frame; `ignored_infos` counts CameraInfos that no camera can have sent. Not thread-safe.

    Args:
        say: told what was assumed, dropped or decided, each under a key.
        topic: absolute name of the image topic; empty where unknown.
        source_frame: name of the optical frame that replaces the header's; empty keeps that.
        exotic: asked to decode encodings that are unknown here.
    """

    def __init__(
        self, say: Say, topic: str = "", source_frame: str = "", exotic: Exotic | None = None
    ) -> None:
        self._say = say
        self._topic = topic
        self._source_frame = source_frame
        self._exotic = exotic
        self._tones = Tones(say)
        self._stamps = Stamps(say)
        self._info: Any | None = None
        self._info_topic = ""
        self._decided: tuple[tuple[int, int], str] | None = None
        self._ignored: Bool | None = None
        self.optical_frame = source_frame
        self.choice: CameraChoice = unknown("no image yet")
        self.ignored_infos = 0

    def take_info(self, info: Any, topic: str = "") -> None:
        """Remember a CameraInfo; one that no camera can have sent is counted, said and ignored."""
        alone = choose_camera(info, None if info.width and info.height else (640, 480))
        if alone.camera is None:
            uncalibrated = "uncalibrated" in alone.why
            self.ignored_infos += not uncalibrated
            key = "uncalibrated" if uncalibrated else "bad_camera_info"
            self._say(key, alone.why if uncalibrated else f"CameraInfo ignored: {alone.why}")
            if self._info is not None or not uncalibrated:
                return
        self._info, self._info_topic, self._decided = info, topic, None

    def take_mask(self, message: Any) -> None:
        """Ignore, from the next frame on, what is not zero in a `sensor_msgs/Image` of 8
        bits and of any size; it stays until the next one. Raises FrameError."""
        if str(message.encoding).strip().lower() not in MASKS:
            raise FrameError(
                "mask", f"encoding '{message.encoding}' is no mask", f"send {' or '.join(MASKS)}"
            )
        self._ignored = np.asarray(decode_image(message, self._tones)[..., 0] > 0)

    def decode(self, message: Any) -> UInt8:
        """RGB uint8 `[H, W, 3]` of an Image or CompressedImage. Raises FrameError."""
        if hasattr(message, "format"):
            return decode_compressed(message, self._tones)
        try:
            return decode_image(message, self._tones)
        except FrameError as error:
            if self._exotic is None or error.reason != "unknown_encoding":
                raise
            return self._exotic(message, error)

    def choose(self, size: tuple[int, int], image_frame: str) -> CameraChoice:
        """The camera of images of `size` (width, height); said when a CameraInfo cannot be used."""
        if self._decided != (size, image_frame):
            self._decided = size, image_frame
            choice = choose_camera(self._info, size, self._topic, image_frame, self._info_topic)
            if choice != self.choice:
                self.choice = choice
            if self._info is not None and self.choice.camera is None:
                self._say(f"camera {self.choice.why}", self.choice.in_words())
        return self.choice

    def frame(self, message: Any, frame_id: int, received_ns: int) -> Frame:
        """The frame of an image message.

        Args:
            message: `sensor_msgs/Image` or `CompressedImage`.
            frame_id: id of the frame.
            received_ns: when it was received, nanoseconds; 0 where unknown.

        Raises FrameError when it is unusable.
        """
        rgb = self.decode(message)
        return self.assemble(message, rgb, frame_id, received_ns)

    def assemble(self, message: Any, rgb: UInt8, frame_id: int, received_ns: int) -> Frame:
        """The frame of a message whose picture was decoded already."""
        image_frame = str(message.header.frame_id).lstrip("/")
        choice = self.choose((rgb.shape[1], rgb.shape[0]), image_frame)
        stamp = self._stamps.stamp(stamp_ns(message.header.stamp), received_ns, rgb)
        self.optical_frame = self.optical_frame_of(message)
        return Frame(frame_id, stamp, rgb, choice.camera, self.optical_frame, self._ignored)

    def optical_frame_of(self, message: Any) -> str:
        """Name of the optical frame of an image."""
        return self._source_frame or str(message.header.frame_id).lstrip("/") or FRAME

    def forget_time(self) -> None:
        """The odometry was reset: the next stamp is taken as it comes."""
        self._stamps.forget()
