"""The packed path is, to the byte, what serializing `nav_msgs/Path` gives."""

from __future__ import annotations

import numpy as np
import pytest

from flow3r_ros.bags.types import make, ros2_types
from flow3r_ros.geometry.lie import se3_exp
from flow3r_ros.wire.path import PathBytes
from flow3r_ros.wire.transforms import header_of, pose_of

NS = 1_700_000_000_987_654_321


@pytest.mark.parametrize("frame", ["", "o", "od", "odom", "world", "robot1/odom", "käfer/odom"])
@pytest.mark.parametrize("poses", [0, 1, 2, 5])
def test_bytes_are_those_of_the_message(frame: str, poses: int) -> None:
    path = PathBytes(frame, longest=3)
    expected = []
    for index in range(poses):
        T = se3_exp(np.array([0.1, -0.2, 0.3, 0.2, 0.1, -0.4]) * (index + 1))
        path.append(NS + index, T)
        expected.append(
            make(
                "geometry_msgs/msg/PoseStamped",
                header=header_of(make, NS + index, frame),
                pose=pose_of(make, T),
            )
        )
    message = make(
        "nav_msgs/msg/Path", header=header_of(make, NS + poses, frame), poses=expected[-3:]
    )
    assert len(path) == min(poses, 3)
    assert path.message(NS + poses) == bytes(
        ros2_types().serialize_cdr(message, "nav_msgs/msg/Path")
    )
