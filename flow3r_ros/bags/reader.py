"""A bag as frames: picks the image topic, decodes raw and compressed images, and brings CameraInfo,
tf_static and odometry along.

What a message means (picture, camera, stamp) is decided in `wire.frames`, as in the node. Unusable
images are counted under a reason and skipped. Memory does not grow with the bag.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flow3r_ros.bags.storage import Storage
from flow3r_ros.errors import BagError, FrameError
from flow3r_ros.types import Float64, Frame, Inertial
from flow3r_ros.wire.camera_choice import CameraChoice, base_topic, is_neighbour
from flow3r_ros.wire.frames import FrameMaker
from flow3r_ros.wire.imu import ImuReader
from flow3r_ros.wire.transforms import StaticTransforms, matrix_of_pose, stamp_ns

_log = logging.getLogger(__name__)
_RAW, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


@dataclass(frozen=True)
class OdometrySample:
    """One pose of another odometry: `T_odom_child` `[4, 4]` metres, its stamp in int
    nanoseconds."""

    stamp_ns: int
    T_odom_child: Float64


Event = Frame | OdometrySample | Inertial | FrameError
"""what a bag yields; a FrameError stands in the place of an unusable image"""


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
        self._said: set[str] = set()
        self._choices: list[tuple[int, CameraChoice]] = []
        self._wanted_topic = topic
        self._storage = Storage(path)

    def __enter__(self) -> BagReader:
        self._storage.__enter__()
        try:
            self.image_topic = self._pick_image_topic()
            self.total: int | None = self._storage.topics[self.image_topic][1]
            self._info_topic = self._pick_info_topic()
            self._maker = FrameMaker(self._note, self.image_topic)
            self._take_first_info()
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
    def camera(self) -> CameraChoice:
        """What was decided about the camera of the last image, and why."""
        return self._maker.choice

    def camera_of(self, frame_id: int) -> CameraChoice:
        """The same for one frame that was given out."""
        return next(choice for first, choice in reversed(self._choices) if first <= frame_id)

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
        imu: str | None = None,
    ) -> Iterator[Event]:
        """Frames, and what else is asked for, in recorded order; a FrameError stands in the place
        of an unusable image. Masks (`/mask`, or `mask` beside the image topic) go into the frames.

        Args:
            start: seconds of the bag to skip.
            duration: seconds to read; None reads to the end.
            every: keep every k-th image.
            odometry: yield samples of the nav_msgs/Odometry topic too (`/odom` when there are
                several).
            imu: yield readings of the sensor_msgs/Imu topic too (`/imu` when there are several),
                for an odometry that is level in this frame (empty: the camera's); None: do not.
        """
        begin = self._storage.start_ns + round(start * 1e9) if start > 0 else None
        end = (
            None if duration is None else (begin or self._storage.start_ns) + round(duration * 1e9)
        )
        odometry_topic = self._pick_odometry_topic() if odometry else None
        imu_topic = None if imu is None else self._pick_imu_topic()
        unit = ImuReader(self.static, imu or "", self._note)
        mask_topic = self._pick_mask_topic()
        wanted = (self.image_topic, self._info_topic, odometry_topic, imu_topic, mask_topic)
        topics = {topic for topic in wanted if topic}
        seen = frame_id = 0
        for topic, received, data in self._storage.messages(topics, begin, end):
            try:
                if topic == self.image_topic:
                    seen += 1
                    if (seen - 1) % every == 0:
                        message = self._image(data)
                        yield from unit.readings(None, self._maker.optical_frame_of(message))
                        yield self._frame(frame_id, received, message)
                        frame_id += 1
                elif topic == odometry_topic:
                    yield self._odometry(self._storage.deserialize(topic, data), received)
                elif topic == imu_topic:
                    message = self._storage.deserialize(topic, data)
                    yield from unit.readings(message, self._maker.optical_frame)
                elif topic == mask_topic:
                    self._take_mask(self._storage.deserialize(topic, data))
                else:
                    self._maker.take_info(self._storage.deserialize(topic, data), topic)
            except FrameError as error:
                self.drops[error.reason] += 1
                self._note(error.reason, f"{self.image_topic}: {error}")
                yield error
            except BagError as error:
                self._note(topic, error.what)

    def _image(self, data: bytes) -> Any:
        try:
            return self._storage.deserialize(self.image_topic, data)
        except BagError as error:
            raise FrameError("corrupt_message", error.what) from error

    def _frame(self, frame_id: int, received: int, message: Any) -> Frame:
        frame = self._maker.frame(message, frame_id, received)
        if not self._choices or self._choices[-1][1] is not self._maker.choice:
            self._choices.append((frame_id, self._maker.choice))
        return frame

    def _odometry(self, message: Any, received: int) -> OdometrySample:
        return OdometrySample(
            stamp_ns(message.header.stamp) or received,
            matrix_of_pose(message.pose.pose),
        )

    def _take_mask(self, message: Any) -> None:
        try:
            self._maker.take_mask(message)
        except FrameError as error:
            self._note("mask", f"mask: {error}")

    def _note(self, once: str, text: str) -> None:
        if once not in self._said:
            self._said.add(once)
            self._notes.append(text)
            _log.warning("%s: %s", self.path, text)

    def _pick_image_topic(self) -> str:
        images = {
            topic: count
            for topic, (kind, count) in self._storage.topics.items()
            if kind in (_RAW, _COMPRESSED) and not topic.endswith(("/compressedDepth", "/mask"))
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
        """CameraInfo beside the image topic, else the nearest that can belong to it, else the only
        one of the bag (which is then said to be of another camera)."""
        infos = sorted(
            topic
            for topic, (kind, _) in self._storage.topics.items()
            if kind == "sensor_msgs/msg/CameraInfo"
        )
        sibling = base_topic(self.image_topic).rsplit("/", 1)[0] + "/camera_info"
        if sibling in infos:
            return sibling
        near = [topic for topic in infos if is_neighbour(topic, self.image_topic)]
        if near:
            return max(near, key=lambda topic: topic.count("/"))
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
            self._note("odometry", f"several odometry topics; {topic} is used")
        return topic

    def _pick_imu_topic(self) -> str | None:
        found = sorted(
            topic
            for topic, (kind, _) in self._storage.topics.items()
            if kind == "sensor_msgs/msg/Imu"
        )
        if len(found) > 1 and "/imu" not in found:
            self._note(
                "imu", f"several Imu topics, none of them /imu: {', '.join(found)}: not used"
            )
            return None
        return "/imu" if "/imu" in found else next(iter(found), None)

    def _pick_mask_topic(self) -> str | None:
        beside = f"{base_topic(self.image_topic).rsplit('/', 1)[0]}/mask"
        return next((topic for topic in (beside, "/mask") if topic in self._storage.topics), None)

    def _take_first_info(self) -> None:
        """The first CameraInfo is known before the first image arrives."""
        for topic, _, data in self._storage.messages(
            {self._info_topic} if self._info_topic else ()
        ):
            try:
                self._maker.take_info(self._storage.deserialize(topic, data), topic)
            except BagError as error:
                self._note(topic, error.what)
            return
