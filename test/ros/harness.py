"""The client in the test process, which plays camera and robot over real DDS."""

from __future__ import annotations

import atexit
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest.mock import patch

import pytest
import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from flow3r_ros.bench.memory import there_and_back
from flow3r_ros.ros.dds_profile import NAME, VARIABLES
from flow3r_ros.ros.messages import class_of, make
from flow3r_ros.types import Camera, UInt8
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.outputs import TOPICS
from flow3r_ros.wire.transforms import header_of
from test.ros.node_process import PATIENCE, ROOT
from test.ros.scene import picture, wall_camera

RELIABLE = QoSProfile(depth=20)
BEST_EFFORT = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
EPOCH_NS = 1_700_000_000_123_456_789
PERIOD_NS = 33_333_333
QUICK_ACKS = """
<data_writer profile_name="quick_acks" is_default_profile="true">
  <times><heartbeatPeriod><nanosec>20000000</nanosec></heartbeatPeriod></times>
</data_writer>
</profiles>"""
"""asks for acknowledgements every 20 ms; Fast DDS does so every 3 s, for which a test would wait"""


def _client_profile() -> dict[str, str]:
    """The environment in which the client's first participant is made; the node has its own."""
    shipped = (ROOT / "config" / NAME).read_text(encoding="utf-8")
    path = Path(tempfile.gettempdir()) / f"flow3r_test_client_{os.getpid()}.xml"
    path.write_text(shipped.replace("</profiles>", QUICK_ACKS), encoding="utf-8")
    atexit.register(path.unlink, missing_ok=True)
    return dict.fromkeys(VARIABLES, str(path))


class Client:
    """Camera, robot and listener in the test process; spins in the background."""

    def __init__(self, domain: int, namespace: str = "", node: str = "flow3r") -> None:
        self.context = Context()
        with patch.dict(os.environ, _client_profile()):  # read once in a process
            rclpy.init(context=self.context, domain_id=domain)
            self.node = rclpy.create_node("tester", context=self.context, namespace=namespace)
        self.target = f"{namespace}/{node}"
        self.received: dict[str, list[Any]] = defaultdict(list)
        self._publishers: dict[str, Any] = {}
        self._changed = threading.Condition()
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        self._stamp = EPOCH_NS
        self.pictures = self.turns_after = 0
        self.period_ns = PERIOD_NS

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown()
        self._thread.join(2.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    # --- listening

    def listen(
        self, *topics: str, qos: QoSProfile = RELIABLE, types: dict[str, str] | None = None
    ) -> None:
        """Collect messages of topics written as in the contracts (`~/odometry`)."""
        for topic in topics:
            type_name = (
                (types or {}).get(topic)
                or TOPICS.get(topic)
                or "diagnostic_msgs/msg/DiagnosticArray"
            )
            self.node.create_subscription(
                class_of(type_name),
                self.name(topic),
                lambda message, topic=topic: self._collect(topic, message),
                qos,
            )

    def name(self, topic: str) -> str:
        return topic.replace("~", self.target)

    def _collect(self, topic: str, message: Any) -> None:
        with self._changed:
            self.received[topic].append(message)
            self._changed.notify_all()

    def wait(self, condition: Callable[[], object], timeout: float = 15.0, what: str = "") -> None:
        """Until the condition holds; fails the test otherwise. `timeout` is generous for an idle
        machine; a busy one gets `PATIENCE` times as long."""
        if not self.within(timeout * PATIENCE, condition):
            counts = {topic: len(messages) for topic, messages in self.received.items()}
            pytest.fail(f"never: {what or 'condition'}; received {counts}")

    def within(self, timeout: float, condition: Callable[[], object]) -> bool:
        """Whether the condition comes to hold in time; it is looked at whenever a message arrives,
        and every 50 ms."""
        end = time.monotonic() + timeout
        with self._changed:
            while not condition():
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.05))
        return True

    def count(self, topic: str) -> int:
        return len(self.received[topic])

    def wait_for(self, topic: str, count: int = 1, timeout: float = 15.0) -> list[Any]:
        """Until `count` messages of the topic came in all."""
        self.wait(lambda: self.count(topic) >= count, timeout, f"{count} messages of {topic}")
        return self.received[topic]

    # --- publishing

    def publisher(self, type_name: str, topic: str, qos: QoSProfile = RELIABLE) -> Any:
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(class_of(type_name), topic, qos)
        return self._publishers[topic]

    def next_stamp(self) -> int:
        self._stamp += self.period_ns
        return self._stamp

    def rewind(self) -> None:
        """Stamps start over, as in a bag loop."""
        self._stamp = EPOCH_NS

    def image(self, rgb: UInt8, encoding: str = "rgb8", data: Any = None, **changes: Any) -> Any:
        """A `sensor_msgs/Image` with the next stamp."""
        height, width = rgb.shape[:2]
        fields = dict(
            height=height, width=width, encoding=encoding, is_bigendian=0, step=rgb.strides[0]
        )
        fields |= dict(data=rgb.reshape(-1).view("uint8") if data is None else data) | changes
        return make(
            "sensor_msgs/msg/Image",
            header=header_of(make, self.next_stamp(), "cam_optical"),
            **fields,
        )

    def info(self, camera: Camera | None = None) -> Any:
        return info_from_camera(
            make, header_of(make, self._stamp, "cam_optical"), camera or wall_camera()
        )

    def connect_camera(self, qos: QoSProfile = RELIABLE, with_info: bool = True) -> None:
        """Wait until the node listens, then tell it the intrinsics."""
        self.publisher("sensor_msgs/msg/Image", "image", qos)
        self.wait(lambda: self.listened("image", qos), 20.0, "a subscription on image")
        if with_info:
            infos = self.publisher("sensor_msgs/msg/CameraInfo", "camera_info")
            self.wait(
                lambda: self.listened("camera_info", RELIABLE),
                20.0,
                "a subscription on camera_info",
            )
            infos.publish(self.info())
            assert infos.wait_for_all_acked(Duration(seconds=10 * PATIENCE)), (
                "the CameraInfo was not delivered"
            )

    def listened(self, topic: str, qos: QoSProfile) -> bool:
        """Whether somebody subscribes in the reliability that we offer."""
        infos = self.node.get_subscriptions_info_by_topic(self.node.resolve_topic_name(topic))
        return (
            any(info.qos_profile.reliability is qos.reliability for info in infos)
            and self._publishers[topic].get_subscription_count() > 0
        )

    def play(self, count: int, period: float = 0.0, lockstep: str = "") -> list[int]:
        """Publish the next pictures of the pan, one every `period` seconds; with `lockstep`, wait
        for that topic after each. The pan goes to and fro where `turns_after` says so.

        Returns the stamps.
        """
        stamps = []
        start = time.monotonic()
        for number in range(1, count + 1):
            before, index = self.count(lockstep), self.pictures
            shown = there_and_back(index, self.turns_after + 1) if self.turns_after else index
            message = self.image(picture(shown))
            self.pictures += 1
            self.publisher("sensor_msgs/msg/Image", "image").publish(message)
            stamps.append(self._stamp)
            if lockstep:
                self.wait(
                    lambda before=before: self.count(lockstep) > before,
                    10.0,
                    f"an answer to picture {index} on {lockstep}",
                )
            time.sleep(max(0.0, start + number * period - time.monotonic()))
        return stamps

    def warm_up(self, *topics: str) -> None:
        """Play until each topic has arrived once, which shows that DDS has matched everybody."""
        for _ in range(int(20 * PATIENCE)):
            self.play(1)
            if self.within(1.0, lambda: all(self.count(topic) for topic in topics)):
                return
        pytest.fail(f"no answer on {[topic for topic in topics if not self.count(topic)]}")

    def of(self, topic: str, stamps: list[int]) -> list[Any]:
        """The messages of a topic that carry one of the stamps, in order of arrival, once there are
        as many as stamps."""
        wanted = set(stamps)

        def found() -> list[Any]:
            return [message for message in self.received[topic] if stamp_of(message) in wanted]

        self.wait(
            lambda: len(found()) >= len(stamps),
            15.0,
            f"{len(stamps)} messages of {topic} with the stamps of their images",
        )
        return found()

    def drops(self) -> dict[str, int]:
        """Images that the newest status says were not estimated, by reason; empty before it."""
        if not self.count("~/status"):
            return {}
        status = self.received["~/status"][-1]
        return dict(zip(status.drop_reasons, status.drop_counts, strict=True))

    # --- services

    def call(self, type_name: str, service: str, request: Any = None, timeout: float = 20.0) -> Any:
        service_class = class_of(type_name)
        client = self.node.create_client(service_class, self.name(service))
        try:
            if not client.wait_for_service(timeout * PATIENCE):
                pytest.fail(f"service {service} does not exist")
            future = client.call_async(request or service_class.Request())
            self.wait(future.done, timeout, f"an answer of {service}")
            return future.result()
        finally:
            self.node.destroy_client(client)


def stamp_of(message: Any) -> int:
    """Integer nanoseconds of a message's header (of its first edge, for tf)."""
    message = message.transforms[0] if hasattr(message, "transforms") else message
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
