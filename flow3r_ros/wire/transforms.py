"""Poses in messages: Pose, Transform, headers, the tf edge, and the static tree that extrinsics are
looked up in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flow3r_ros.geometry.lie import invert, matrix_from_quaternion, quaternion_from_matrix, rigid
from flow3r_ros.types import Float64
from flow3r_ros.wire.images import Make

NANOSECONDS = 1_000_000_000


def stamp_ns(stamp: Any) -> int:
    """Integer nanoseconds of `builtin_interfaces/Time` (ROS 2) or `time` (ROS 1)."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def header_of(make: Make, ns: int, frame_id: str) -> Any:
    """`std_msgs/Header` with an integer stamp."""
    stamp = make("builtin_interfaces/msg/Time", sec=ns // NANOSECONDS, nanosec=ns % NANOSECONDS)
    return make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def pose_of(make: Make, T: Float64) -> Any:
    """`geometry_msgs/Pose` of a rigid `[4, 4]`."""
    return make(
        "geometry_msgs/msg/Pose", position=_xyz(make, "Point", T), orientation=_rotation(make, T)
    )


def tf_message(make: Make, ns: int, parent: str, child: str, T_parent_child: Float64) -> Any:
    """`tf2_msgs/TFMessage` with one edge."""
    return tf_edges(make, ns, [(parent, child, T_parent_child)])


def tf_edges(make: Make, ns: int, edges: Sequence[tuple[str, str, Float64]]) -> Any:
    """`tf2_msgs/TFMessage` of edges (parent, child, `T_parent_child [4, 4]`) at one time."""
    return make("tf2_msgs/msg/TFMessage", transforms=[_edge(make, ns, *edge) for edge in edges])


def _edge(make: Make, ns: int, parent: str, child: str, T_parent_child: Float64) -> Any:
    transform = make(
        "geometry_msgs/msg/Transform",
        translation=_xyz(make, "Vector3", T_parent_child),
        rotation=_rotation(make, T_parent_child),
    )
    return make(
        "geometry_msgs/msg/TransformStamped",
        header=header_of(make, ns, parent),
        child_frame_id=child,
        transform=transform,
    )


def vector3(make: Make, values: Float64) -> Any:
    """`geometry_msgs/Vector3` of three numbers."""
    return make(
        "geometry_msgs/msg/Vector3", x=float(values[0]), y=float(values[1]), z=float(values[2])
    )


def _xyz(make: Make, kind: str, T: Float64) -> Any:
    return make(f"geometry_msgs/msg/{kind}", x=float(T[0, 3]), y=float(T[1, 3]), z=float(T[2, 3]))


def _rotation(make: Make, T: Float64) -> Any:
    x, y, z, w = (float(value) for value in quaternion_from_matrix(T[:3, :3]))
    return make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)


def matrix_of_pose(pose: Any) -> Float64:
    """`[4, 4]` of a `geometry_msgs/Pose` (position, orientation)."""
    return _matrix(pose.position, pose.orientation)


def matrix_of_transform(transform: Any) -> Float64:
    """`[4, 4]` of a `geometry_msgs/Transform` (translation, rotation)."""
    return _matrix(transform.translation, transform.rotation)


def _matrix(translation: Any, rotation: Any) -> Float64:
    quaternion = np.array([rotation.x, rotation.y, rotation.z, rotation.w], dtype=np.float64)
    norm = float(np.linalg.norm(quaternion))
    R = matrix_from_quaternion(quaternion / norm) if norm > 1e-9 else np.eye(3)
    return np.asarray(
        rigid(R, np.array([translation.x, translation.y, translation.z], dtype=np.float64))
    )


class StaticTransforms:
    """The tree of `/tf_static`: enough of tf2 to look up rigid extrinsics, without tf2."""

    def __init__(self) -> None:
        self._parent: dict[str, tuple[str, Float64]] = {}

    def add(self, message: Any) -> None:
        """Take every edge of a `tf2_msgs/TFMessage`; a repeated child replaces its edge. Edges that
        are not finite are left out."""
        for edge in message.transforms:
            T = _matrix(edge.transform.translation, edge.transform.rotation)
            child, parent = edge.child_frame_id.lstrip("/"), edge.header.frame_id.lstrip("/")
            if np.isfinite(T).all() and child != parent:
                self._parent[child] = (parent, T)

    def lookup(self, target: str, source: str) -> Float64 | None:
        """`T_target_source` `[4, 4]`: maps points in `source` to `target`; None when the two are
        not connected."""
        up_target, up_source = (
            self._ancestors(target.lstrip("/")),
            self._ancestors(source.lstrip("/")),
        )
        for name, T_name_source in up_source.items():
            if name in up_target:
                return np.asarray(invert(up_target[name]) @ T_name_source)
        return None

    def _ancestors(self, frame: str) -> dict[str, Float64]:
        """`T_ancestor_frame` of the frame itself and each ancestor, nearest first."""
        found = {frame: np.eye(4)}
        T = np.eye(4)
        while frame in self._parent:
            frame, T_parent_child = self._parent[frame]
            if frame in found:
                break
            T = T_parent_child @ T
            found[frame] = T
        return found

    def message(self, make: Make, ns: int) -> Any:
        """The whole tree as one `tf2_msgs/TFMessage` stamped `ns`."""
        edges = [
            _edge(make, ns, parent, child, T) for child, (parent, T) in sorted(self._parent.items())
        ]
        return make("tf2_msgs/msg/TFMessage", transforms=edges)

    def __len__(self) -> int:
        return len(self._parent)
