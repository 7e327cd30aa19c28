"""What classical geometry knows about a window, laid out for small networks.

Ten planes a frame at half of the network's grid, all independent of resolution and of the
odometry's unit:

    0-1  rays x/z, y/z                       6  covisibility with the previous frame
    2    log depth, normalised; 0 = unknown  7-8  flow to the next frame
    3    its confidence, 0..1                9  covisibility with the next frame
    4-5  flow to the previous frame (pixels / focal length)

Odometry hands in what it has anyway (`build_evidence`); training and tests start from images
(`evidence_from_images`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from flow3r_ros.geometry.camera import rays, scaled
from flow3r_ros.geometry.correspondence import Correspondence, Matcher
from flow3r_ros.geometry.depth_map import HALF_SIGMA, DepthMap
from flow3r_ros.geometry.lie import invert
from flow3r_ros.geometry.robust import weighted_median
from flow3r_ros.geometry.two_view import PairPose, hybrid_pose, triangulate
from flow3r_ros.types import Camera, Evidence, Float32, Float64, PoseSource, UInt8

CHANNELS = 10


def build_evidence(
    camera: Camera,
    poses: Float64,
    depths: Sequence[DepthMap | None],
    flows_prev: Sequence[Correspondence | None],
    flows_next: Sequence[Correspondence | None],
    grid: tuple[int, int],
) -> Evidence:
    """Evidence of a window of N frames, oldest first.

    Args:
        camera: pinhole of all frames, at any size.
        poses: camera-to-world `[N, 4, 4]` of the prior, one unit with the depths.
        depths: per frame; None = unknown.
        flows_prev, flows_next: correspondence of each frame to its neighbour in the window; None at
            the ends or where unknown.
        grid: (w, h) of the network's input, multiples of the patch; the planes are `[N, CHANNELS, h
            / 2, w / 2]`.

    ValueError when the sequences differ in length.
    """
    if not len(poses) == len(depths) == len(flows_prev) == len(flows_next):
        raise ValueError(
            f"{len(poses)} poses, {len(depths)} depths, {len(flows_prev)} and "
            f"{len(flows_next)} flows do not fit"
        )
    width, height = grid[0] // 2, grid[1] // 2
    planes = np.zeros((len(poses), CHANNELS, height, width), dtype=np.float32)
    planes[:, 0:2] = rays(scaled(camera, width, height)).transpose(2, 0, 1)
    for index, (depth, previous, following) in enumerate(
        zip(depths, flows_prev, flows_next, strict=True)
    ):
        if depth is not None:
            planes[index, 2], planes[index, 3] = _pooled_log_depth(depth, width, height)
        for channel, correspondence in ((4, previous), (7, following)):
            if correspondence is not None:
                planes[index, channel : channel + 3] = _pooled_flow(
                    correspondence, camera, width, height
                )
    known = planes[:, 3] > 0
    log_scale = weighted_median(planes[:, 2][known], planes[:, 3][known])
    planes[:, 2] = np.where(known, np.clip(planes[:, 2] - log_scale, -4.0, 4.0), 0.0)
    scale = float(np.exp(log_scale))
    relative = invert(poses[0]) @ poses
    relative[:, :3, 3] /= scale
    return Evidence(planes, relative, scale)


def _pooled_log_depth(depth: DepthMap, width: int, height: int) -> tuple[Float32, Float32]:
    """Confidence-weighted mean of log depth, and mean confidence, on the smaller grid."""
    metres = depth.depth()
    known = np.isfinite(metres)
    weight = np.where(known, depth.confidence(), 0.0).astype(np.float32)
    logs = np.log(np.where(known, metres, 1.0)).astype(np.float32)
    pooled = cv2.resize(
        np.dstack([weight * logs, weight]), (width, height), interpolation=cv2.INTER_AREA
    )
    confidence = pooled[..., 1]
    confident = confidence > 0.01
    mean = np.where(confident, pooled[..., 0] / np.where(confident, confidence, 1.0), 0.0)
    return mean.astype(np.float32), np.where(confident, confidence, 0.0).astype(np.float32)


def _pooled_flow(
    correspondence: Correspondence, camera: Camera, width: int, height: int
) -> Float32:
    """Flow in ray units and covisibility, `[3, height, width]`."""
    h, w = correspondence.covisibility.shape
    per_ray = np.array(
        [camera.width / (w * camera.fx), camera.height / (h * camera.fy)], dtype=np.float32
    )
    stacked = np.dstack([correspondence.flow * per_ray, correspondence.covisibility])
    return np.asarray(
        cv2.resize(stacked, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32
    ).transpose(2, 0, 1)


def evidence_from_images(
    grays: Sequence[UInt8], camera: Camera, matcher: Matcher, grid: tuple[int, int]
) -> Evidence:
    """Evidence of a window from images alone: consecutive flow, two-view poses chained by depth,
    triangulated depth.

    `grays` uint8 `[h, w]` of one size from `matcher.prepare`; `camera` the pinhole at any size. The
    first pair with parallax has a baseline of length 1 before normalisation.
    """
    height, width = grays[0].shape
    small = scaled(camera, width, height)
    steps = [matcher.flow(a, b) for a, b in pairwise(grays)]
    poses, depths = chain_two_view(steps, small)
    previous = [None, *[step.reversed() for step in steps]]
    return build_evidence(camera, poses, depths, previous, [*steps, None], grid)


def chain_two_view(
    steps: Sequence[Correspondence], camera: Camera
) -> tuple[Float64, list[DepthMap | None]]:
    """Poses `[N, 4, 4]` (first identity) and fused depth of N frames from N - 1 consecutive
    correspondences.

    `camera` is the pinhole of the correspondence grid. The scale is carried from pair to pair by
    the depth of the shared frame; where that fails the last step's length is kept.
    """
    poses = [np.eye(4)]
    estimates: list[list[DepthMap]] = [[] for _ in range(len(steps) + 1)]
    length = 1.0
    for index, step in enumerate(steps):
        shared = _fused(estimates[index])
        pair = hybrid_pose(step, camera, None if shared is None else shared.depth())
        T = _with_length(pair, length)
        moved = float(np.linalg.norm(T[:3, 3]))
        poses.append(poses[-1] @ T)
        if moved > 1e-9:
            length = moved
            estimates[index].append(triangulate(step, camera, T))
            estimates[index + 1].append(triangulate(step.reversed(), camera, invert(T)))
    return np.stack(poses), [_fused(both) for both in estimates]


def _with_length(pair: PairPose, length: float) -> Float64:
    """The pair's pose; where its translation has no known length, that of the last step."""
    T = pair.T.copy()
    if not pair.scaled and pair.source is not PoseSource.STATIONARY:
        norm = float(np.linalg.norm(T[:3, 3]))
        T[:3, 3] *= length / norm if norm > 1e-9 else 0.0
    return T


def _fused(estimates: Sequence[DepthMap]) -> DepthMap | None:
    """Inverse-variance mean of one or two triangulations of a frame; where they disagree the surer
    one, at half its confidence."""
    if len(estimates) < 2:
        return estimates[0] if estimates else None
    first, other = estimates
    a, b = np.isfinite(first.inverse), np.isfinite(other.inverse)
    with np.errstate(invalid="ignore", divide="ignore"):
        wa = np.where(a, 1.0 / first.sigma**2, 0.0)
        wb = np.where(b, 1.0 / other.sigma**2, 0.0)
        apart = np.abs(first.inverse - other.inverse)
        spread = np.hypot(first.sigma, other.sigma)
        clash = a & b & (apart > 3.0 * spread + 0.1 * first.inverse)
        wa, wb = np.where(clash & (wa < wb), 0.0, wa), np.where(clash & (wb <= wa), 0.0, wb)
        total = wa + wb
        mean = np.where(wa > 0, wa * first.inverse, 0.0) + np.where(wb > 0, wb * other.inverse, 0.0)
        inverse = mean / total
        # confidence 1 / (1 + x^2) is halved by x^2 -> 1 + 2 x^2
        doubt = 1.0 / total + (HALF_SIGMA * inverse) ** 2
        variance = 1.0 / total + np.where(clash, doubt, 0.0)
    fused = DepthMap(inverse.astype(np.float32), np.sqrt(variance).astype(np.float32))
    return fused.where(np.asarray(a | b))
