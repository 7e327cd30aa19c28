"""Time that stands still, jumps back or runs from a clock of its own."""

from __future__ import annotations

import numpy as np

from flow3r_ros.ros.messages import class_of, make
from flow3r_ros.wire.transforms import matrix_of_pose
from test.ros.harness import Client
from test.ros.node_process import NodeProcess, fresh_domain


def test_a_camera_that_is_silent_for_ten_seconds_and_comes_back():
    domain = fresh_domain()
    with (
        NodeProcess(domain, "-p", "node.silence_timeout:=6.0") as process,
        Client(domain) as client,
    ):
        client.listen("~/status", "~/odometry", "/diagnostics")
        client.connect_camera()
        client.warm_up("~/status", "~/odometry", "/diagnostics")
        before = client.of("~/status", client.play(5, lockstep="~/status"))[-1]
        client.wait(
            lambda: _silence(client) >= 10.0, 30.0, "ten seconds of silence in the diagnostics"
        )
        warned = client.received["/diagnostics"][-1].status[0]
        assert warned.level == b"\1"
        assert process.output().count("no image for") == 1
        after = client.of("~/status", client.play(5, lockstep="~/status"))
        assert [status.frames_received for status in after] == [
            before.frames_received + number for number in range(1, 6)
        ]
        assert after[-1].state == after[-1].STATE_TRACKING
        client.wait(
            lambda: (
                client.play(1, period=0.1)
                and client.received["/diagnostics"][-1].status[0].level == b"\0"
            ),
            10.0,
            "all well",
        )
        assert "a new segment begins" not in process.output()
        assert process.output().count("s behind this node's clock") == 1, "stamps of 2023"


def test_simulated_time_without_a_clock_is_said():
    domain = fresh_domain()
    with NodeProcess(domain, "-p", "use_sim_time:=true") as process, Client(domain) as client:
        client.listen("/diagnostics")
        client.wait(
            lambda: (
                client.count("/diagnostics")
                and "no /clock comes" in client.received["/diagnostics"][-1].status[0].message
            ),
            20.0,
            "the missing clock in the diagnostics, which do not wait for it",
        )
        client.wait(lambda: "play the bag with --clock" in process.output(), 10.0, "a remark")
        assert process.output().count("no /clock comes") == 1


def _silence(client: Client) -> float:
    text = client.received["/diagnostics"][-1].status[0].message
    return float(text.split()[3]) if text.startswith("no image for") else 0.0


class SimulatedClock:
    """`/clock` in steps of 20 ms, at the pace of the wall clock."""

    def __init__(self, client: Client) -> None:
        self.ns = 1_000_000_000_000
        self._clock = client.publisher("rosgraph_msgs/msg/Clock", "/clock")
        client.node.create_timer(0.02, self._tick)

    def _tick(self) -> None:
        self.ns += 20_000_000
        time = make("builtin_interfaces/msg/Time", sec=self.ns // 10**9, nanosec=self.ns % 10**9)
        self._clock.publish(class_of("rosgraph_msgs/msg/Clock")(clock=time))


def test_a_simulation_that_starts_over_begins_a_new_segment_and_says_so():
    domain = fresh_domain()
    with NodeProcess(domain, "-p", "use_sim_time:=true") as process, Client(domain) as client:
        client.listen("~/status", "~/odometry", "/diagnostics")
        said = "use_sim_time is set and no /clock comes"
        client.wait(lambda: said in process.output(), 20.0, "a remark on the missing clock")
        client.wait(
            lambda: any(
                said in message.status[0].message for message in client.received["/diagnostics"]
            ),
            5.0,
            "a warning",
        )
        clock = SimulatedClock(client)
        client.connect_camera()
        client.warm_up("~/status", "~/odometry", "/diagnostics")
        client.play(30, lockstep="~/odometry")  # a second: less would be disorder
        assert _distance(client) > 0.1
        assert "a new segment begins" not in process.output(), process.output()
        assert client.received["/diagnostics"][-1].header.stamp.sec < 10_000, (
            "stamped by the simulated clock"
        )
        clock.ns -= 500_000_000_000
        client.rewind()
        said = "a new segment begins: time jumped back by"
        client.wait(
            lambda: client.play(1, period=0.1) and said in process.output(), 10.0, "a new segment"
        )
        client.play(5, lockstep="~/odometry")
        assert process.output().count("a new segment begins") == 1


def _distance(client: Client) -> float:
    return float(np.linalg.norm(matrix_of_pose(client.received["~/odometry"][-1].pose.pose)[:3, 3]))
