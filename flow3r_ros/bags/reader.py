"""A bag as frames: picks the image topic, decodes raw and compressed images, and brings CameraInfo,
tf_static and odometry along.

Stamps are those of the image headers in integer nanoseconds; where a driver left them zero, the
receive time stands in and that is said once. Unusable images are counted under a reason and
skipped. Memory does not grow with the bag.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flow3r_ros.bags.storage import Storage
from flow3r_ros.errors import BagError, CameraError, FrameError
from flow3r_ros.types import Camera, Float64, Frame
from flow3r_ros.wire.camera_info import camera_from_info
from flow3r_ros.wire.images import decode_compressed, decode_image
from flow3r_ros.wire.transforms import StaticTransforms, matrix_of_pose, stamp_ns

_log = logging.getLogger(__name__)
_RAW, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


@dataclass(frozen=True)
class OdometrySample:
    """One pose of another odometry: `T_odom_child` `[4, 4]` metres, its stamp in int
    nanoseconds."""

    stamp_ns: int
    T_odom_child: Float64


class BagReader:
    """Frames of one image topic of a bag; a context manager.

    Args:
        path: rosbag2 folder, `.mcap`, `.db3`, or ROS 1 `.bag`.
        topic: image topic; None takes the only one.

    Attributes: `image_topic`; `total` images on it (None when unknown); `static` the transforms of
        /tf_static; `drops` counts unusable
    images by reason; `notes` says once, in words, what was lost or assumed. Raises BagError when
    the bag, or an image topic in it, cannot be read.
    """

    def __init__(self, path: Path, topic: str | None = None) -> None:
        self.path = path
        self.drops: Counter[str] = Counter()
        self.static = StaticTransforms()
        self._notes: list[str] = []
        self._wanted_topic = topic
        self._storage = Storage(path)
        self._camera: Camera | None = None

    def __enter__(self) -> BagReader:
        self._storage.__enter__()
        try:
            self.image_topic = self._pick_image_topic()
            self.total: int | None = self._storage.topics[self.image_topic][1]
            self._info_topic = self._pick_info_topic()
            self._camera = self._first_camera()
            for _, _, data in self._storage.messages({"/tf_static"} & self._storage.topics.keys()):
                self.static.add(self._storage.deserialize("/tf_static", data))
        except BaseException:
            self._storage.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._storage.__exit__()

    @property
    def notes(self) -> list[str]:
        """What was lost or assumed, in words."""
        return [*self._storage.lost, *self._notes]

    @property
    def topics(self) -> dict[str, tuple[str, int]]:
        """Topic -> (type, number of messages) of the whole bag."""
        return self._storage.topics

    def frames(
        self, start: float = 0.0, duration: float | None = None, every: int = 1
    ) -> Iterator[Frame]:
        """Usable images as frames, in recorded order; see `events`."""
        return (event for event in self.events(start, duration, every) if isinstance(event, Frame))

    def events(
        self,
        start: float = 0.0,
        duration: float | None = None,
        every: int = 1,
        odometry: bool = False,
    ) -> Iterator[Frame | OdometrySample | FrameError]:
        """Frames, and odometry samples when asked for, in recorded order; a FrameError stands in
        the place of an unusable image.

        Args:
            start: seconds of the bag to skip.
            duration: seconds to read; None reads to the end.
            every: keep every k-th image.
            odometry: yield samples of the nav_msgs/Odometry topic too (`/odom` when there are
                several).
        """
        begin = self._storage.start_ns + round(start * 1e9) if start > 0 else None
        end = (
            None if duration is None else (begin or self._storage.start_ns) + round(duration * 1e9)
        )
        odometry_topic = self._pick_odometry_topic() if odometry else None
        topics = {topic for topic in (self.image_topic, self._info_topic, odometry_topic) if topic}
        seen = frame_id = 0
        for topic, received, data in self._storage.messages(topics, begin, end):
            try:
                if topic == self.image_topic:
                    seen += 1
                    if (seen - 1) % every == 0:
                        yield self._frame(frame_id, received, data)
                        frame_id += 1
                elif topic == odometry_topic:
                    yield self._odometry(self._storage.deserialize(topic, data), received)
                else:
                    self._camera = camera_from_info(self._storage.deserialize(topic, data))
            except FrameError as error:
                self.drops[error.reason] += 1
                self._note(f"{self.image_topic}: {error.what}", once=error.reason)
                yield error
            except (BagError, CameraError) as error:
                self._note(error.what, once=topic)

    def _frame(self, frame_id: int, received: int, data: bytes) -> Frame:
        try:
            message = self._storage.deserialize(self.image_topic, data)
        except BagError as error:
            raise FrameError("corrupt_message", error.what) from error
        rgb = (
            decode_image(message)
            if self._storage.topics[self.image_topic][0] == _RAW
            else decode_compressed(message)
        )
        camera = self._camera
        if camera is not None and (camera.width, camera.height) != (rgb.shape[1], rgb.shape[0]):
            self._note(
                f"CameraInfo is for {camera.width}x{camera.height}, images are "
                f"{rgb.shape[1]}x{rgb.shape[0]}; not used",
                "camera",
            )
            camera = None
        frame = message.header.frame_id or "camera_optical_frame"
        return Frame(frame_id, self._stamp(message, received), rgb, camera, frame)

    def _odometry(self, message: Any, received: int) -> OdometrySample:
        return OdometrySample(
            self._stamp(message, received),
            matrix_of_pose(message.pose.pose),
        )

    def _stamp(self, message: Any, received: int) -> int:
        ns = stamp_ns(message.header.stamp)
        if ns == 0 and received != 0:
            self._note("header stamps are zero; receive times are used instead", once="zero stamp")
        return ns or received

    def _note(self, text: str, once: str) -> None:
        if not hasattr(self, "_said"):
            self._said: set[str] = set()
        if once not in self._said:
            self._said.add(once)
            self._notes.append(text)
            _log.warning("%s: %s", self.path, text)

    def _pick_image_topic(self) -> str:
        images = {
            topic: count
            for topic, (kind, count) in self._storage.topics.items()
            if kind in (_RAW, _COMPRESSED)
        }
        listed = ", ".join(f"{topic} ({count})" for topic, count in sorted(images.items()))
        if self._wanted_topic is not None:
            if self._wanted_topic not in images:
                raise BagError(
                    f"{self.path}: no images on {self._wanted_topic}",
                    f"image topics: {listed or 'none'}",
                )
            return self._wanted_topic
        filled = [topic for topic, count in images.items() if count]
        if not filled:
            lost = f" ({'; '.join(self._storage.lost)})" if self._storage.lost else ""
            raise BagError(f"{self.path}: holds no images{lost}", "record an image topic")
        if len(filled) > 1:
            raise BagError(
                f"{self.path}: several image topics: {listed}", "choose one with --topic"
            )
        return filled[0]

    def _pick_info_topic(self) -> str | None:
        """CameraInfo beside the image topic, or the only one of the bag."""
        infos = [
            topic
            for topic, (kind, _) in self._storage.topics.items()
            if kind == "sensor_msgs/msg/CameraInfo"
        ]
        raw = self.image_topic.removesuffix("/compressed")
        sibling = raw.rsplit("/", 1)[0] + "/camera_info"
        if sibling in infos:
            return sibling
        return infos[0] if len(infos) == 1 else None

    def _pick_odometry_topic(self) -> str | None:
        found = sorted(
            topic
            for topic, (kind, _) in self._storage.topics.items()
            if kind == "nav_msgs/msg/Odometry"
        )
        if not found:
            raise BagError(
                f"{self.path}: no nav_msgs/Odometry for the scale",
                "set scale.source to something else",
            )
        topic = "/odom" if "/odom" in found else found[0]
        if len(found) > 1:
            self._note(f"several odometry topics; {topic} is used", once="odometry")
        return topic

    def _first_camera(self) -> Camera | None:
        """Camera of the first CameraInfo, known before the first image arrives."""
        for topic, _, data in self._storage.messages(
            {self._info_topic} if self._info_topic else ()
        ):
            try:
                return camera_from_info(self._storage.deserialize(topic, data))
            except (BagError, CameraError) as error:
                self._note(error.what, once=topic)
                return None
        return None
