"""A bag with images, depth and poses becomes a labelled sequence, extrinsics and clocks
included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flow3r_ros.bags.types import make
from flow3r_ros.datasets.labelled_bag import BagTopics, open_labelled_bag
from flow3r_ros.errors import BagError
from flow3r_ros.geometry.lie import invert, se3_exp
from flow3r_ros.training.scenes.renderer import SceneClip
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.transforms import header_of, pose_of, tf_edges, tf_message
from test.bags.factory import START, compressed, write_bag
from test.training.clip_factory import scene

STEP = 100_000_000
EXTRINSICS = se3_exp(np.array([0.1, -0.2, 0.3, 1.2, 0.1, -0.4]))
TOPICS = BagTopics(image="/rgb/compressed", depth="/depth", camera_info="/info", pose="/odom")


def depth_message(header: Any, depth: np.ndarray, encoding: str) -> Any:
    pixels = (
        depth.astype(np.float32)
        if encoding == "32FC1"
        else np.round(depth * 1000).astype(np.uint16)
    )
    h, w = depth.shape
    data = np.frombuffer(pixels.tobytes(), np.uint8)
    return make(
        "sensor_msgs/msg/Image",
        header=header,
        height=h,
        width=w,
        encoding=encoding,
        is_bigendian=0,
        step=w * pixels.itemsize,
        data=data,
    )


def odometry_message(ns: int, pose: np.ndarray) -> Any:
    zero = make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
    twist = make("geometry_msgs/msg/Twist", linear=zero, angular=zero)
    return make(
        "nav_msgs/msg/Odometry",
        header=header_of(make, ns, "odom"),
        child_frame_id="base",
        pose=make(
            "geometry_msgs/msg/PoseWithCovariance",
            pose=pose_of(make, pose),
            covariance=np.zeros(36),
        ),
        twist=make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
    )


def write_labelled_bag(
    folder: Path,
    made: SceneClip,
    encoding: str = "16UC1",
    static: bool = True,
    depth: bool = True,
) -> Path:
    """Odometry, on `/odom` and on `/tf`, is that of a base which carries the camera; the last image
    comes after its end."""
    images, depths, infos, odometry, edges = [], [], [], [], []
    for k, pose in enumerate(made.poses):
        ns = START + k * STEP
        header = header_of(make, ns, "cam")
        images.append((ns + 2_000_000, compressed(header, made.rgb[k], "png")))
        depths.append(
            (
                ns + 5_000_000,
                depth_message(header_of(make, ns + 3_000_000, "cam"), made.depth[k], encoding),
            )
        )
        infos.append((ns, info_from_camera(make, header, made.camera)))
        T_odom_base = pose @ invert(EXTRINSICS)
        odometry.append((ns, odometry_message(ns, T_odom_base)))
        both = [("odom", "base", T_odom_base), ("map", "odom", np.eye(4))]
        edges.append((ns, tf_edges(make, ns, both)))
    topics = {
        "/rgb/compressed": ("sensor_msgs/msg/CompressedImage", images),
        "/depth": ("sensor_msgs/msg/Image", depths),
        "/info": ("sensor_msgs/msg/CameraInfo", infos),
        "/odom": ("nav_msgs/msg/Odometry", odometry[:-1]),
        "/tf": ("tf2_msgs/msg/TFMessage", edges[:-1]),
    }
    if not depth:
        del topics["/depth"]
    if static:
        topics["/tf_static"] = (
            "tf2_msgs/msg/TFMessage",
            [(START, tf_message(make, START, "base", "cam", EXTRINSICS))],
        )
    return write_bag(folder, topics)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_poses_and_camera_come_back(tmp_path: Path, encoding: str) -> None:
    made = scene(frames=4)
    sequence = open_labelled_bag(write_labelled_bag(tmp_path / "bag", made, encoding), TOPICS)
    assert len(sequence) == 3
    assert sequence.shots[1].stamp_ns == START + STEP
    frame = sequence.labelled(1)
    np.testing.assert_allclose(frame.pose, made.poses[1], atol=1e-9)
    assert np.nanmax(np.abs(frame.depth - made.depth[1])) < 1e-3
    assert np.array_equal(frame.rgb, made.rgb[1])
    assert frame.camera.fx == pytest.approx(made.camera.fx)


@pytest.mark.parametrize("pose", ["/odom", "/tf"])
def test_a_camera_and_odometry_are_enough_for_poses_in_metres(tmp_path: Path, pose: str) -> None:
    made = scene(frames=4)
    bag = write_labelled_bag(tmp_path / "bag", made, depth=False)
    with pytest.raises(BagError, match="no topic /depth"):
        open_labelled_bag(bag, TOPICS)
    topics = TOPICS.model_copy(update={"pose": pose, "depth": ""})
    sequence = open_labelled_bag(bag, topics)
    assert len(sequence) == 3
    np.testing.assert_allclose(sequence.poses(), made.poses[:3], atol=1e-9)
    frame = sequence.labelled(1)
    assert np.isnan(frame.depth).all()
    assert np.array_equal(frame.rgb, made.rgb[1])
    with pytest.raises(BagError, match="no image has a pose; check the topics"):
        open_labelled_bag(bag, topics.model_copy(update={"pose": "/tf", "fixed_frame": "world"}))


def test_missing_topics_and_extrinsics_are_named(tmp_path: Path) -> None:
    bag = write_labelled_bag(tmp_path / "bag", scene(frames=3), static=False)
    with pytest.raises(BagError, match=r"/nothing.*it has /depth"):
        open_labelled_bag(bag, TOPICS.model_copy(update={"pose": "/nothing"}))
    with pytest.raises(BagError, match="does not connect base and cam"):
        open_labelled_bag(bag, TOPICS)
