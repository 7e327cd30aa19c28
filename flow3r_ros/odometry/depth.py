"""Inverse depth with its sigma on the depth grid: from the network, from keyframes through flow,
from triangulation, fused.

All maps are float32 `[h, w]` in 1 / odometry unit; NaN with sigma inf means unknown. Everything
here is closed form and vectorised, because it runs on every frame.
"""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np

from flow3r_ros.geometry.camera_pose import DepthPoints
from flow3r_ros.geometry.completion import fill_depth
from flow3r_ros.geometry.correspondence import Correspondence
from flow3r_ros.geometry.depth_map import DepthMap, relative_sigma, unknown
from flow3r_ros.geometry.flow import pixel_grid, sample, squared_length
from flow3r_ros.geometry.lie import invert
from flow3r_ros.geometry.triangulation import triangulate
from flow3r_ros.types import Bool, Camera, Float32, Float64, UInt8

SUREST, LEAST_SURE = 0.98, 0.02
"""bounds of the probability that a network may claim for a depth: relative sigmas of 2 % and 1"""
SIGMA_FLOOR = 0.01
"""relative sigma below which no triangulated depth is believed: flow errors of neighbouring frames
are not independent"""
MIN_TEXTURE = 0.1
"""texture below which dense flow is a guess and nothing is triangulated"""
ROUNDS = 3
"""of that search"""
CLOSED_PX = 1.0
"""pixels within which the search for where a pixel came from must close"""
AVERAGED = 0.3
"""how much a smooth field is wrong over what the pixels claim that it is drawn through: what is
their own of it averages out (.3, .5 and 1 tried on six factory clips and RedKitchen)"""
_NO_MAP = np.empty((0, 0), dtype=np.float32)
GATE = 3.0
"""sources that differ by more than this many sigmas are not averaged: the surer one wins"""


def from_network(
    depth: Float32, confidence: Float32, scale: float, width: int, height: int
) -> DepthMap:
    """The network's depth `[h', w']` times `scale` on the depth grid; its sigma follows from its
    confidence, the probability that it is within 10 %.

    Interpolates inverse depth; invalid pixels (not finite, not in front of the camera, no
    confidence) stay unknown.
    """
    valid = np.isfinite(depth) & (depth > 0) & (confidence > 0)
    inverse = np.where(valid, 1.0 / (np.where(valid, depth, 1.0) * scale), 0.0).astype(np.float32)
    mask = valid.astype(np.float32)
    weight = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
    large = cv2.resize(inverse, (width, height), interpolation=cv2.INTER_LINEAR)
    sure = cv2.resize(
        np.where(valid, confidence, 0.0).astype(np.float32),
        (width, height),
        interpolation=cv2.INTER_LINEAR,
    )
    known = weight > 0.5
    safe = np.where(known, weight, 1.0)
    rho = np.where(known, large / safe, np.nan).astype(np.float32)
    chance = np.clip(sure / safe, LEAST_SURE, SUREST).astype(np.float32)
    sigma = np.where(known, rho * relative_sigma(chance), np.inf).astype(np.float32)
    return DepthMap(rho, sigma)


def triangulated(correspondence: Correspondence, camera: Camera, T_a_b: Float64) -> DepthMap:
    """Map of image a from the correspondence a -> b and the pose of b in a; unknown where nothing
    could be triangulated."""
    found = triangulate(correspondence, camera, T_a_b)
    sigma = np.hypot(found.sigma, SIGMA_FLOOR * found.inverse)
    known = np.isfinite(found.inverse) & (correspondence.texture > MIN_TEXTURE)
    return DepthMap(found.inverse, sigma).where(known)


def carry(source: DepthMap, T_a_b: Float64, camera: Camera) -> tuple[DepthMap, Float32]:
    """a's map seen from b, whose pose in a is `T_a_b`: where each pixel of b came from is found by
    fixed-point iteration over the displacement that a's own depth causes, beside that of the whole
    picture.

    Returns the map, unknown where b looks beyond a and where a hides what b sees (the iteration
    does not close), and float32 `[h, w, 2]` the pixel of a that each pixel of b came from.
    """
    height, width = source.inverse.shape
    T = invert(T_a_b).astype(np.float32)
    x = ((np.arange(width) - camera.cx) / camera.fx).astype(np.float32)[None, :]
    y = ((np.arange(height) - camera.cy) / camera.fy).astype(np.float32)[:, None]
    known = np.isfinite(source.inverse) & np.isfinite(source.sigma)
    rho = np.where(known, source.inverse, np.float32(0))
    tx, ty, tz = (T[i, 0] * x + T[i, 1] * y + T[i, 2] for i in range(3))
    z = tz + rho * T[2, 3]
    front = z > 1e-3
    safe = np.where(front, z, np.float32(1))
    moved = np.empty((height, width, 2), np.float32)
    moved[..., 0] = np.float32(camera.fx) * (tx + rho * T[0, 3]) / safe + np.float32(camera.cx)
    moved[..., 1] = np.float32(camera.fy) * (ty + rho * T[1, 3]) / safe + np.float32(camera.cy)
    back = _straightened(T, float(np.median(rho[known][::7])) if known.any() else 0.0, camera)
    grid = pixel_grid(width, height)
    target = np.asarray(cv2.transform(grid, back), np.float32)
    shift = np.asarray(cv2.transform(moved, back), np.float32)
    shift -= grid
    at = target.copy()
    for _ in range(ROUNDS):
        gap = sample(shift, at)
        np.subtract(target, gap, out=gap)
        gap -= at
        at += gap
    slope = np.abs(tz) / (safe * safe)
    good = (known & front).astype(np.float32)
    planes = cv2.merge([rho / safe * good, np.where(known, source.sigma, 0) * slope * good, good])
    seen = cv2.remap(planes, at, _NO_MAP, cv2.INTER_LINEAR, borderValue=(0.0, 0.0, 0.0))
    inverse, sigma, share = (np.asarray(plane, np.float32) for plane in cv2.split(seen))
    full = (share > 0.99) & (squared_length(gap) < CLOSED_PX**2) & (inverse > 0)
    nan, inf = np.float32(np.nan), np.float32(np.inf)
    map_ = DepthMap(np.where(full, inverse, nan), np.where(full, sigma, inf))
    return map_, at


def _straightened(T_b_a: Float32, inverse: float, camera: Camera) -> Float64:
    """Affine map `[2, 3]` that takes pixels of b about to where they lie in a, for what lies
    straight ahead of a at an `inverse` depth: a turned or upside-down camera moves pixels too far
    for a fixed point. The identity where b does not see that."""
    corner = np.array([camera.width / 2, camera.height / 2], np.float32)
    span = camera.width / 8
    pixels = corner + np.array([[0, 0], [span, 0], [0, span]], np.float32)
    x = (pixels - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    q = np.column_stack([x, np.ones(3)]) @ T_b_a[:3, :3].T + inverse * T_b_a[:3, 3]
    identity = np.eye(2, 3)
    if not (q[:, 2] > 0.1).all():
        return identity
    seen = q[:, :2] / q[:, 2:] * [camera.fx, camera.fy] + [camera.cx, camera.cy]
    if not abs(float(np.linalg.det(seen[1:] - seen[0]))) > (0.1 * span) ** 2:
        return identity
    map_ = cv2.getAffineTransform(seen.astype(np.float32), pixels.astype(np.float32))
    return np.asarray(map_, np.float64)


def fuse(maps: list[DepthMap]) -> DepthMap:
    """Mean in inverse depth by information, as sure as the surer source: they share poses and flow,
    and the network had the others as evidence, so agreement proves nothing. Where two contradict
    each other by more than `GATE` sigmas the surer one stays."""
    rho, information = _information(maps[0])
    for other in maps[1:]:
        b, more = _information(other)
        both, gap = information + more, rho - b
        mean = (rho * information + b * more) / np.maximum(both, np.float32(1e-30))
        clash = (gap * information) * (gap * more) > GATE**2 * both
        if clash.any():
            mean = np.where(clash, np.where(more > information, b, rho), mean)
        rho, information = mean, np.maximum(information, more)
    known = information > 0
    with np.errstate(divide="ignore"):
        sigma = 1.0 / np.sqrt(information)
    return DepthMap(np.where(known, rho, np.float32(np.nan)), sigma.astype(np.float32, copy=False))


def _information(map_: DepthMap) -> tuple[Float32, Float32]:
    """Inverse depth (0 where unknown) and 1 / variance (0 where unknown)."""
    known = np.isfinite(map_.inverse) & np.isfinite(map_.sigma)
    zero = np.float32(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(known, map_.inverse, zero), np.where(
            known, 1.0 / (map_.sigma * map_.sigma), zero
        )


def fit_to(source: DepthMap, target: DepthMap) -> DepthMap:
    """`source` brought onto `target` by scale and shift in inverse depth, robustly, where both are
    known; its sigma is what it was or, where that is more, what the two differ by.

    The shift is fitted only where it is observable and is kept small by a prior; with too little in
    common the source returns as is.
    """
    both = (
        np.isfinite(source.inverse)
        & np.isfinite(target.inverse)
        & (target.sigma < 0.3 * target.inverse)
        & (source.inverse > 0)
    )
    if np.count_nonzero(both) < max(200, both.size // 50):
        return source
    x, y, sigma = (
        array[both][::7].astype(np.float64)
        for array in (source.inverse, target.inverse, target.sigma)
    )
    scale, shift = float(np.exp(np.median(np.log(y / x)))), 0.0
    mean = float(np.median(y))
    for _ in range(8):
        error = y - scale * x - shift
        spread = 1.4826 * float(np.median(np.abs(error))) + 1e-9 * mean
        weight = 1.0 / ((sigma**2 + spread**2) * (1.0 + (error / (2.0 * spread)) ** 2) ** 2)
        sxx, sx, s, sxy, sy = (
            float(np.sum(weight * v)) for v in (x * x, x, np.ones_like(x), x * y, y)
        )
        s_prior = s + 30.0 / (0.1 * mean) ** 2
        determinant = sxx * s_prior - sx * sx
        if determinant <= 0:
            return source
        scale, shift = (sxy * s_prior - sx * sy) / determinant, (sxx * sy - sx * sxy) / determinant
    if not 0.05 < scale < 20.0:
        return source
    differs = 1.4826 * float(np.median(np.abs(y - scale * x - shift) / y))
    rho = scale * source.inverse + shift
    rho = np.where(rho > 0.02 * mean, rho, 0.02 * mean)
    sigma = rho * np.maximum(differs, source.sigma / source.inverse)
    known = np.isfinite(source.inverse)
    return DepthMap(
        np.where(known, rho, np.nan).astype(np.float32),
        np.where(known, sigma, np.inf).astype(np.float32),
    )


def of_points(pixels: Float32, points: DepthPoints, shape: tuple[int, ...]) -> DepthMap:
    """Map of `shape` (h, w) that knows the pixels on and around points at `pixels` `[N, 2]` (x, y)
    of it; where several meet, the surest one's."""
    map_ = unknown(*shape)
    sigma = np.hypot(points.sigma, SIGMA_FLOOR * points.inverse)
    around = np.array(list(product((-1, 0, 1), repeat=2)))
    places = (np.floor(pixels).astype(int)[:, None] + around).reshape(-1, 2)
    which = np.repeat(np.arange(len(points)), len(around))
    inside = np.all((places >= 0) & (places < shape[::-1]), axis=1)
    surest_last = np.argsort(-sigma[which[inside]], kind="stable")
    which = which[inside][surest_last]
    column, row = places[inside][surest_last].T
    map_.inverse[row, column], map_.sigma[row, column] = points.inverse[which], sigma[which]
    return map_


def bent_onto(shape: DepthMap, measured: DepthMap, gray: UInt8, moving: Bool) -> DepthMap:
    """`shape` multiplied by a smooth field that brings it towards what was measured and leaves its
    relief: the ratio of the two is completed along the image's surfaces, and the mean of it and 1
    is taken by what field and shape are sure of.

    Args:
        gray: picture `[h, w]`.
        moving: bool `[h, w]`, pixels that neither give nor take.

    As sure as the surer of the two; where the field does not reach, the shape as it is.
    """
    with np.errstate(invalid="ignore"):
        ratio, error = measured.inverse / shape.inverse, measured.sigma / shape.inverse
        field, error = fill_depth(ratio, error, gray, moving)
        error, own = error / field, shape.sigma / shape.inverse
        gain = own**2 / (own**2 + (AVERAGED * error) ** 2)
        reached = np.isfinite(field) & np.isfinite(shape.inverse)
        inverse = np.where(reached, shape.inverse * field**gain, shape.inverse)
        sigma = np.where(reached, inverse * np.fmin(error, own), shape.sigma)
    return DepthMap(inverse, sigma)
