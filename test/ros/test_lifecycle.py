"""Lifecycle rounds leak nothing; parameters from a file and while the node runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flow3r_ros.ros.messages import class_of, make
from test.ros.harness import Client
from test.ros.node_process import NodeProcess, fresh_domain

CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = 1, 2, 3, 4


def _change_state(client: Client, transition: int) -> bool:
    request = class_of("lifecycle_msgs/srv/ChangeState").Request()
    request.transition.id = transition
    return client.call("lifecycle_msgs/srv/ChangeState", "~/change_state", request).success


def _parameter(name: str, **value: object) -> object:
    kinds = {"bool_value": 1, "integer_value": 2, "double_value": 3, "string_value": 4}
    (field, content), *_ = value.items()
    held = make("rcl_interfaces/msg/ParameterValue", type=kinds[field], **{field: content})
    return make("rcl_interfaces/msg/Parameter", name=name, value=held)


def _set(client: Client, name: str, **value: object) -> tuple[bool, str]:
    request = class_of("rcl_interfaces/srv/SetParameters").Request()
    request.parameters = [_parameter(name, **value)]
    result = client.call("rcl_interfaces/srv/SetParameters", "~/set_parameters", request).results[0]
    return result.successful, result.reason


def test_twenty_rounds_of_the_lifecycle_leak_nothing():
    domain = fresh_domain()
    with NodeProcess(domain, "-p", "autostart:=false") as process, Client(domain) as client:
        client.listen("~/status")
        sizes, threads = [], []
        assert _set(client, "engine.window", integer_value=3) == (True, "")
        for _ in range(20):
            assert _change_state(client, CONFIGURE)
            assert _change_state(client, ACTIVATE)
            client.connect_camera()
            before = client.count("~/status")
            client.wait(
                lambda before=before: (
                    client.play(1, period=0.1) and client.count("~/status") > before
                ),
                10.0,
                "an estimate",
            )
            assert _change_state(client, DEACTIVATE)
            if not sizes:
                refused, reason = _set(client, "engine.window", integer_value=4)
                assert (refused, "read at configure" in reason) == (False, True)
            assert _change_state(client, CLEANUP)
            sizes.append(process.rss_mb())
            threads.append(len(list(Path(f"/proc/{process.process.pid}/task").iterdir())))
        assert not client.node.get_publishers_info_by_topic(client.name("~/odometry"))
        # freed pages come and go: what counts is whether the last rounds rise above the first
        assert np.median(sizes[15:]) - max(sizes[2:10]) < 4.0, sizes
        assert threads[-1] <= threads[5] + 1, threads
        assert "Traceback" not in process.output()


def test_parameters_from_yaml_and_at_run_time(tmp_path):
    settings = tmp_path / "node.yaml"
    settings.write_text(
        "flow3r:\n  ros__parameters:\n    depth: {min_confidence: 0.5}\n    node: "
        "{odom_frame: world}\n    spelled: wrong\n"
    )
    domain = fresh_domain()
    with NodeProcess(domain, "--params-file", str(settings)) as process, Client(domain) as client:
        client.listen("~/odometry", "~/points")
        client.connect_camera()
        client.wait(
            lambda: (
                client.play(1, period=0.1)
                and client.count("~/odometry")
                and client.count("~/points")
            ),
            15.0,
            "outputs",
        )
        assert client.received["~/odometry"][0].header.frame_id == "world"
        client.wait(
            lambda: client.play(1, period=0.1) and _kept(client) > 0,
            15.0,
            "points above half confidence",
        )
        assert _set(client, "depth.min_confidence", double_value=1.0) == (True, "")
        client.wait(
            lambda: client.play(1, period=0.1) and _kept(client) == 0, 15.0, "an empty cloud"
        )
        assert _set(client, "node.tf_predict", double_value=0.1) == (True, "")
        client.wait(
            lambda: client.play(1, period=0.1) and "carried 0.1 s ahead" in process.output(),
            15.0,
            "a word about an edge that is a prediction",
        )
        refused, reason = _set(client, "depth.min_confidence", double_value=1.5)
        assert not refused
        assert reason
        refused, reason = _set(client, "cloud.edge_ratio", double_value=0.0)
        assert (refused, "greater than 0" in reason) == (False, True)
        for name, value, words in (
            (
                "obstacles.min_height",
                2.5,
                "min_height (2.5) must be less than obstacles.max_height",
            ),
            ("node.age_warn", 2.0, "node.age_warn (2.0) must be less than node.age_error (2.0)"),
        ):
            refused, reason = _set(client, name, double_value=value)
            assert (refused, words in reason) == (False, True)
        both = {"node.age_warn": 3.0, "node.age_error": 4.0}
        request = class_of("rcl_interfaces/srv/SetParametersAtomically").Request(
            parameters=[_parameter(name, double_value=value) for name, value in both.items()]
        )
        answer = client.call(
            "rcl_interfaces/srv/SetParametersAtomically", "~/set_parameters_atomically", request
        )
        assert answer.result.successful, "together they are in order"
        refused, reason = _set(client, "engine.window", integer_value=8)
        assert (refused, "engine.window is read at configure" in reason) == (False, True)
        assert "'spelled' does not exist" in process.output()
        request = class_of("rcl_interfaces/srv/DescribeParameters").Request(
            names=["engine.window", "depth.min_confidence"]
        )
        window, confidence = client.call(
            "rcl_interfaces/srv/DescribeParameters", "~/describe_parameters", request
        ).descriptors
        assert (
            window.integer_range[0].from_value,
            window.integer_range[0].to_value,
        ) == (0, 64)
        assert confidence.floating_point_range[0].to_value == 1.0
        assert window.description == (
            "keyframes per forward, the newest included, at least 2; 0 = as the model's "
            "manifest says (`input.window`) (read at configure)"
        )


def _kept(client: Client) -> int:
    cloud = client.received["~/points"][-1]
    values = np.frombuffer(cloud.data, np.float32).reshape(-1, cloud.point_step // 4)
    return int(np.isfinite(values[:, 2]).sum())
