"""What the node says about itself once a second: `/diagnostics`, and each remark once in the log.

The timer runs on the steady clock, so that a node under simulated time speaks while `/clock` is
silent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from flow3r_ros.config import Config
from flow3r_ros.ros import qos
from flow3r_ros.ros.dds_profile import VARIABLES, profile_path
from flow3r_ros.ros.diagnostics import AHEAD_NS, FAR_NS, MISSING_SHARE, NO_CLOCK, Health
from flow3r_ros.ros.framing import Framing
from flow3r_ros.ros.loading import Loaded
from flow3r_ros.ros.messages import class_of
from flow3r_ros.ros.once import Once
from flow3r_ros.ros.worker import Tally, Worker
from flow3r_ros.wire.transforms import stamp_ns

PERIOD_S = 1.0
CLOCK_PATIENCE = 3
"""reports for which the simulated clock may stand at zero before that is said"""
TWIN_PATIENCE = 30
"""reports for which another node may have our name: one that was killed is announced for 20 s"""
STEADY = Clock(clock_type=ClockType.STEADY_TIME)
"""never stands, whatever `use_sim_time` says"""
START_CLOCK = (
    "the node's time stands at zero; play the bag with --clock, start the simulation, or leave "
    "use_sim_time off"
)
SYNCHRONISE = (
    "synchronise the two clocks (chrony), or play a recording with --clock and set use_sim_time"
)

Parts = tuple[str, Loaded | None, Worker | None, Framing | None]
"""lifecycle state, and what there is in it"""


class Reporting:
    """Publishes the diagnostics of a node.

    Args:
        parts: the node's lifecycle state and its parts, asked every second.
    """

    def __init__(self, node: Node, config: Config, say: Once, parts: Callable[[], Parts]) -> None:
        self._node, self._config, self._say, self._parts = node, config, say, parts
        self.health = Health()
        self._clock_stood = self._twin_seen = 0
        self._publisher = node.create_publisher(
            class_of("diagnostic_msgs/msg/DiagnosticArray"),
            "/diagnostics",
            qos.DIAGNOSTICS,
            qos_overriding_options=qos.overridable(),
        )
        node.create_timer(PERIOD_S, self._report, clock=STEADY)

    def restart(self) -> None:
        """The node was activated: everything counts anew."""
        self.health = Health()

    def received(self, message: Any, now_ns: int) -> None:
        """An image came, when the node's clock showed `now_ns`."""
        if self.health.input.silence() > self._config.node.silence_timeout:
            self._say.forget("silence")
        self.health.received(stamp_ns(message.header.stamp), now_ns)

    def lost(self, count: int) -> None:
        """The transport says that it lost images."""
        self.health.lost_in_transport += count

    def _report(self) -> None:
        state, loaded, worker, framing = self._parts()
        settings, now_ns = self._config.node, int(self._node.get_clock().now().nanoseconds)
        if state == "active":
            self._remark(now_ns)
        self._publisher.publish(
            self.health.message(
                now_ns,
                self._node.get_fully_qualified_name(),
                state,
                settings,
                loaded,
                worker.tally() if worker is not None else Tally(),
                framing.ignored_infos if framing is not None else 0,
                framing.camera.in_words() if framing is not None else "",
            )
        )

    def _remark(self, now_ns: int) -> None:
        """Say what stands in the way, each thing once."""
        silence = self.health.input.silence()
        if self._config.node.silence_timeout < silence < float("inf"):
            self._say("silence", f"no image for {silence:.1f} s")
        self._clock_stood = self._clock_stood + 1 if now_ns == 0 else 0
        if self._clock_stood >= CLOCK_PATIENCE:
            self._say("clock", f"{NO_CLOCK}: {START_CLOCK}")
        self._remark_on_stamps()
        self._remark_on_twins()
        if self.health.gaps.share >= MISSING_SHARE:
            self._say("gaps", self._missing_in_words())

    def _remark_on_stamps(self) -> None:
        behind_ns = self.health.offset_ns
        if behind_ns < -AHEAD_NS:
            self._say(
                "stamps ahead",
                f"image stamps lie {-behind_ns * 1e-9:.3f} s ahead of this node's clock: tf cannot "
                f"be asked for the present; {SYNCHRONISE}",
            )
        elif behind_ns > FAR_NS:
            self._say(
                "stamps behind",
                f"image stamps lie {behind_ns * 1e-9:.3f} s behind this node's clock: whoever asks "
                f"tf for the present finds nothing; {SYNCHRONISE}",
            )

    def _remark_on_twins(self) -> None:
        topic = self._node.resolve_topic_name("~/odometry")
        self._twin_seen = self._twin_seen + 1 if self._node.count_publishers(topic) > 1 else 0
        if self._twin_seen >= TWIN_PATIENCE:
            self._say(
                "twin",
                f"{topic} has another publisher: two nodes have one name, and their outputs and "
                "services mix; give one another name (-r __node:=NAME, in a launch file name:=) or "
                "namespace",
            )

    def _missing_in_words(self) -> str:
        health = self.health
        text = (
            f"{100 * health.gaps.share:.0f} % of the images do not reach this node, by the gaps in "
            "their stamps"
        )
        profile = profile_path() or "config/fastdds_large_messages.xml"
        return (
            f"{text}; if the camera is in another process and best effort, start it with "
            f"{VARIABLES[0]}={profile} (shared memory of Fast DDS is too small for images), or let "
            "it offer reliable"
        )
