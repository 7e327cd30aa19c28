"""The recorded bag read back: estimates per stamp, the contract's summary, the error against the
clip's ground truth, the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader

from flow3r_ros.bags.types import ros2_types
from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.odometry_nees import odometry_nees
from flow3r_ros.evaluation.trajectory import evaluate_trajectory
from flow3r_ros.geometry.frames import optical_from_odom
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.offline.bag_recorder import bag_topic
from flow3r_ros.report.page import write_report
from flow3r_ros.report.record import RunRecord
from flow3r_ros.types import Estimate, PoseSource, ScaleState, TrackingState
from flow3r_ros.wire.camera_choice import choose_camera
from flow3r_ros.wire.transforms import matrix_of_pose, stamp_ns
from flow3r_ros.wire.tum import read_tum

PARTS = (
    "~/odometry",
    "~/depth/image",
    "~/depth/camera_info",
    "~/confidence",
    "~/moving_mask",
    "~/points",
    "~/status",
)
STATES, SCALES = tuple(TrackingState), tuple(ScaleState)


def summarize(bag: Path, clip: Path, sent: int, report: Path) -> dict[str, Any]:
    """Write the report and return the summary (contract keys, plus `ate_percent` and the like where
    there is ground truth)."""
    record = RunRecord(f"demo: {clip.resolve().name}")
    statuses: list[Any] = []
    odometry: list[Any] = []
    for parts in _per_stamp(bag):
        statuses.append(parts["~/status"])
        if "~/odometry" in parts:
            odometry.append(parts["~/odometry"])
        if all(part in parts for part in PARTS):
            record.add(_estimate(parts))
    if not statuses:
        raise EvaluationError(
            f"{bag}: the node estimated nothing", "look at the node's log beside the bag"
        )
    summary = _summary(statuses, sent)
    truth = clip / "groundtruth.tum"
    if truth.exists() and len(record) > 2:
        record.reference = read_tum(truth)
        summary |= _errors(record) | {"nees": _nees(odometry, record.reference)}
    record.summary = summary
    write_report(report, record)
    (report.parent / "summary.json").write_text(
        json.dumps(summary, indent=1) + "\n", encoding="utf-8"
    )
    return summary


def _per_stamp(bag: Path) -> Iterator[dict[str, Any]]:
    """Messages of one stamp together, complete when the status, published last, is there."""
    names = {bag_topic(topic): topic for topic in PARTS}
    waiting: dict[int, dict[str, Any]] = {}
    with AnyReader([bag], default_typestore=ros2_types()) as reader:
        connections = [connection for connection in reader.connections if connection.topic in names]
        for connection, _, data in reader.messages(connections):
            message = reader.deserialize(data, connection.msgtype)
            ns = stamp_ns(message.header.stamp)
            waiting.setdefault(ns, {})[names[connection.topic]] = message
            for old in [
                key
                for key, parts in waiting.items()
                if len(parts) == len(PARTS) or key < ns - 2_000_000_000
            ]:
                parts = waiting.pop(old)
                if "~/status" in parts:
                    yield parts
    yield from (parts for _, parts in sorted(waiting.items()) if "~/status" in parts)


def _estimate(parts: dict[str, Any]) -> Estimate:
    """The estimate that these messages were made of, as far as they tell."""
    odometry, status, cloud = parts["~/odometry"], parts["~/status"], parts["~/points"]
    camera = choose_camera(parts["~/depth/camera_info"]).camera
    if camera is None:
        raise EvaluationError("a depth image came without intrinsics")
    shape = (camera.height, camera.width)
    bgr = np.frombuffer(cloud.data, np.uint8).reshape(*shape, cloud.point_step)[..., 12:15]
    return Estimate(
        frame_id=int(status.frame_id),
        stamp_ns=stamp_ns(status.header.stamp),
        source_frame=status.header.frame_id,
        T_odom_cam=optical_from_odom(matrix_of_pose(odometry.pose.pose)),
        covariance=np.asarray(odometry.pose.covariance).reshape(6, 6),
        depth=np.frombuffer(parts["~/depth/image"].data, np.float32).reshape(shape),
        confidence=np.frombuffer(parts["~/confidence"].data, np.float32).reshape(shape),
        moving=np.frombuffer(parts["~/moving_mask"].data, np.uint8).reshape(shape) > 0,
        rgb=np.ascontiguousarray(bgr[..., ::-1]),
        camera=camera,
        tracking_state=STATES[status.state],
        pose_source=PoseSource(status.pose_source),
        scale_state=SCALES[status.scale_state],
        scale_sigma=float(status.scale_sigma),
        keyframe=bool(status.keyframe),
        window=tuple(int(id_) for id_ in status.window),
        segment=int(status.segment),
        reason=str(status.reason),
    )


def _summary(statuses: list[Any], sent: int) -> dict[str, Any]:
    last = statuses[-1]
    seconds = (stamp_ns(last.header.stamp) - stamp_ns(statuses[0].header.stamp)) * 1e-9
    p50, p95 = np.percentile([status.latency_ms for status in statuses], (50, 95))
    return {
        "frames_sent": sent,
        "frames_in": int(last.frames_received),
        "frames_estimated": int(last.frames_estimated),
        "frames_dropped": dict(zip(last.drop_reasons, map(int, last.drop_counts), strict=True)),
        "seams_refused": int(last.seams_refused),
        "scale_state": SCALES[last.scale_state].value,
        "tracking_states": dict(Counter(STATES[status.state].value for status in statuses)),
        "pose_sources": dict(Counter(status.pose_source for status in statuses)),
        "fps": round((len(statuses) - 1) / seconds, 2) if seconds > 0 else 0.0,
        "latency_ms": {"p50": round(float(p50), 1), "p95": round(float(p95), 1)},
        "model": last.model,
        "weights_sha256": last.weights_sha256,
        "weights_license": last.weights_license,
    }


def _nees(messages: list[Any], reference: Trajectory) -> dict[str, Any]:
    """Whether the covariances that a filter gets hold (`evaluation.odometry_nees`)."""
    stamps = [stamp_ns(message.header.stamp) for message in messages]
    poses = [matrix_of_pose(message.pose.pose) for message in messages]
    vectors = [(m.twist.twist.linear, m.twist.twist.angular) for m in messages]
    twists = [[v.x, v.y, v.z, w.x, w.y, w.z] for v, w in vectors]
    covariances = [
        np.array([part.covariance for part in parts]).reshape(-1, 6, 6)
        for parts in ([m.pose for m in messages], [m.twist for m in messages])
    ]
    published = Trajectory(np.array(stamps, np.int64), np.stack(poses), "odometry")
    return odometry_nees(published, covariances[0], np.array(twists), covariances[1], reference)


def _errors(record: RunRecord) -> dict[str, Any]:
    assert record.reference is not None
    result = evaluate_trajectory(record.trajectory(), record.reference, align="sim3")
    path = float(np.linalg.norm(np.diff(record.reference.poses[:, :3, 3], axis=0), axis=1).sum())
    return {
        "ate_rmse": result["ate_rmse"],
        "ate_percent": 100 * result["ate_rmse"] / path if path else float("nan"),
        "rpe_rot_deg_rmse": result["rpe_rot_deg_rmse"],
        "matched": result["matched"],
        "path_length": path,
    }
