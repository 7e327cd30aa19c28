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
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from flow3r_ros.geometry.camera import rays, scaled
from flow3r_ros.geometry.correspondence import Correspondence, Matcher
from flow3r_ros.geometry.lie import invert
from flow3r_ros.geometry.two_view import PairPose, hybrid_pose, triangulate
from flow3r_ros.types import Camera, Evidence, Float32, Float64, PoseSource, UInt8

CHANNELS = 10
_RELATIVE_SIGMA = 0.15
"""relative depth error at which confidence is one half"""


@dataclass(frozen=True)
class DepthMap:
    """Depth of one frame on any grid: `depth` float32 `[h, w]` (nan = unknown), `confidence`
    float32 `[h, w]` in 0..1."""

    depth: Float32
    confidence: Float32


def depth_confidence(depth: Float32, inverse_sigma: Float32) -> Float32:
    """Confidence `[h, w]` in 0..1 from depth and the 1-sigma of its inverse (`triangulate`); 0
    where unknown."""
    relative = inverse_sigma * depth
    return np.asarray(
        np.nan_to_num(1.0 / (1.0 + (relative / _RELATIVE_SIGMA) ** 2), nan=0.0), dtype=np.float32
    )


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
    log_scale = _weighted_median(planes[:, 2], planes[:, 3])
    planes[:, 2] = np.where(planes[:, 3] > 0, np.clip(planes[:, 2] - log_scale, -4.0, 4.0), 0.0)
    scale = float(np.exp(log_scale))
    relative = invert(poses[0]) @ poses
    relative[:, :3, 3] /= scale
    return Evidence(planes, relative, scale)


def _pooled_log_depth(depth: DepthMap, width: int, height: int) -> tuple[Float32, Float32]:
    """Confidence-weighted mean of log depth, and mean confidence, on the smaller grid."""
    known = np.isfinite(depth.depth) & (depth.depth > 0)
    weight = np.where(known, depth.confidence, 0.0).astype(np.float32)
    logs = np.log(np.where(known, depth.depth, 1.0)).astype(np.float32)
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


def _weighted_median(values: Float32, weight: Float32) -> float:
    known = weight > 0
    if not known.any():
        return 0.0
    v, w = values[known], weight[known]
    order = np.argsort(v)
    total = np.cumsum(w[order])
    return float(v[order][min(int(np.searchsorted(total, 0.5 * total[-1])), len(v) - 1)])


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
    estimates: list[list[tuple[Float32, Float32]]] = [[] for _ in range(len(steps) + 1)]
    length = 1.0
    for index, step in enumerate(steps):
        shared = _fused(estimates[index])
        pair = hybrid_pose(step, camera, None if shared is None else shared.depth)
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


def _fused(estimates: Sequence[tuple[Float32, Float32]]) -> DepthMap | None:
    """Inverse-variance mean of one or two triangulations of a frame; where they disagree the surer
    one, at half confidence."""
    if not estimates:
        return None
    depth, sigma = estimates[0]
    if len(estimates) == 1:
        return DepthMap(depth, depth_confidence(depth, sigma))
    other, other_sigma = estimates[1]
    a, b = np.isfinite(depth), np.isfinite(other)
    with np.errstate(invalid="ignore", divide="ignore"):
        wa = np.where(a, 1.0 / sigma**2, 0.0)
        wb = np.where(b, 1.0 / other_sigma**2, 0.0)
        clash = (
            a
            & b
            & (np.abs(1.0 / depth - 1.0 / other) > 3.0 * np.hypot(sigma, other_sigma) + 0.1 / depth)
        )
        wa, wb = np.where(clash & (wa < wb), 0.0, wa), np.where(clash & (wb <= wa), 0.0, wb)
        inverse = (np.where(wa > 0, wa / depth, 0.0) + np.where(wb > 0, wb / other, 0.0)) / (
            wa + wb
        )
        fused, spread = (
            (1.0 / inverse).astype(np.float32),
            (1.0 / np.sqrt(wa + wb)).astype(np.float32),
        )
    known = a | b
    confidence = depth_confidence(
        np.where(known, fused, np.nan).astype(np.float32), spread
    ) * np.where(clash, 0.5, 1.0)
    return DepthMap(
        np.where(known, fused, np.nan).astype(np.float32), confidence.astype(np.float32)
    )
