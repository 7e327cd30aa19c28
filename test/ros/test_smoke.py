"""The least that must work on every ROS 2 distribution: start, estimate, publish, answer, end.
`colcon test` runs this on a robot."""

from __future__ import annotations

import signal

from test.ros.harness import Client, stamp_of
from test.ros.node_process import NodeProcess, fresh_domain

TOPICS = ("~/odometry", "~/depth/image", "~/points", "~/status", "/tf")


def test_node_estimates_publishes_answers_and_ends():
    domain = fresh_domain()
    with NodeProcess(domain) as process, Client(domain) as client:
        client.listen("/diagnostics")
        client.connect_camera()
        client.wait(
            lambda: client.play(5, period=0.03) and _diagnostic(client, "dropped: idle") > 0,
            20.0,
            "a node that nobody listens to idles",
        )
        client.listen(*TOPICS)
        client.warm_up(*TOPICS)
        stamps = client.play(5, lockstep="~/status")
        for topic in TOPICS:
            assert [stamp_of(message) for message in client.of(topic, stamps)] == stamps, topic
        assert client.call("std_srvs/srv/Trigger", "~/reset").success
        client.wait_for("/diagnostics")
        assert process.stop(signal.SIGINT) == 0, process.output()
        assert "Traceback" not in process.output()


def _diagnostic(client: Client, key: str) -> float:
    if not client.count("/diagnostics"):
        return 0.0
    values = client.received["/diagnostics"][-1].status[0].values
    return float({pair.key: pair.value for pair in values}.get(key, 0))
