"""Depth from one correspondence and a known relative pose, what disagrees with it, and the scale
against another depth.

For a ray `x` of a with inverse depth d, b sees `R x + d t`; d has a closed form, its noise follows
from how far the point moves in the image per unit of d. Motion across the epipolar line cannot be
depth: it is noise or an independently moving object.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flow3r_ros.geometry.correspondence import FLOW_NOISE_PX, Correspondence
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.flow import geometric_flow, squared_length
from flow3r_ros.geometry.lie import invert
from flow3r_ros.types import Bool, Camera, Float32, Float64

MAX_ACROSS_PX = 2.0
"""pixels of the correspondence grid off its epipolar line beyond which a match is not one"""


def triangulate(correspondence: Correspondence, camera: Camera, T_a_b: Float64) -> DepthMap:
    """Depth map of image a, in the unit of `T_a_b`'s translation.

    `camera` is the pinhole of the correspondence grid; `T_a_b` maps points of b to a. Unknown where
    a point is not covisible, behind a camera, off its epipolar line by more than `MAX_ACROSS_PX`,
    or where its depth is not known to within a factor of two.
    """
    depth, sigma, _ = _solve(correspondence, camera, T_a_b, MAX_ACROSS_PX)
    return DepthMap(np.float32(1.0) / depth, sigma)


def _solve(
    correspondence: Correspondence, camera: Camera, T_a_b: Float64, max_residual_px: float
) -> tuple[Float32, Float32, Float32]:
    height, width = correspondence.covisibility.shape
    T = invert(T_a_b).astype(np.float32)
    x = ((np.arange(width) - camera.cx) / camera.fx).astype(np.float32)[None, :]
    y = ((np.arange(height) - camera.cy) / camera.fy).astype(np.float32)[:, None]
    u = x + correspondence.flow[..., 0] / np.float32(camera.fx)
    v = y + correspondence.flow[..., 1] / np.float32(camera.fy)
    rx, ry, rz = (T[i, 0] * x + T[i, 1] * y + T[i, 2] for i in range(3))
    ax, ay = T[0, 3] - u * T[2, 3], T[1, 3] - v * T[2, 3]
    bx, by = u * rz - rx, v * rz - ry
    baseline2 = ax * ax + ay * ay + np.float32(1e-18)
    d = (ax * bx + ay * by) / baseline2
    z = rz + d * T[2, 3]
    front = (d > 0) & (z > 1e-6)
    safe = np.where(front, z, np.float32(1.0))
    focal = np.float32(np.sqrt(camera.fx * camera.fy))
    across = focal * np.abs(ax * by - ay * bx) / (np.sqrt(baseline2) * safe)
    gain = (
        focal
        * np.sqrt((T[0, 3] * rz - T[2, 3] * rx) ** 2 + (T[1, 3] * rz - T[2, 3] * ry) ** 2)
        / (safe * safe)
    )
    sigma = np.float32(FLOW_NOISE_PX) / (
        gain * np.sqrt(np.maximum(correspondence.covisibility, 1e-3)) + np.float32(1e-12)
    )
    good = front & correspondence.covisible & (across < max_residual_px) & (sigma < 0.5 * d)
    nan = np.float32(np.nan)
    depth = np.where(good, 1.0 / np.where(good, d, 1.0), nan).astype(np.float32)
    return (
        depth,
        np.where(good, sigma, nan).astype(np.float32),
        np.where(front, across, nan).astype(np.float32),
    )


def moving_mask(
    correspondence: Correspondence,
    camera: Camera,
    T_a_b: Float64,
    depth_a: Float32 | None = None,
) -> Bool:
    """Pixels of a that move independently of the camera, bool `[h, w]`.

    Covisible and textured pixels whose flow leaves its epipolar line, needs a negative depth, or
    (with `depth_a` `[h, w]`, in the unit of the translation) disagrees with the depth by more than
    twice `MAX_ACROSS_PX` and 60 % of what motion in depth explains; opened and closed, so that
    single pixels neither count nor leave holes. Looked at on every second pixel.
    """
    height, width = correspondence.covisibility.shape
    coarse, camera, depth_a = _every_second(correspondence, camera, depth_a)
    threshold_px = 0.5 * MAX_ACROSS_PX
    trusted = coarse.covisible & (coarse.texture > 0.2)
    rotation = np.eye(4)
    rotation[:3, :3] = T_a_b[:3, :3]
    at_infinity, _ = geometric_flow(np.ones_like(coarse.covisibility), rotation, camera, camera)
    parallax2 = squared_length(coarse.flow - at_infinity)
    if float(np.linalg.norm(T_a_b[:3, 3])) < 1e-9:
        moving = parallax2 > (1.5 * threshold_px) ** 2
    else:
        _, _, across = _solve(coarse, camera, T_a_b, threshold_px)
        moving = (across > threshold_px) | (
            np.isnan(across) & (parallax2 > (1.5 * threshold_px) ** 2)
        )
        if depth_a is not None:
            rigid, _ = geometric_flow(depth_a, T_a_b, camera, camera)
            gap2 = squared_length(coarse.flow - rigid)
            known = np.isfinite(depth_a) & (depth_a > 0)
            longer2 = np.maximum(parallax2, squared_length(rigid - at_infinity))
            moving |= known & (gap2 > (2.0 * threshold_px) ** 2) & (gap2 > 0.36 * longer2)
    mask = cv2.morphologyEx(
        (moving & trusted).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)
    )
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST) > 0)


def _every_second(
    correspondence: Correspondence, camera: Camera, depth: Float32 | None
) -> tuple[Correspondence, Camera, Float32 | None]:
    """The same on every second pixel: a mask is smoother than that, and this runs on every
    frame."""
    c = correspondence
    maps = [
        np.ascontiguousarray(part[::2, ::2])
        for part in (c.covisibility, c.texture, c.backward_covisibility, c.backward_texture)
    ]
    flows = [part[::2, ::2] * np.float32(0.5) for part in (c.flow, c.backward)]
    half = Camera(
        maps[0].shape[1],
        maps[0].shape[0],
        camera.fx / 2,
        camera.fy / 2,
        camera.cx / 2,
        camera.cy / 2,
    )
    small = None if depth is None else np.ascontiguousarray(depth[::2, ::2])
    return Correspondence(flows[0], maps[0], maps[1], flows[1], maps[2], maps[3]), half, small


@dataclass(frozen=True)
class ScaleRatio:
    """Robust ratio of two depths: `scale` = reference / triangulated, `spread` the MAD-sigma of its
    logarithm, `share` of samples within 25 %, `count` samples."""

    scale: float
    spread: float
    share: float
    count: int


def scale_ratio(reference: Float64, triangulated: Float64, weight: Float64) -> ScaleRatio | None:
    """Weighted median of `reference / triangulated` (both `[n]`, same points); None with fewer than
    20 usable samples."""
    usable = (
        np.isfinite(reference)
        & np.isfinite(triangulated)
        & (reference > 0)
        & (triangulated > 0)
        & (weight > 0)
    )
    if int(usable.sum()) < 20:
        return None
    logs, w = np.log(reference[usable] / triangulated[usable]), weight[usable]
    order = np.argsort(logs)
    half = np.searchsorted(np.cumsum(w[order]), 0.5 * w.sum())
    centre = float(logs[order][min(int(half), len(logs) - 1)])
    deviation = np.abs(logs - centre)
    share = float(np.sum(w * (deviation < 0.25)) / w.sum())
    return ScaleRatio(float(np.exp(centre)), 1.4826 * float(np.median(deviation)), share, len(logs))
