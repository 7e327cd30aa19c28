"""The example consumer beside a real node: distances in base_link, and what it says when something
is missing."""

from __future__ import annotations

import math
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from flow3r_ros.geometry.frames import R_BODY_OPTICAL
from flow3r_ros.geometry.lie import rigid
from flow3r_ros.ros.example_consumer import depth_ahead, nearest_obstacle
from flow3r_ros.ros.messages import make
from flow3r_ros.wire.transforms import tf_message
from test.ros.harness import LATCHED, Client
from test.ros.node_process import NodeProcess, fresh_domain
from test.ros.scene import DEPTH

MOUNTED = rigid(R_BODY_OPTICAL, np.array([0.2, 0.0, 0.5]))
"""a camera 20 cm before and 50 cm above base_link, looking forward"""
APT = pytest.mark.skipif(
    not (find_spec("sensor_msgs_py") and find_spec("tf_transformations")),
    reason="sensor_msgs_py and tf_transformations are not on PyPI: this runs where apt has them",
)


def test_the_nearest_point_between_the_heights_is_the_obstacle() -> None:
    optical = np.array([[0.0, 0.0, 3.0], [-1.0, 0.0, 2.0], [0.0, 0.5, 1.0], [0.0, -3.0, 1.0]])
    distance, bearing = nearest_obstacle(optical, MOUNTED, 0.1, 2.0)
    assert distance == pytest.approx(math.hypot(2.2, 1.0))
    assert bearing == pytest.approx(math.degrees(math.atan2(1.0, 2.2)))
    floor_alone = optical[2:3]
    assert nearest_obstacle(floor_alone, MOUNTED, 0.1, 2.0) == (math.inf, 0.0)
    assert nearest_obstacle(np.empty((0, 3)), MOUNTED, 0.1, 2.0) == (math.inf, 0.0)


def test_depth_ahead_is_the_median_of_the_middle() -> None:
    depth = np.full((9, 12), 50.0, np.float32)
    depth[3:6, 4:8] = 2.0
    depth[4, 5] = np.nan
    image = SimpleNamespace(height=9, width=12, data=depth.tobytes())
    assert depth_ahead(image) == 2.0
    blind = SimpleNamespace(height=9, width=12, data=np.full(108, np.nan, np.float32).tobytes())
    assert math.isnan(depth_ahead(blind))


@APT
def test_the_consumer_measures_the_wall_from_base_link() -> None:
    domain = fresh_domain()
    program = ("-m", "flow3r_ros.ros.example_consumer")
    with (
        NodeProcess(domain),
        NodeProcess(domain, program=program) as consumer,
        Client(domain) as client,
    ):
        client.listen("~/points")
        client.wait(lambda: "no cloud on" in consumer.output(), 20.0, "what is missing")
        client.connect_camera()
        client.wait(
            lambda: (
                client.play(1, period=0.1)
                and "no transform base_link <- cam_optical" in consumer.output()
                and f"nearest point {DEPTH:.1f}" in consumer.output()
            ),
            20.0,
            "distances without a transform",
        )
        static = client.publisher("tf2_msgs/msg/TFMessage", "/tf_static", LATCHED)
        static.publish(tf_message(make, 0, "base_link", "cam_optical", MOUNTED))
        said = f"nearest obstacle {DEPTH + 0.2:.1f}"
        client.wait(
            lambda: client.play(1, period=0.1) and said in consumer.output(),
            20.0,
            "distances from base_link",
        )
        assert "heading" in consumer.output()
        assert f"straight ahead {DEPTH:.1f}" in consumer.output()
        assert consumer.stop() == 0
        assert "Traceback" not in consumer.output()
