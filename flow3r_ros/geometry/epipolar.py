"""Epipolar geometry of two pinhole views: matches from a flow field, the Sampson error, and its
robust minimisation.

`T_b_a = [R | t]` maps points of a to b here, `x_b^T [t]x R x_a = 0`. Residuals are in pixels of the
correspondence grid. Sampson error: Hartley & Zisserman, 11.4.3; the minimiser is
Levenberg-Marquardt over rotation (3) and translation direction (2) with analytic Jacobians and a
Cauchy loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flow3r_ros.geometry.correspondence import Correspondence
from flow3r_ros.geometry.lie import hat, so3_exp
from flow3r_ros.types import Camera, Float64

SHARP_PX = 0.25
"""px; scale of the final fit: systematic errors of dense flow (1-2 px) must not pull it (KITTI: 0.6
against 2.2 degrees at 1 px)"""
WIDE_PX = 1.0
"""px; scale of the first fit and of reported costs"""


@dataclass(frozen=True)
class Matches:
    """Point matches as rays with z = 1: `rays_a`, `rays_b` `[n, 3]`, `weight` `[n]` in 0..1,
    `rows`, `columns` int `[n]` of the pixel in a, `focal` in pixels of the grid."""

    rays_a: Float64
    rays_b: Float64
    weight: Float64
    rows: np.ndarray[tuple[int], np.dtype[np.intp]]
    columns: np.ndarray[tuple[int], np.dtype[np.intp]]
    focal: float

    def __len__(self) -> int:
        return len(self.weight)

    def thinned(self, count: int) -> Matches:
        """At most about `count` of the matches, evenly taken."""
        step = max(1, round(len(self) / count))
        keep = slice(None, None, step)
        return Matches(
            self.rays_a[keep],
            self.rays_b[keep],
            self.weight[keep],
            self.rows[keep],
            self.columns[keep],
            self.focal,
        )


def select_matches(correspondence: Correspondence, camera: Camera, count: int = 1500) -> Matches:
    """Covisible, textured pixels of a regular grid of about `count` nodes (every match of a sparse
    correspondence).

    `camera` is the pinhole of the correspondence grid (`camera.scaled`). A plain grid beats the
    best pixel of each cell, which prefers depth edges (KITTI: 0.6 against 1.0 degrees of
    translation direction).
    """
    reliability = correspondence.covisibility * correspondence.texture
    height, width = reliability.shape
    if correspondence.sparse:
        rows, columns = np.nonzero(reliability > 0.0)
    else:
        step = max(1, round(float(np.sqrt(height * width / count))))
        grid = np.mgrid[step // 2 : height : step, step // 2 : width : step]
        rows, columns = grid[0].ravel(), grid[1].ravel()
    weight = reliability[rows, columns].astype(np.float64)
    good = weight > 0.3
    rows, columns, weight = rows[good], columns[good], weight[good]
    flow = correspondence.flow[rows, columns].astype(np.float64)
    ones = np.ones(len(rows))
    rays_a = np.stack(
        [(columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy, ones], axis=1
    )
    rays_b = np.stack(
        [
            (columns + flow[:, 0] - camera.cx) / camera.fx,
            (rows + flow[:, 1] - camera.cy) / camera.fy,
            ones,
        ],
        axis=1,
    )
    return Matches(rays_a, rays_b, weight, rows, columns, float(np.sqrt(camera.fx * camera.fy)))


def robust_cost(residual: Float64, weight: Float64) -> float:
    """Weighted robust rms in pixels of residuals `[n]` (Cauchy at `WIDE_PX`): grows like the rms,
    hardly feels outliers."""
    return float(
        np.sqrt(
            np.sum(weight * np.log1p((residual / WIDE_PX) ** 2)) / max(float(weight.sum()), 1e-9)
        )
        * WIDE_PX
    )


def sampson_residual(R: Float64, t: Float64, matches: Matches) -> Float64:
    """Sampson distance `[n]` in pixels, signed; the distance at infinite depth where t is zero."""
    length = float(np.linalg.norm(t))
    if length < 1e-9:
        return rotation_residual(R, matches)
    E = hat(t / length) @ R
    line_b, line_a = matches.rays_a @ E.T, matches.rays_b @ E
    error = np.sum(matches.rays_b * line_b, axis=1)
    norm2 = line_b[:, 0] ** 2 + line_b[:, 1] ** 2 + line_a[:, 0] ** 2 + line_a[:, 1] ** 2
    return np.asarray(matches.focal * error / np.sqrt(norm2 + 1e-18))


def rotation_residual(R: Float64, matches: Matches) -> Float64:
    """Distance `[n]` in pixels between the match and where a point at infinity would be."""
    turned = matches.rays_a @ R.T
    return np.asarray(
        matches.focal
        * np.linalg.norm(turned[:, :2] / turned[:, 2:] - matches.rays_b[:, :2], axis=1)
    )


def fit_epipolar(
    R: Float64,
    t: Float64,
    matches: Matches,
    iterations: int = 12,
    scale_px: float = SHARP_PX,
    weight: Float64 | None = None,
) -> tuple[Float64, Float64, Float64]:
    """Refine B starts at once by the robust Sampson error.

    Args:
        R, t: rotations `[B, 3, 3]` and translations `[B, 3]` of any length but zero, as `T_b_a`.
        matches: n matches.
        iterations: Levenberg-Marquardt steps.
        scale_px: Cauchy scale: wide converges from afar, sharp is exact.
        weight: `[n, B]` weights per start instead of those of the matches.

    Returns rotations, unit translations and robust costs `[B]` in px.
    """
    R, t = R.copy(), t / np.linalg.norm(t, axis=1, keepdims=True)
    products = (matches.rays_b[:, :, None] * matches.rays_a[:, None, :]).reshape(-1, 9)
    weight = np.repeat(matches.weight[:, None], len(R), axis=1) if weight is None else weight
    damping = np.full(len(R), 1e-3)
    cost, normal, gradient, basis = _linearise(R, t, matches, products, weight, scale_px)
    for _ in range(iterations):
        damped = normal + damping[:, None, None] * (normal * np.eye(5)) + 1e-9 * np.eye(5)
        step = np.linalg.solve(damped, -gradient[..., None])[..., 0]
        R_new = so3_exp(step[:, :3]) @ R
        t_new = t + (basis @ step[:, 3:, None])[..., 0]
        t_new /= np.linalg.norm(t_new, axis=1, keepdims=True)
        trial = _linearise(R_new, t_new, matches, products, weight, scale_px)
        better = trial[0] < cost
        settled = bool(np.all(np.abs(cost - trial[0]) < 1e-5 * cost))
        R[better], t[better], cost[better] = R_new[better], t_new[better], trial[0][better]
        normal[better], gradient[better], basis[better] = (
            trial[1][better],
            trial[2][better],
            trial[3][better],
        )
        damping = np.where(better, np.maximum(0.2 * damping, 1e-9), np.minimum(10.0 * damping, 1e4))
        if settled:
            break
    return R, t, np.sqrt(cost / np.maximum(weight.sum(axis=0), 1e-9))


def _linearise(
    R: Float64, t: Float64, matches: Matches, products: Float64, weight: Float64, scale_px: float
) -> tuple[Float64, Float64, Float64, Float64]:
    """Robust cost `[B]` (sum), normal matrix `[B, 5, 5]`, gradient `[B, 5]`, tangent basis `[B, 3,
    2]` of the sphere at t.

    Error and both epipolar lines are linear in E, so E and its five derivatives go through the same
    few matrix products.
    """
    starts, n = len(R), len(matches)
    basis = _tangent_basis(t)
    cross = hat(t)[:, None]
    turned = R[:, None]
    stack = np.concatenate(
        [cross @ turned, cross @ hat(np.eye(3)) @ turned, hat(basis.transpose(0, 2, 1)) @ turned],
        axis=1,
    )
    error = (products @ stack.reshape(-1, 9).T).reshape(n, starts, 6)
    lines = [
        (matches.rays_a @ stack[:, :, row].reshape(-1, 3).T).reshape(n, starts, 6) for row in (0, 1)
    ]
    lines += [
        (matches.rays_b @ stack[..., column].reshape(-1, 3).T).reshape(n, starts, 6)
        for column in (0, 1)
    ]
    norm2 = sum((line[..., 0] ** 2 for line in lines), start=np.full((n, starts), 1e-18))
    half_slope = sum(
        (line[..., :1] * line[..., 1:] for line in lines), start=np.zeros((n, starts, 5))
    )
    scale = matches.focal / np.sqrt(norm2)
    residual = scale * error[..., 0]
    J = scale[..., None] * (error[..., 1:] - (error[..., 0] / norm2)[..., None] * half_slope)
    squared = (residual / scale_px) ** 2
    weighted = J * (weight / (1.0 + squared))[..., None]
    normal = weighted.transpose(1, 2, 0) @ J.transpose(1, 0, 2)
    gradient = np.sum(weighted * residual[..., None], axis=0)
    cost = scale_px**2 * np.sum(weight * np.log1p(squared), axis=0)
    return cost, normal, gradient, basis


def _tangent_basis(t: Float64) -> Float64:
    """Two orthonormal directions `[B, 3, 2]` perpendicular to unit vectors `[B, 3]`."""
    helper = np.eye(3)[np.argmin(np.abs(t), axis=1)]
    cross = hat(t)
    first = (cross @ helper[..., None])[..., 0]
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return np.stack([first, (cross @ first[..., None])[..., 0]], axis=2)


def fit_rotation(R: Float64, matches: Matches, iterations: int = 8) -> tuple[Float64, float]:
    """Rotation `[3, 3]` that best explains the matches without any translation, robustly, with its
    robust cost in px.

    The loss starts wide (a quarter of the median residual keeps it convex in practice) and ends at
    1 px.
    """
    for _ in range(iterations):
        turned = matches.rays_a @ R.T
        u, v = turned[:, 0] / turned[:, 2], turned[:, 1] / turned[:, 2]
        rx, ry = (
            matches.focal * (u - matches.rays_b[:, 0]),
            matches.focal * (v - matches.rays_b[:, 1]),
        )
        squared = rx * rx + ry * ry
        scale2 = max(WIDE_PX**2, 0.5 * float(np.median(squared)))
        weight = matches.weight / (1.0 + squared / scale2)
        row_x = matches.focal * np.stack([-u * v, 1 + u * u, -v], axis=1)
        row_y = matches.focal * np.stack([-(1 + v * v), u * v, u], axis=1)
        wx, wy = row_x * weight[:, None], row_y * weight[:, None]
        step = np.linalg.solve(
            wx.T @ row_x + wy.T @ row_y + 1e-6 * np.eye(3), -(wx.T @ rx + wy.T @ ry)
        )
        R = so3_exp(step) @ R
        if float(np.abs(step).max()) < 1e-7:
            break
    return R, robust_cost(rotation_residual(R, matches), matches.weight)


def translation_given_rotation(R: Float64, matches: Matches) -> Float64:
    """Unit translation `[3]` from the epipolar constraint, linear in t once R is known; reweighted;
    sign is left to the caller."""
    turned = matches.rays_a @ R.T
    turned = turned / turned[:, 2:]
    normals = np.cross(turned, matches.rays_b)
    length = np.linalg.norm(normals, axis=1)
    weight = matches.weight.copy()
    t = np.array([0.0, 0.0, 1.0])
    for _ in range(4):
        t = np.linalg.eigh((normals * weight[:, None]).T @ normals)[1][:, 0]
        error = (
            matches.focal
            * np.abs(normals @ t)
            / (length + 1.0 / matches.focal)
            * np.minimum(length * matches.focal, 1.0)
        )
        weight = matches.weight / (1.0 + (error / (float(np.median(error)) + 0.02)) ** 2)
    return np.asarray(t)


def inverse_depths(
    R: Float64, t: Float64, rays_a: Float64, rays_b: Float64
) -> tuple[Float64, Float64]:
    """Inverse depth `[n]` in a (unit 1 / |t|'s unit) by linear triangulation, and the parallax
    `[n]` it causes, in ray units."""
    far = rays_a @ R.T
    baseline = t[:2] - rays_b[:, :2] * t[2]
    offset = rays_b[:, :2] * far[:, 2:] - far[:, :2]
    d = np.sum(baseline * offset, axis=1) / (np.sum(baseline**2, axis=1) + 1e-18)
    parallax = np.linalg.norm(far[:, :2] / far[:, 2:] - rays_b[:, :2], axis=1)
    return np.asarray(d), np.asarray(parallax)
