"""Everything the node publishes: one thread turns estimates into messages, and only into those that
somebody subscribes to.

The inference thread hands outcomes over and goes on at once. When the thread falls behind, older
estimates still give their light messages (odometry, tf, status, path); images and clouds are made
of the newest only.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from rclpy.event_handler import PublisherEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher

from flow3r_ros.config import Config
from flow3r_ros.odometry.cloud import worth_showing
from flow3r_ros.ros import qos
from flow3r_ros.ros.messages import class_of, make
from flow3r_ros.ros.worker import Outcome
from flow3r_ros.types import Bool, Estimate, Float32, Float64, UInt8
from flow3r_ros.wire.flow import KeyframeFlow, factored_flow
from flow3r_ros.wire.frames import Say
from flow3r_ros.wire.obstacles import why_no_obstacles
from flow3r_ros.wire.outputs import TOPICS, Outputs, RunStatus

LIGHT = frozenset({"~/odometry", "~/pose", "~/status", "~/path", "/tf"})
APART = frozenset({"~/map", "~/flow"})
"""not of one estimate"""
DEPTH = frozenset({"~/depth/image", "~/confidence", "~/points", "~/obstacles"})
"""made of a frame's depth"""
WAITING = 64
"""outcomes kept for the publishing thread; beyond that the oldest give way"""
MapPoints = tuple[Float32, UInt8, Float32]
Item = Outcome | MapPoints | KeyframeFlow | None
"""what is queued; None: the odometry starts anew"""


class Publishers:
    """Publishes estimates under the names, types and QoS of the contracts.

    Args:
        node: creates the publishers.
        config: frames and cloud settings, read at every estimate so that runtime changes take
            effect.
        extrinsics: gives `T_base_optical [4, 4]` for an optical frame, None while it is unknown.
        describe: RunStatus of an outcome, given its age in milliseconds.
        published: told (outcome, age in milliseconds) once its messages are out.
        restarted: told when the odometry starts anew, in order with `published`.
        say: receives remarks, each under a key.
    """

    def __init__(
        self,
        node: Node,
        config: Config,
        extrinsics: Callable[[str], Float64 | None],
        describe: Callable[[Outcome, float], RunStatus],
        published: Callable[[Outcome, float], None],
        restarted: Callable[[], None],
        say: Say,
    ) -> None:
        self._node, self._config, self._say = node, config, say
        self._extrinsics, self._describe, self._published = extrinsics, describe, published
        self._restarted = restarted
        self._publishers = {
            topic: self._create(topic, type_name) for topic, type_name in TOPICS.items()
        }
        self._outputs: Outputs | None = None
        self._wake = threading.Condition()
        self._queue: deque[Item] = deque()
        self._running = True
        self._last_stamp = self._map_stamp = -1
        self._thread = threading.Thread(target=self._run, name="flow3r_publishing", daemon=True)
        self._thread.start()

    def deliver(self, outcome: Outcome) -> None:
        """Queue an outcome; never blocks."""
        self._put(outcome)

    def deliver_map(self, points: MapPoints) -> None:
        """Queue a snapshot of the map: `[M, 3]` in the optical world, uint8 `[M, 3]`, `[M]`."""
        self._put(points)

    def deliver_flow(self, flow: KeyframeFlow) -> None:
        """Queue the flow of the newest keyframe pair."""
        self._put(flow)

    def flow_wanted(self) -> bool:
        """Whether anybody listens to the flow."""
        return bool(self._publishers["~/flow"].get_subscription_count())

    def depth_wanted(self) -> bool:
        """Whether anybody listens to a topic that is made of depth."""
        return any(self._publishers[topic].get_subscription_count() for topic in DEPTH)

    def restart(self) -> None:
        """Forget path and last pose; queued in order with the outcomes."""
        self._put(None)

    def map_wanted(self) -> bool:
        """Whether anybody listens to the map, and there are estimates since the last one."""
        return self._last_stamp != self._map_stamp and bool(
            self._publishers["~/map"].get_subscription_count()
        )

    def anybody_listens(self) -> bool:
        """Whether an estimate is wanted by anybody; `/tf` counts while the edge is published."""
        return any(
            publisher.get_subscription_count() > 0
            for topic, publisher in self._publishers.items()
            if topic != "/tf" or self._config.node.publish_tf
        )

    def stop(self) -> None:
        """Publish nothing more and take the topics down."""
        with self._wake:
            self._running = False
            self._wake.notify()
        self._thread.join(timeout=1.0)
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)

    def _create(self, topic: str, type_name: str) -> Publisher:
        profile = (
            qos.TF
            if topic == "/tf"
            else qos.output_profile(self._config.node, latched=topic == "~/map")
        )
        events = PublisherEventCallbacks(
            incompatible_qos=lambda event: self._say(
                f"qos {topic}", qos.mismatch_in_words(event, topic, "subscriber")
            )
        )
        return self._node.create_publisher(
            class_of(type_name),
            topic,
            profile,
            event_callbacks=events,
            qos_overriding_options=qos.overridable(),
        )

    def _put(self, item: Item) -> None:
        with self._wake:
            self._queue.append(item)
            while len(self._queue) > WAITING:
                self._queue.popleft()
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._queue or not self._running)
                if not self._running:
                    return
                item = self._queue.popleft()
                newest = not any(isinstance(other, Outcome) for other in self._queue)
            try:
                self._handle(item, newest)
            except Exception as error:
                if self._running:
                    self._say("publishing", f"publishing failed: {type(error).__name__}: {error}")

    def _handle(self, item: Item, newest: bool) -> None:
        if item is None:
            self._outputs = None
            self._restarted()
        elif isinstance(item, Outcome):
            self._publish(item, newest)
        elif isinstance(item, KeyframeFlow):
            frame = self._config.node.camera_frame
            self._publishers["~/flow"].publish(factored_flow(make, item, frame))
        elif self._outputs is not None and len(item[0]):
            self._map_stamp = self._last_stamp
            self._publishers["~/map"].publish(self._outputs.map_message(self._last_stamp, *item))

    def _publish(self, outcome: Outcome, newest: bool) -> None:
        outputs = self._outputs_for(outcome.estimate)
        if outputs is None:
            return
        wanted = {
            topic
            for topic, publisher in self._publishers.items()
            if (newest or topic in LIGHT)
            and topic not in APART
            and (outcome.estimate.has_depth or topic not in DEPTH)
            and publisher.get_subscription_count()
        }
        ahead = self._config.node.tf_predict
        if ahead:
            self._say(
                f"tf_predict {ahead:g}",
                f"the tf edge is carried {ahead:g} s ahead by the measured velocity "
                "(node.tf_predict)",
            )
        why = why_no_obstacles(outcome.estimate, self._config.node.base_frame)
        if "~/obstacles" in wanted and why:
            self._say("obstacles", f"~/obstacles is not published: {why}")
        age_ms = (self._node.get_clock().now().nanoseconds - outcome.estimate.stamp_ns) * 1e-6
        messages = outputs.build(outcome.estimate, wanted, self._describe(outcome, age_ms))
        for topic, message in messages.items():
            self._publishers[topic].publish(message)
        self._last_stamp = outcome.estimate.stamp_ns
        self._published(outcome, age_ms)

    def _outputs_for(self, estimate: Estimate) -> Outputs | None:
        """The message builder; None while the extrinsics that the configuration asks for are
        unknown."""
        if self._outputs is not None:
            return self._outputs
        settings = self._config.node
        extrinsics = None
        if settings.base_frame:
            optical = settings.camera_frame or estimate.source_frame
            extrinsics = self._extrinsics(optical)
            if extrinsics is None:
                self._say(
                    "extrinsics",
                    f"no static transform {settings.base_frame} -> {optical} on "
                    "/tf_static: nothing is published until then",
                )
                return None
        self._outputs = Outputs(
            make, settings, self._worth_showing, extrinsics, self._config.obstacles
        )
        return self._outputs

    def _worth_showing(self, estimate: Estimate) -> Bool:
        return worth_showing(estimate, self._config.cloud.edge_ratio)
