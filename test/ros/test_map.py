"""Two edges as REP-105 says, over DDS: map -> odom by the map, odom -> camera by odometry."""

from __future__ import annotations

import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flow3r_ros.slam.disk import load_map
from flow3r_ros.wire.transforms import matrix_of_pose
from test.ros.harness import Client, stamp_of
from test.ros.node_process import NodeProcess, fresh_domain
from test.ros.scene import STEP

pytest.importorskip("gtsam")


def saved_by(client: Client) -> Path:
    """Folder of the keyframe map that the node saves, once it has one."""
    answers = []

    def is_saved() -> bool:
        client.play(1, lockstep="~/status")
        answers.append(client.call("std_srvs/srv/Trigger", "~/save_map"))
        return answers[-1].success

    client.wait(is_saved, 20.0, "a map")
    return Path(answers[-1].message) / "keyframes"


def numbers(transform: Any) -> np.ndarray:
    """Translation and quaternion."""
    x, q = transform.translation, transform.rotation
    return np.array([x.x, x.y, x.z, q.x, q.y, q.z, q.w])


def test_the_node_owns_two_edges_and_says_where_it_is_in_the_map(tmp_path: Path):
    domain = fresh_domain()
    settings = (
        *("-p", "slam.enabled:=true", "-p", "node.map_frame:=site"),
        *("-p", f"node.save_dir:={tmp_path}"),
    )
    with NodeProcess(domain, *settings) as process, Client(domain) as client:
        client.listen("~/odometry", "~/pose", "~/status", "/tf")
        client.connect_camera()
        client.warm_up("~/odometry", "~/pose", "~/status", "/tf")
        stamps = client.play(4, lockstep="~/status")
        for message in client.of("/tf", stamps):
            edges = [(edge.header.frame_id, edge.child_frame_id) for edge in message.transforms]
            assert edges == [("site", "odom"), ("odom", "cam_optical")]
            # nothing was corrected, so that map and odom are one
            moved = message.transforms[0].transform
            assert abs(moved.translation.x) + abs(moved.translation.y) < 1e-6
            assert abs(moved.rotation.w) > 1.0 - 1e-9
        for pose, odometry in zip(
            client.of("~/pose", stamps), client.of("~/odometry", stamps), strict=True
        ):
            assert pose.header.frame_id == "site"
            here, there = (matrix_of_pose(each.pose.pose) for each in (pose, odometry))
            assert np.allclose(here, there, atol=1e-6)
        status = client.of("~/status", stamps)[-1]
        assert status.loops_closed == 0
        assert np.isfinite(status.map_to_odom_age)
        assert stamp_of(status) == stamps[-1]
        assert "slam.map" in client.call("std_srvs/srv/Trigger", "~/load_map").message
        assert load_map(saved_by(client)).keyframes
        assert client.call("std_srvs/srv/Trigger", "~/reset").success
        assert client.play(1, lockstep="~/status")
        assert process.stop(signal.SIGINT) == 0, process.output()
        assert "Traceback" not in process.output()


def test_a_loop_moves_map_to_odom_and_odom_goes_on():
    """The pan comes back to where it began, 20 s later by the stamps."""
    domain, turns_after = fresh_domain(), 56
    program = ("-m", "test.ros.plane_node", "--turns-after", str(turns_after))
    with (
        NodeProcess(domain, "-p", "slam.enabled:=true", program=program) as process,
        Client(domain) as client,
    ):
        client.turns_after, client.period_ns = turns_after, 300_000_000
        client.listen("~/status", "/tf")
        client.connect_camera()
        client.warm_up("~/status", "/tf")
        client.play(2 * turns_after, lockstep="~/status")
        client.wait(lambda: client.received["~/status"][-1].loops_closed, 1.0, "a loop")
        stamps = [stamp_of(each) for each in client.received["~/status"]]
        closed = [each.loops_closed for each in client.received["~/status"]]
        map_odom, odom_cam = (
            [numbers(each.transforms[edge].transform) for each in client.received["/tf"]]
            for edge in (0, 1)
        )
        assert stamps == sorted(stamps)
        first = next(at for at, each in enumerate(closed) if each)
        moved = [np.abs(each - [0, 0, 0, 0, 0, 0, 1]).max() for each in map_odom]
        assert max(moved[:first]) < 1e-9
        assert max(moved[first:]) > 1e-6
        steps = [np.linalg.norm(b[:3] - a[:3]) for a, b in pairwise(odom_cam)]
        assert max(steps[first - 2 :]) < 2.0 * STEP
        assert process.stop(signal.SIGINT) == 0, process.output()


def test_a_saved_map_is_found_again_by_another_node(tmp_path: Path):
    domain = fresh_domain()
    with NodeProcess(
        domain, "-p", "slam.enabled:=true", "-p", f"node.save_dir:={tmp_path}"
    ) as process, Client(domain) as client:  # fmt: skip
        client.listen("~/status")
        client.connect_camera()
        client.warm_up("~/status")
        map_ = saved_by(client)
        assert process.stop(signal.SIGINT) == 0, process.output()
    settings = ("-p", "slam.enabled:=true", "-p", f"slam.map:={map_}")
    with NodeProcess(domain, *settings) as process, Client(domain) as client:
        client.listen("~/status")
        client.connect_camera()
        client.warm_up("~/status")
        answer = client.call("std_srvs/srv/Trigger", "~/load_map")
        assert answer.success
        assert str(map_) in answer.message
        client.play(2, lockstep="~/status")
        assert process.stop(signal.SIGINT) == 0, process.output()
        assert "Traceback" not in process.output()
