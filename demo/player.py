"""Plays a video, image folder or bag as a camera: images and CameraInfo over DDS, in real time,
with the stamps of the source.

python -m demo.player CLIP [--seconds S]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import rclpy
from rclpy.duration import Duration
from rclpy.qos import QoSProfile, ReliabilityPolicy

from flow3r_ros.datasets.sources import open_source
from flow3r_ros.ros.dds_profile import use_large_messages
from flow3r_ros.ros.messages import class_of, make
from flow3r_ros.types import Frame
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.images import rgb_image
from flow3r_ros.wire.transforms import header_of

DELIVERY = Duration(seconds=5)
"""longest wait for the delivery of the last frames"""


def play(clip: Path, seconds: float) -> int:
    """Publish the clip's frames at its own rate for at most `seconds`; returns how many."""
    node = rclpy.create_node("camera")
    qos = QoSProfile(depth=5)
    images = node.create_publisher(class_of("sensor_msgs/msg/Image"), "image", qos)
    infos = node.create_publisher(class_of("sensor_msgs/msg/CameraInfo"), "camera_info", qos)
    while not (_served(node, "image") and _served(node, "camera_info")):
        rclpy.spin_once(node, timeout_sec=0.05)
    count, start, first_ns = 0, time.monotonic(), 0
    with open_source(clip) as source:
        for frame in source:
            if frame.stamp_ns == 0:  # "no stamp" in a ROS header: clips begin there, cameras not
                continue
            if not count:
                first_ns, start = frame.stamp_ns, time.monotonic()
            due = (frame.stamp_ns - first_ns) * 1e-9
            if due > seconds:
                break
            time.sleep(max(0.0, start + due - time.monotonic()))
            _publish(images, infos, frame)
            count += 1
    images.wait_for_all_acked(DELIVERY)
    node.destroy_node()
    return count


def _served(node: rclpy.node.Node, topic: str) -> bool:
    """Whether somebody subscribes reliably, as we publish: the node starts as best effort and
    follows its publisher."""
    infos = node.get_subscriptions_info_by_topic(node.resolve_topic_name(topic))
    return any(info.qos_profile.reliability is ReliabilityPolicy.RELIABLE for info in infos)


def _publish(
    images: rclpy.publisher.Publisher, infos: rclpy.publisher.Publisher, frame: Frame
) -> None:
    header = header_of(make, frame.stamp_ns, frame.source_frame)
    if frame.camera is not None:
        infos.publish(info_from_camera(make, header, frame.camera))
    images.publish(rgb_image(make, header, frame.rgb))


def main() -> None:
    """Command line of the player."""
    parser = argparse.ArgumentParser(description="Play a clip as a camera over DDS.")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    use_large_messages()
    rclpy.init()
    try:
        print(play(options.clip, options.seconds))
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
