"""Bundle adjustment over the last keyframes: poses and inverse depths that explain all dense
correspondences between them.

Every keyframe owns one point per cell of a regular grid, with its inverse depth; every link between
two keyframes observes the points of both. Residuals are in pixels and robust (Cauchy); the depth a
point had before counts as a weak prior, which also holds the scale while few keyframes exist. The
depths are eliminated (Schur complement; Triggs et al., "Bundle Adjustment", 2000, sec. 6.1), so one
iteration solves for six numbers a pose. The oldest keyframes stay fixed: they carry position and
scale on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.correspondence import FLOW_NOISE_PX, Correspondence
from flow3r_ros.geometry.lie import hat, invert, se3_exp
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Camera, Float64

CELL = 12
"""pixels of the depth grid per point and axis"""
CAUCHY = 2.0
"""whitened residuals beyond it are outliers"""
MIN_PRIOR_SIGMA = 0.02
"""relative sigma that no prior goes below: flow errors towards one keyframe are not independent"""
PRIOR_SIGMA = 0.3
"""relative sigma of the inverse depth a point had before the adjustment"""


@dataclass
class Points:
    """Points of one keyframe, one per cell: `rows`, `columns` int `[P]`, `rays` float64 `[P, 3]`
    with z = 1, `inverse` float64 `[P]` inverse depth (median where unknown), `prior` and
    `prior_sigma` `[P]` what the keyframe was inserted with."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    rays: Float64
    inverse: Float64
    prior: Float64
    prior_sigma: Float64


@dataclass(frozen=True)
class _Problem:
    """All observations as arrays over edges `[E, P]`: owner and target keyframe per edge, observed
    pixel rays, weights."""

    owner: NDArray[np.intp]
    target: NDArray[np.intp]
    observed: Float64
    weight: Float64
    rays: Float64
    focal: float


class Bundle:
    """The keyframes' points and links, bounded by the keyframes that are still remembered."""

    def __init__(self) -> None:
        self._points: dict[int, Points] = {}
        self._links: dict[tuple[int, int], Correspondence] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._points.clear()
        self._links.clear()

    def remember(self, forgotten: View, keyframes: list[View]) -> None:
        """Turn what a keyframe that goes says about the points of the others into their prior."""
        views = [view for view in [forgotten, *keyframes] if view.id in self._points]
        problem = self._problem(views)
        if problem is None or views[0] is not forgotten:
            return
        poses, inverse = (
            np.stack([view.pose for view in views]),
            np.stack([self._points[view.id].inverse for view in views]),
        )
        residual, weight, q, relative, _ = _residuals(problem, poses, inverse)
        slope = _slopes(problem, q, relative)
        for e in np.flatnonzero((problem.target == 0) & (problem.owner != 0)):
            points = self._points[views[problem.owner[e]].id]
            information = weight[e] * np.sum(slope[e] ** 2, axis=-1)
            observed = points.inverse - np.sum(slope[e] * residual[e], axis=-1) / np.maximum(
                np.sum(slope[e] ** 2, axis=-1), 1e-12
            )
            total = 1.0 / points.prior_sigma**2 + information
            points.prior = (points.prior / points.prior_sigma**2 + information * observed) / total
            points.prior_sigma = np.maximum(1.0 / np.sqrt(total), MIN_PRIOR_SIGMA * points.inverse)

    def add(self, view: View, links: dict[int, Correspondence], keyframes: list[View]) -> None:
        """Take in a new keyframe and its correspondences from older ones (id -> older to new);
        forget keyframes that are gone.

        What links to a forgotten keyframe said about the depth of the others stays, as their prior
        (marginalisation at fixed poses).
        """
        self._points[view.id] = sample_points(view)
        for id_, correspondence in links.items():
            self._links[(id_, view.id)] = correspondence
        alive = {keyframe.id for keyframe in keyframes}
        self._points = {id_: points for id_, points in self._points.items() if id_ in alive}
        self._links = {
            pair: link
            for pair, link in self._links.items()
            if pair[0] in alive and pair[1] in alive
        }

    def links_of(self, id_: int) -> dict[int, Correspondence]:
        """Correspondences of one keyframe to the others, from it to them."""
        found = {b: link for (a, b), link in self._links.items() if a == id_}
        return found | {a: link.reversed() for (a, b), link in self._links.items() if b == id_}

    def adjust(self, keyframes: list[View], fixed: set[int], iterations: int = 4) -> bool:
        """Refine poses of `keyframes` (oldest first) in place, those with ids in `fixed` excepted;
        False when nothing could be done."""
        views = [view for view in keyframes if view.id in self._points]
        problem = self._problem(views)
        free = np.array([view.id not in fixed for view in views])
        if problem is None or not free.any():
            return False
        points = [self._points[view.id] for view in views]
        poses, inverse = (
            np.stack([view.pose for view in views]),
            np.stack([p.inverse for p in points]),
        )
        prior, prior_weight = (
            np.stack([p.prior for p in points]),
            1.0 / np.stack([p.prior_sigma for p in points]) ** 2,
        )
        damping, cost = 1e-4, _cost(problem, poses, inverse, prior, prior_weight)
        for _ in range(iterations):
            step = _solve(problem, poses, inverse, prior, prior_weight, free, damping)
            if step is None:
                break
            new_poses = poses @ se3_exp_all(step[0])
            new_inverse = np.clip(inverse + step[1], 0.2 * inverse, 5.0 * inverse)
            new_cost = _cost(problem, new_poses, new_inverse, prior, prior_weight)
            if new_cost < cost:
                done = cost - new_cost < 1e-4 * cost
                poses, inverse, cost, damping = (
                    new_poses,
                    new_inverse,
                    new_cost,
                    max(damping * 0.2, 1e-7),
                )
                if done:
                    break
            else:
                damping *= 10.0
        for index, view in enumerate(views):
            points[index].inverse = inverse[index]
            if free[index]:
                view.pose = poses[index]
        return True

    def _problem(self, views: list[View]) -> _Problem | None:
        order = {view.id: index for index, view in enumerate(views)}
        owner, target, observed, weight, rays = [], [], [], [], []
        for (a, b), link in self._links.items():
            if a not in order or b not in order:
                continue
            for first, second, correspondence in ((a, b, link), (b, a, link.reversed())):
                points, view = self._points[first], views[order[first]]
                flow = correspondence.flow[points.rows, points.columns].astype(np.float64)
                focal = np.array([view.camera.fx, view.camera.fy])
                sure = (correspondence.covisibility * correspondence.texture)[
                    points.rows, points.columns
                ].astype(np.float64)
                sure = np.where(
                    (sure > 0.15) & ~view.moving[points.rows, points.columns], sure, 0.0
                )
                owner.append(order[first])
                target.append(order[second])
                observed.append(points.rays[:, :2] + flow / focal)
                weight.append(sure)
                rays.append(points.rays)
        if not owner:
            return None
        camera = views[0].camera
        return _Problem(
            np.array(owner),
            np.array(target),
            np.stack(observed),
            np.stack(weight),
            np.stack(rays),
            float(np.sqrt(camera.fx * camera.fy)),
        )


def sample_points(view: View) -> Points:
    """The best textured pixel of every cell, with the view's inverse depth there (the median where
    it is unknown)."""
    height, width = view.gray.shape
    rows, columns = height // CELL, width // CELL
    cells = (
        view.picture.texture[: rows * CELL, : columns * CELL]
        .reshape(rows, CELL, columns, CELL)
        .swapaxes(1, 2)
    )
    best = cells.reshape(rows * columns, CELL * CELL).argmax(axis=1)
    cell = np.arange(rows * columns)
    row, column = cell // columns * CELL + best // CELL, cell % columns * CELL + best % CELL
    inverse = view.inverse_depth[row, column].astype(np.float64)
    sigma = view.sigma[row, column].astype(np.float64)
    known = np.isfinite(inverse) & (inverse > 0) & np.isfinite(sigma)
    typical = float(np.median(inverse[known])) if known.any() else 1.0
    inverse = np.where(known, inverse, typical)
    return Points(
        row,
        column,
        _rays(view.camera, row, column),
        inverse,
        inverse.copy(),
        np.where(known, PRIOR_SIGMA, 1.0) * inverse,
    )


def se3_exp_all(xi: Float64) -> Float64:
    """`se3_exp` of every row of `[K, 6]`, `[K, 4, 4]`."""
    return np.stack([se3_exp(row) for row in xi])


def _rays(camera: Camera, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Float64:
    return np.stack(
        [(columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy, np.ones(len(rows))],
        axis=1,
    )


def _residuals(
    problem: _Problem, poses: Float64, inverse: Float64
) -> tuple[Float64, Float64, Float64, Float64, Float64]:
    """Whitened residuals `[E, P, 2]`, weights with robustness `[E, P]`, directions q in the target
    `[E, P, 3]`, relative poses, depths."""
    relative = invert(poses[problem.target]) @ poses[problem.owner]
    d = inverse[problem.owner]
    q = (
        problem.rays @ np.swapaxes(relative[:, :3, :3], 1, 2)
        + d[..., None] * relative[:, None, :3, 3]
    )
    front = q[..., 2] > 1e-3
    z = np.where(front, q[..., 2], 1.0)
    residual = (q[..., :2] / z[..., None] - problem.observed) * (problem.focal / FLOW_NOISE_PX)
    residual = np.where(front[..., None], residual, 30.0)
    squared = np.sum(residual * residual, axis=-1)
    weight = problem.weight * front / (1.0 + squared / CAUCHY**2)
    return (
        residual,
        weight,
        np.where(front[..., None], q, np.array([0.0, 0.0, 1.0])),
        relative,
        squared,
    )


def _slopes(problem: _Problem, q: Float64, relative: Float64) -> Float64:
    """Derivative of the whitened residuals with respect to inverse depth, `[E, P, 2]`."""
    gain = problem.focal / FLOW_NOISE_PX / q[..., 2:]
    translation = relative[:, None, :3, 3]
    return np.asarray(
        gain * (translation[..., :2] - q[..., :2] / q[..., 2:] * translation[..., 2:])
    )


def _cost(
    problem: _Problem, poses: Float64, inverse: Float64, prior: Float64, prior_weight: Float64
) -> float:
    squared = _residuals(problem, poses, inverse)[4]
    robust = float(np.sum(problem.weight * CAUCHY**2 * np.log1p(squared / CAUCHY**2)))
    return robust + float(np.sum(prior_weight * (inverse - prior) ** 2))


def _solve(
    problem: _Problem,
    poses: Float64,
    inverse: Float64,
    prior: Float64,
    prior_weight: Float64,
    free: NDArray[np.bool_],
    damping: float,
) -> tuple[Float64, Float64] | None:
    """One damped Gauss-Newton step: pose twists `[K, 6]` (right perturbation) and inverse depth
    changes `[K, P]`."""
    residual, weight, q, relative, _ = _residuals(problem, poses, inverse)
    count, size = poses.shape[0], inverse.shape[1]
    d = inverse[problem.owner][..., None, None]
    gain = problem.focal / FLOW_NOISE_PX / q[..., 2]
    u, v = q[..., 0] / q[..., 2], q[..., 1] / q[..., 2]
    project = np.zeros((*gain.shape, 2, 3))
    project[..., 0, 0], project[..., 1, 1] = gain, gain
    project[..., 0, 2], project[..., 1, 2] = -u * gain, -v * gain
    R = relative[:, None, :3, :3]
    through = project @ R
    jacobian = np.concatenate(
        [d * through, -through @ hat(problem.rays), -d * project, project @ hat(q)], axis=-1
    )
    slope = _slopes(problem, q, relative)
    weighted = jacobian * weight[..., None, None]
    edges = len(problem.owner)
    flat, flat_weighted = jacobian.reshape(edges, -1, 12), weighted.reshape(edges, -1, 12)
    blocks = np.swapaxes(flat_weighted, 1, 2) @ flat
    gradient = (np.swapaxes(flat_weighted, 1, 2) @ residual.reshape(edges, -1, 1))[..., 0]
    mixed = np.einsum("epik,epi->ekp", weighted, slope)
    H, g = np.zeros((count, 6, count, 6)), np.zeros((count, 6))
    W = np.zeros((count, count, 6, size))
    C, h = prior_weight.copy(), prior_weight * (inverse - prior)
    for e, (i, j) in enumerate(zip(problem.owner, problem.target, strict=True)):
        H[i, :, i] += blocks[e, :6, :6]
        H[i, :, j] += blocks[e, :6, 6:]
        H[j, :, i] += blocks[e, 6:, :6]
        H[j, :, j] += blocks[e, 6:, 6:]
        g[i] += gradient[e, :6]
        g[j] += gradient[e, 6:]
        W[i, i] += mixed[e, :6]
        W[i, j] += mixed[e, 6:]
        C[i] += weight[e] * np.sum(slope[e] ** 2, axis=-1)
        h[i] += weight[e] * np.sum(slope[e] * residual[e], axis=-1)
    C = C * (1.0 + damping)
    full, couple = H.reshape(6 * count, 6 * count), W.reshape(count, 6 * count, size)
    scaled = couple / C[:, None, :]
    reduced = full - np.einsum("kap,kbp->ab", scaled, couple, optimize=True)
    right = g.reshape(-1) - np.einsum("kap,kp->a", scaled, h)
    mask = np.repeat(free, 6)
    matrix = reduced[np.ix_(mask, mask)]
    matrix = matrix + damping * np.diag(np.diag(full)[mask] + 1e-9)
    try:
        solved = np.linalg.solve(matrix, -right[mask])
    except np.linalg.LinAlgError:
        return None
    step = np.zeros(6 * count)
    step[mask] = solved
    depths = -(h + np.einsum("kap,a->kp", couple, step)) / C
    return step.reshape(count, 6), depths
