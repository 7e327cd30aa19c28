"""An Estimate as the messages of the node: the same lines build rclpy messages live and rosbags
dataclasses in a replay.

That sameness is what makes live equal replay, to the byte. Axes and edges follow REP-103 and
REP-105 (`geometry.frames`), depth follows REP-118. Array fields are handed to `make` as 1-D
contiguous numpy arrays of the field's type, nested messages through `make` again.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flow3r_ros.config import NodeSettings, ObstacleSettings
from flow3r_ros.geometry.frames import R_BODY_OPTICAL, odom_covariance, odom_from_optical
from flow3r_ros.geometry.lie import adjoint, invert, rigid, se3_exp
from flow3r_ros.types import (
    LOST_VARIANCE,
    Bool,
    Estimate,
    Float32,
    Float64,
    ScaleState,
    TrackingState,
    UInt8,
)
from flow3r_ros.wire import transforms
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.clouds import estimate_cloud, map_cloud
from flow3r_ros.wire.images import Make, depth_image, mask_image
from flow3r_ros.wire.obstacles import obstacle_cloud, why_no_obstacles
from flow3r_ros.wire.path import PathBytes

TOPICS: dict[str, str] = {
    "~/odometry": "nav_msgs/msg/Odometry",
    "~/pose": "geometry_msgs/msg/PoseWithCovarianceStamped",
    "~/path": "nav_msgs/msg/Path",
    "~/depth/image": "sensor_msgs/msg/Image",
    "~/depth/camera_info": "sensor_msgs/msg/CameraInfo",
    "~/confidence": "sensor_msgs/msg/Image",
    "~/moving_mask": "sensor_msgs/msg/Image",
    "~/points": "sensor_msgs/msg/PointCloud2",
    "~/obstacles": "sensor_msgs/msg/PointCloud2",
    "~/map": "sensor_msgs/msg/PointCloud2",
    "~/flow": "flow3r_ros/msg/FactoredFlow",
    "~/status": "flow3r_ros/msg/TrackingStatus",
    "/tf": "tf2_msgs/msg/TFMessage",
}
"""topic -> type; `~` is the node's own name (`/flow3r` in a replay)"""

_STATES = {state: code for code, state in enumerate(TrackingState)}
_SCALES = {state: code for code, state in enumerate(ScaleState)}


@dataclass(frozen=True)
class RunStatus:
    """Figures of `~/status` and `/diagnostics` that one estimate does not know; counts are since
    start or reset, times in milliseconds. With a map, `T_map_odom` `[4, 4]` is the pose of the
    odometry's optical world in the map's, output units, and its age in seconds."""

    received: int = 0
    estimated: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    seams_refused: int = 0
    latency_ms: float = 0.0
    age_ms: float = 0.0
    camera: str = ""
    model: str = ""
    weights_sha256: str = ""
    weights_license: str = ""
    loops_closed: int = 0
    map_to_odom_age_s: float = float("nan")
    T_map_odom: Float64 | None = None


class Outputs:
    """Builds the wanted messages of each estimate, in order; keeps the path and the time of the
    last map, nothing else.

    Args:
        make: `make(type_name, **fields)`, see `wire.images.Make`.
        settings: frames, tf and path settings.
        keep: bool `[h, w]` of the pixels worth a point (confidence, depth edges, moving); None
            keeps every valid one.
        T_base_optical: static extrinsics `[4, 4]` of the optical frame in `settings.base_frame`;
            needed when that is set.
        obstacles: limits of `~/obstacles`.
    """

    def __init__(
        self,
        make: Make,
        settings: NodeSettings,
        keep: Callable[[Estimate], Bool] | None = None,
        T_base_optical: Float64 | None = None,
        obstacles: ObstacleSettings | None = None,
    ) -> None:
        self._make = make
        self._obstacles = obstacles or ObstacleSettings()
        self._settings = settings
        self._keep = keep
        self._extrinsics = T_base_optical if settings.base_frame else None
        self.reset()

    def reset(self) -> None:
        """Forget path and map time."""
        self._path = PathBytes(self._settings.odom_frame, self._settings.max_path)
        self._segment = 0
        self._map_ns: int | None = None

    def snapshot(self) -> dict[str, Any]:
        """What is remembered, for the `restore` of another one: objects that pickle."""
        return {"path": self._path, "segment": self._segment, "map_ns": self._map_ns}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from what `snapshot` gave."""
        self._path, self._segment = snapshot["path"], snapshot["segment"]
        self._map_ns = snapshot["map_ns"]

    def build(
        self, estimate: Estimate, wanted: Container[str], status: RunStatus
    ) -> dict[str, Any]:
        """Messages by topic of `TOPICS`, `~/map` and `~/flow` excepted; only topics in `wanted`
        cost anything. `~/path` is bytes, the message in CDR.

        While LOST or RELOCALIZING there is no tf below odom, no new path pose and no cloud, and
        the odometry's covariance is huge. A new segment begins a new path. `~/obstacles` needs
        metres and a base.
        """
        make, settings = self._make, self._settings
        camera_frame = settings.camera_frame or estimate.source_frame
        header = transforms.header_of(make, estimate.stamp_ns, camera_frame)
        lost = not estimate.tracking_state.has_pose
        T = odom_from_optical(estimate.T_odom_cam, self._extrinsics)
        covariance = np.eye(6) * LOST_VARIANCE if lost else self._pose_covariance(estimate)
        child = settings.base_frame if self._extrinsics is not None else camera_frame
        messages: dict[str, Any] = {}
        if "~/odometry" in wanted:
            messages["~/odometry"] = self._odometry(estimate, child, T, covariance)
        if estimate.segment != self._segment:
            self._path = PathBytes(settings.odom_frame, settings.max_path)
            self._segment = estimate.segment
        if not lost:
            self._path.append(estimate.stamp_ns, T)
        T_map_odom = self._map_to_odom(status)
        if "~/pose" in wanted and T_map_odom is not None and not lost:
            messages["~/pose"] = self._pose_in_map(estimate, T_map_odom, T, covariance)
        stamp_ns, ahead = (estimate.stamp_ns, T) if lost else self._ahead(estimate, T)
        edges = [] if lost or not settings.publish_tf else [self._edge_of(child, ahead)]
        if T_map_odom is not None and settings.publish_map_tf:
            edges.insert(0, (settings.map_frame, settings.odom_frame, T_map_odom))
        if "/tf" in wanted and edges:
            messages["/tf"] = transforms.tf_edges(make, stamp_ns, edges)
        if "~/path" in wanted and len(self._path):
            messages["~/path"] = self._path.message(estimate.stamp_ns)
        if "~/depth/image" in wanted:
            messages["~/depth/image"] = depth_image(make, header, estimate.depth)
        if "~/depth/camera_info" in wanted:
            messages["~/depth/camera_info"] = info_from_camera(make, header, estimate.camera)
        if "~/confidence" in wanted:
            messages["~/confidence"] = depth_image(make, header, estimate.confidence)
        if "~/moving_mask" in wanted:
            messages["~/moving_mask"] = mask_image(make, header, estimate.moving)
        if "~/points" in wanted and not lost:
            messages["~/points"] = self._points(header, estimate)
        if "~/obstacles" in wanted and not lost:
            messages |= self._obstacle_message(estimate)
        if "~/status" in wanted:
            messages["~/status"] = tracking_status(make, header, estimate, status)
        return messages

    def map_due(self, ns: int) -> bool:
        """Whether `map_period` seconds of image time have passed since the last `map_message` (time
        running backwards counts too)."""
        return self._map_ns is None or not 0 <= ns - self._map_ns < self._settings.map_period * 1e9

    def map_message(self, ns: int, points: Float32, rgb: UInt8, confidence: Float32) -> Any:
        """`~/map` in the odom frame, from map points `[M, 3]` in the optical world, uint8 `[M, 3]`
        and `[M]` in [0, 1]."""
        self._map_ns = ns
        header = transforms.header_of(self._make, ns, self._settings.odom_frame)
        T = self._world_in_odom()
        moved = points @ T[:3, :3].T.astype(np.float32) + T[:3, 3].astype(np.float32)
        return map_cloud(self._make, header, moved, rgb, confidence)

    def _world_in_odom(self) -> Float64:
        """Optical world to odom, for points: the extrinsics, or the bare change of axes."""
        return rigid(R_BODY_OPTICAL, np.zeros(3)) if self._extrinsics is None else self._extrinsics

    def _points(self, header: Any, estimate: Estimate) -> Any:
        keep = self._keep(estimate) if self._keep else None
        if self._settings.points_frame == "camera":
            return estimate_cloud(self._make, header, estimate, keep)
        odom_header = transforms.header_of(self._make, estimate.stamp_ns, self._settings.odom_frame)
        return estimate_cloud(
            self._make, odom_header, estimate, keep, self._world_in_odom() @ estimate.T_odom_cam
        )

    def _obstacle_message(self, estimate: Estimate) -> dict[str, Any]:
        """`~/obstacles`, what moves included; nothing where metres or the base are unknown."""
        base = self._settings.base_frame
        if self._extrinsics is None or why_no_obstacles(estimate, base):
            return {}
        still = replace(estimate, moving=np.zeros_like(estimate.moving))
        header = transforms.header_of(self._make, estimate.stamp_ns, base)
        keep = self._keep(still) if self._keep else None
        cloud = obstacle_cloud(
            self._make, header, estimate, keep, self._extrinsics, self._obstacles
        )
        return {"~/obstacles": cloud}

    def _ahead(self, estimate: Estimate, T: Float64) -> tuple[int, Float64]:
        """Stamp and pose of the tf edge: the image's, or carried ahead of it by `tf_predict`
        seconds of the velocity (none, where that is not known)."""
        ahead = self._settings.tf_predict
        if not ahead:
            return estimate.stamp_ns, T
        moved = estimate.T_odom_cam @ se3_exp(ahead * estimate.twist)
        return estimate.stamp_ns + round(ahead * 1e9), odom_from_optical(moved, self._extrinsics)

    def _edge_of(self, child: str, T: Float64) -> tuple[str, str, Float64]:
        parent = self._settings.odom_frame
        return (child, parent, invert(T)) if self._settings.invert_tf else (parent, child, T)

    def _map_to_odom(self, status: RunStatus) -> Float64 | None:
        """Pose of `odom` in the map frame, whose axes are those of `odom`."""
        if status.T_map_odom is None:
            return None
        world = self._world_in_odom()
        return np.asarray(world @ status.T_map_odom @ invert(world))

    def _pose_in_map(
        self, estimate: Estimate, T_map_odom: Float64, T: Float64, covariance: Float64
    ) -> Any:
        """`~/pose`: the child of `odom` in the map, with the odometry's covariance turned to its
        axes."""
        turn = np.kron(np.eye(2), T_map_odom[:3, :3])
        pose = self._make(
            "geometry_msgs/msg/PoseWithCovariance",
            pose=transforms.pose_of(self._make, T_map_odom @ T),
            covariance=(turn @ covariance @ turn.T).reshape(-1).copy(),
        )
        header = transforms.header_of(self._make, estimate.stamp_ns, self._settings.map_frame)
        return self._make("geometry_msgs/msg/PoseWithCovarianceStamped", header=header, pose=pose)

    def _pose_covariance(self, estimate: Estimate) -> Float64:
        """Covariance `[6, 6]` of the child's pose in odom, what is not known of the unit
        included: all of the camera's way scales with it."""
        covariance = odom_covariance(estimate.covariance, estimate.T_odom_cam, self._extrinsics)
        way = self._world_in_odom()[:3, :3] @ estimate.T_odom_cam[:3, 3]
        return _with_scale(covariance, way, estimate)

    def _odometry(self, estimate: Estimate, child: str, T: Float64, covariance: Float64) -> Any:
        make = self._make
        twist, twist_covariance = self._twist(estimate)
        pose = make(
            "geometry_msgs/msg/PoseWithCovariance",
            pose=transforms.pose_of(make, T),
            covariance=covariance.reshape(-1).copy(),
        )
        velocity = make(
            "geometry_msgs/msg/Twist",
            linear=transforms.vector3(make, twist[:3]),
            angular=transforms.vector3(make, twist[3:]),
        )
        with_covariance = make(
            "geometry_msgs/msg/TwistWithCovariance",
            twist=velocity,
            covariance=twist_covariance.reshape(-1).copy(),
        )
        header = transforms.header_of(make, estimate.stamp_ns, self._settings.odom_frame)
        return make(
            "nav_msgs/msg/Odometry",
            header=header,
            child_frame_id=child,
            pose=pose,
            twist=with_covariance,
        )

    def _twist(self, estimate: Estimate) -> tuple[Float64, Float64]:
        """Velocity `[6]` (linear, angular) of the child in its own axes, as REP-105 wants it, and
        its covariance `[6, 6]`; zero with a huge covariance where it is not known."""
        if not (estimate.tracking_state.has_pose and estimate.twist_covariance.any()):
            return np.zeros(6), np.eye(6) * LOST_VARIANCE
        known = _with_scale(estimate.twist_covariance, estimate.twist[:3], estimate)
        if self._extrinsics is None:
            return estimate.twist, known
        carry = adjoint(self._extrinsics)
        covariance = carry @ known @ carry.T
        return np.asarray(carry @ estimate.twist), np.asarray(0.5 * (covariance + covariance.T))


def _with_scale(covariance: Float64, way: Float64, estimate: Estimate) -> Float64:
    """A covariance `[6, 6]` of something that scales with the unit of the odometry, as `way` `[3]`
    does, with that of the unit: metres are known to `scale_sigma`, other units are exact."""
    if estimate.scale_state is not ScaleState.METRIC:
        return covariance
    grown = covariance.copy()
    grown[:3, :3] += estimate.scale_sigma**2 * np.outer(way, way)
    return grown


def tracking_status(make: Make, header: Any, estimate: Estimate, status: RunStatus) -> Any:
    """`flow3r_ros/TrackingStatus` of an estimate; seam figures are NaN where there was no seam."""
    seam = estimate.seam
    return make(
        "flow3r_ros/msg/TrackingStatus",
        header=header,
        state=_STATES[estimate.tracking_state],
        reason=estimate.reason,
        segment=estimate.segment,
        scale_state=_SCALES[estimate.scale_state],
        scale_sigma=float(estimate.scale_sigma),
        pose_source=estimate.pose_source.value,
        keyframe=bool(estimate.keyframe),
        keyframes=estimate.keyframes,
        loops_closed=status.loops_closed,
        map_to_odom_age=float(status.map_to_odom_age_s),
        frame_id=estimate.frame_id,
        window=np.array(estimate.window, dtype=np.uint64),
        seam_accepted=bool(seam.accepted) if seam else False,
        seam_inliers=float(seam.inliers) if seam else float("nan"),
        seam_residual=float(seam.residual) if seam else float("nan"),
        seam_scale=float(seam.scale) if seam else float("nan"),
        seam_reason=seam.reason if seam else "",
        seams_refused=status.seams_refused,
        latency_ms=float(status.latency_ms),
        age_ms=float(status.age_ms),
        frames_received=status.received,
        frames_estimated=status.estimated,
        drop_reasons=sorted(status.drops),
        drop_counts=np.array(
            [status.drops[reason] for reason in sorted(status.drops)], dtype=np.uint64
        ),
        model=status.model,
        weights_sha256=status.weights_sha256,
        weights_license=status.weights_license,
    )
