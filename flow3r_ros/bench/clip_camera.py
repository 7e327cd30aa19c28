"""A camera for the live suites: a clip played to and fro over DDS, at a rate that may change.

    python -m flow3r_ros.bench.clip_camera CLIP FRAMES NAMESPACE

Each line on its input is a rate in images a second, 0 to pause; it ends with its input. Pictures
are held in memory, best effort and stamped with the time of their publication.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy

from flow3r_ros.bench.memory import there_and_back
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.geometry.camera import scaled
from flow3r_ros.ros.messages import class_of, make
from flow3r_ros.types import Camera, UInt8
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.images import rgb_image
from flow3r_ros.wire.transforms import header_of

WIDTH, HEIGHT = 640, 480


def pictures_of(clip: Path, most: int) -> tuple[list[UInt8], Camera | None]:
    """The first `most` pictures of a clip, RGB `[480, 640, 3]`, and their camera."""
    with open_source(clip, max_frames=most) as source:
        frames = list(source)
    camera = frames[0].camera
    sized = [
        np.asarray(cv2.resize(frame.rgb, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)
        for frame in frames
    ]
    return sized, None if camera is None else scaled(camera, WIDTH, HEIGHT)


def play(clip: Path, most: int, namespace: str) -> None:
    """Publish at the rates that the input names, until it ends."""
    pictures, camera = pictures_of(clip, most)
    rclpy.init()
    node = rclpy.create_node("camera", namespace=namespace)
    images = node.create_publisher(
        class_of("sensor_msgs/msg/Image"),
        "image",
        QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT),
    )
    infos = node.create_publisher(class_of("sensor_msgs/msg/CameraInfo"), "camera_info", 5)
    asked = _Asked()
    index = 0
    due = time.monotonic()
    while (rate := asked.rate()) is not None:
        _publish(images, infos, pictures[there_and_back(index, len(pictures))], camera)
        index += 1
        now = time.monotonic()
        due = max(
            due + 1.0 / rate, now - 1.0 / rate
        )  # one that is late does not catch up in a rush
        time.sleep(max(0.0, due - now))
    rclpy.try_shutdown()


class _Asked:
    """The rate that the input asked for last; a thread of its own reads it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rate: float | None = 0.0
        threading.Thread(target=self._listen, daemon=True).start()

    def rate(self) -> float | None:
        """Images a second, None at the end; waits while it is 0."""
        with self._changed:
            self._changed.wait_for(lambda: self._rate != 0.0)
            return self._rate

    def _listen(self) -> None:
        for line in sys.stdin:
            self._set(float(line))
        self._set(None)

    def _set(self, rate: float | None) -> None:
        with self._changed:
            self._rate = rate
            self._changed.notify()


def _publish(images: Any, infos: Any, rgb: UInt8, camera: Camera | None) -> None:
    header = header_of(make, time.time_ns(), "camera")
    if camera is not None:
        infos.publish(info_from_camera(make, header, camera))
    images.publish(rgb_image(make, header, rgb))


if __name__ == "__main__":
    play(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
