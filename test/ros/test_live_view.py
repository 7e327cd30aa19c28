"""`flow3r view --live` beside a real node: what it publishes arrives in the recording."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from test.offline.test_view import entities
from test.ros.harness import Client
from test.ros.node_process import NodeProcess, fresh_domain

pytest.importorskip("rerun")


def test_a_node_is_watched(tmp_path: Path) -> None:
    domain, recording = fresh_domain(), tmp_path / "live.rrd"
    program = ("-m", "flow3r_ros.cli.main", "view", "--live", "--rerun", str(recording))
    with (
        NodeProcess(domain),
        NodeProcess(domain, program=program) as viewer,
        Client(domain) as client,
    ):
        client.listen("~/odometry", "~/points", "~/map")
        for topic in ("points", "map", "depth/image", "status"):
            name = client.name(f"~/{topic}")
            client.wait(lambda name=name: _subscribers(client, name), 20.0, f"a viewer of {name}")
        client.connect_camera()
        client.warm_up("~/odometry", "~/points", "~/map")
        client.play(12, lockstep="~/points")
        assert viewer.stop(signal.SIGINT) == 0
    assert entities(recording) >= {
        "world/way/0",
        "world/camera",
        "world/camera/image/depth",
        "world/camera/points",
        "world/map",
        "world/keyframes",
    }


def _subscribers(client: Client, name: str) -> bool:
    infos = client.node.get_subscriptions_info_by_topic(name)
    return any(info.node_name == "flow3r_view" for info in infos)
