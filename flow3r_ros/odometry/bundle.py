"""Bundle adjustment: keyframe poses and inverse depths that explain all observations between them.

A point has one number, its inverse depth in the keyframe that hosts it; what was known of it before
counts as a prior, which also holds the scale where few keyframes are fixed. Residuals are whitened
pixels with a Cauchy loss. The depths are eliminated (Schur complement; Triggs et al., "Bundle
Adjustment", 2000, sec. 6.1), which for one number a point is a division, so that an iteration
solves for six numbers a free pose, and two for the lens: a camera that turns shows how long it is
and what radial distortion its calibration left, and a few pixels of that at the edge make a
vehicle's steps longer all through a curve.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.lie import hat, invert, rigidified, se3_exp
from flow3r_ros.odometry.views import rays_through, straightened
from flow3r_ros.types import Camera, Float64

CAUCHY = 2.0
"""whitened residuals beyond it are outliers"""
WRONG = 6.0
"""sigmas of the lens beyond which the given one is no longer a witness"""
BEHIND = 30.0
"""whitened residual of a point that a pose puts behind its camera"""

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Problem:
    """What is adjusted, by index.

    `poses` float64 `[K, 4, 4]` camera-to-world, `free` bool `[K]`; points: `host` int `[P]`
    keyframe index, `rays` `[P, 3]`, `inverse` `[P]`, `prior` and `prior_sigma` `[P]`; observations:
    `point` and `target` int `[E]` (never the point's own host), `observed` `[E, 2]` pixels,
    `weight` `[E]`; `focal` how long the lens is over the given one, `bend` its radial distortion
    beyond the given (`views.straightened`), and `lens_sigma` the 1-sigma of the logarithm of the
    one and of the other, about what is given; None: both stay as they are.
    """

    poses: Float64
    free: NDArray[np.bool_]
    host: Index
    rays: Float64
    inverse: Float64
    prior: Float64
    prior_sigma: Float64
    point: Index
    target: Index
    observed: Float64
    weight: Float64
    lens: Camera
    sigma_px: float
    focal: float = 1.0
    bend: float = 0.0
    lens_sigma: tuple[float, float] | None = None


@dataclass(frozen=True)
class Adjusted:
    """The outcome: `poses` `[K, 4, 4]`, `inverse` `[P]` and its `sigma` `[P]`, `distance` `[E]`
    whitened length of each residual, `covariance` `[6F, 6F]` of the free poses (right perturbation:
    translation, rotation in the camera's axes), in the order of `free`; `focal` of the lens over
    the given one and the 1-sigma of its logarithm (0: it was fixed), and its `bend`."""

    poses: Float64
    inverse: Float64
    sigma: Float64
    distance: Float64
    covariance: Float64
    focal: float
    focal_sigma: float
    bend: float


@dataclass(frozen=True)
class _System:
    """Normal equations: poses and, last, the lens `[6F + 2, 6F + 2]` and `[6F + 2]`, coupling
    `[6F + 2, P]`, points `[P]` and `[P]`."""

    poses: Float64
    pose_gradient: Float64
    coupling: Float64
    points: Float64
    point_gradient: Float64


def adjust(problem: Problem, iterations: int = 6) -> Adjusted:
    """Levenberg-Marquardt; stops when the cost falls by less than a thousandth."""
    damping, cost = 1e-4, _cost(problem)
    for _ in range(iterations):
        system = _normal_equations(problem)
        moved = _step(problem, system, damping)
        new_cost = _cost(moved)
        if new_cost < cost:
            done = cost - new_cost < 1e-3 * cost
            problem, cost, damping = moved, new_cost, max(damping * 0.2, 1e-7)
            if done:
                break
        else:
            damping *= 10.0
    system = _normal_equations(problem)
    schur = _schur(system, 0.0)[0]
    covariance = np.asarray(np.linalg.pinv(schur, rcond=1e-12, hermitian=True), dtype=np.float64)
    residual, _, _, _ = _residuals(problem)
    sigma = 1.0 / np.sqrt(np.maximum(system.points, 1e-12))
    distance = np.sqrt(np.sum(residual**2, axis=1))
    focal_sigma = float(np.sqrt(covariance[-2, -2])) if problem.lens_sigma else 0.0
    return Adjusted(
        problem.poses, problem.inverse, sigma, distance, covariance[:-2, :-2],
        problem.focal, focal_sigma, problem.bend,
    )  # fmt: skip


def _residuals(problem: Problem) -> tuple[Float64, Float64, Float64, Float64]:
    """Whitened residuals `[E, 2]`, robust weights `[E]`, points q in the target's frame `[E, 3]`,
    pose of the host in the target `[E, 4, 4]`."""
    host = problem.host[problem.point]
    count = len(problem.poses)
    pair, which = np.unique(host * count + problem.target, return_inverse=True)
    pairwise = invert(problem.poses[pair % count]) @ problem.poses[pair // count]
    relative = pairwise[which]
    turned = np.einsum("eij,ej->ei", relative[:, :3, :3], problem.rays[problem.point])
    q = turned + problem.inverse[problem.point, None] * relative[:, :3, 3]
    front = q[:, 2] > 1e-3
    q = np.where(front[:, None], q, np.array([0.0, 0.0, 1.0]))
    lens = problem.lens
    predicted = q[:, :2] / q[:, 2:] * np.array([lens.fx, lens.fy]) + np.array([lens.cx, lens.cy])
    observed = straightened(problem.observed, lens, problem.focal, problem.bend)
    residual = (predicted - observed) / problem.sigma_px
    residual = np.where(front[:, None], residual, BEHIND)
    robust = 1.0 / (1.0 + np.sum(residual**2, axis=1) / CAUCHY**2)
    return residual, problem.weight * robust * front, q, relative


def _cost(problem: Problem) -> float:
    squared = np.sum(_residuals(problem)[0] ** 2, axis=1)
    robust = float(np.sum(problem.weight * CAUCHY**2 * np.log1p(squared / CAUCHY**2)))
    return robust + float(np.sum(_off_prior(problem)[0] ** 2)) + _lens_prior(problem)[0]


def _off_prior(problem: Problem) -> tuple[Float64, Float64]:
    """How far inverse depths are from what was known before, in sigmas of its logarithm, `[P]`, and
    the derivative by inverse depth. By the logarithm half as near is as likely as twice as near;
    by inverse depth itself, points that are wrong together would pull their unit up."""
    sharp = problem.prior / problem.prior_sigma
    return sharp * np.log(problem.inverse / problem.prior), sharp / problem.inverse


def _lens_prior(problem: Problem) -> tuple[float, Float64, Float64]:
    """Cost, gradient `[2]` and information `[2]` of the logarithm of the focal length and of the
    radial distortion, about the given ones: a calibration is right to within `lens_sigma` or,
    beyond `WRONG` of them, just wrong. A lens that is fixed is held where it is."""
    if problem.lens_sigma is None:
        return 0.0, np.zeros(2), np.ones(2)
    sharp = 1.0 / np.array(problem.lens_sigma)
    off = sharp * np.array([np.log(problem.focal), problem.bend])
    weight = 1.0 / (1.0 + (off / WRONG) ** 2)
    cost = float(np.sum(WRONG**2 * np.log1p((off / WRONG) ** 2)))
    return cost, weight * sharp * off, weight * sharp**2


def _by_lens(problem: Problem, through: Float64, by_focal: Float64) -> Float64:
    """Derivative `[E, 2, 2]` of whitened residuals by the logarithm of the focal length, of which
    `by_focal` `[E, 2]` is what the projection says, and by the radial distortion."""
    if problem.lens_sigma is None:
        return np.zeros((len(by_focal), 2, 2))
    lens, rays = problem.lens, problem.rays[problem.point]
    focal = np.array([lens.fx, lens.fy])
    off = problem.observed - np.array([lens.cx, lens.cy])
    squared = np.sum((off * problem.focal / focal) ** 2, axis=1, keepdims=True)
    seen_squared = np.sum((problem.focal * rays[:, :2]) ** 2, axis=1, keepdims=True)
    wider = rays * np.array([1.0, 1.0, 0.0])
    by_host_focal = -np.einsum("eij,ej->ei", through, wider)  # a longer lens narrows rays
    by_host_bend = np.einsum("eij,ej->ei", through, wider * seen_squared)
    by_bend = by_host_bend - off * squared / problem.sigma_px
    return np.stack([by_focal + by_host_focal, by_bend], axis=2)


def _normal_equations(problem: Problem) -> _System:
    residual, weight, q, relative = _residuals(problem)
    host, point, target = problem.host[problem.point], problem.point, problem.target
    inverse = problem.inverse[point][:, None, None]
    lens = problem.lens
    gain = np.array([lens.fx, lens.fy]) / (problem.sigma_px * q[:, 2:])
    project = np.zeros((len(q), 2, 3))
    project[:, 0, 0], project[:, 1, 1] = gain[:, 0], gain[:, 1]
    project[:, :, 2] = -gain * q[:, :2] / q[:, 2:]
    through = project @ relative[:, :3, :3]
    by_host = np.concatenate([inverse * through, -through @ hat(problem.rays[point])], axis=2)
    by_target = np.concatenate([-inverse * project, project @ hat(q)], axis=2)
    by_inverse = np.einsum("eij,ej->ei", project, relative[:, :3, 3])
    by_lens = _by_lens(problem, through, gain * q[:, :2])

    order = np.cumsum(problem.free) - 1
    count, size = int(problem.free.sum()), len(problem.inverse)
    poses, gradient = np.zeros((count, count, 6, 6)), np.zeros((count, 6))
    coupling, with_lens = np.zeros((count, 6, size)), np.zeros((count, 6, 2))
    weighted = weight[:, None, None]
    for index, jacobian in ((host, by_host), (target, by_target)):
        moves = problem.free[index]
        mine, slot = jacobian[moves], order[index[moves]]
        scaled = weighted[moves] * mine
        _add(poses, (slot, slot), np.swapaxes(scaled, 1, 2) @ mine)
        _add(gradient, (slot,), np.einsum("eij,ei->ej", scaled, residual[moves]))
        _add(with_lens, (slot,), np.swapaxes(scaled, 1, 2) @ by_lens[moves])
        shared = np.einsum("eij,ei->ej", scaled, by_inverse[moves])
        _add(coupling.transpose(0, 2, 1), (slot, point[moves]), shared)
    both = problem.free[host] & problem.free[target]
    cross = np.swapaxes(weighted[both] * by_host[both], 1, 2) @ by_target[both]
    _add(poses, (order[host[both]], order[target[both]]), cross)
    _add(poses, (order[target[both]], order[host[both]]), np.swapaxes(cross, 1, 2))

    off, slope = _off_prior(problem)
    own = np.bincount(point, weight * np.sum(by_inverse**2, axis=1), size) + slope**2
    seen = np.bincount(point, weight * np.sum(by_inverse * residual, axis=1), size)
    pull = np.asarray(seen + slope * off, dtype=np.float64)
    _, lens_pull, lens_information = _lens_prior(problem)
    whole = np.zeros((6 * count + 2, 6 * count + 2))
    whole[:-2, :-2] = poses.transpose(0, 2, 1, 3).reshape(6 * count, 6 * count)
    whole[:-2, -2:] = with_lens.reshape(6 * count, 2)
    whole[-2:, :-2] = whole[:-2, -2:].T
    heavy = weighted * by_lens
    whole[-2:, -2:] = np.einsum("eik,eil->kl", heavy, by_lens) + np.diag(lens_information)
    lens_pull = lens_pull + np.einsum("eik,ei->k", heavy, residual)
    pulls = np.append(gradient, lens_pull)
    each = np.einsum("eik,ei->ke", heavy, by_inverse)
    coupled = np.stack([np.bincount(point, row, size) for row in each])
    return _System(whole, pulls, np.vstack([coupling.reshape(6 * count, size), coupled]), own, pull)


def _add(into: Float64, where: tuple[Index, ...], values: Float64) -> None:
    """`into[where] += values` where indices may repeat; sorted sums are ten times as fast as
    `np.add.at`."""
    if not len(values):
        return
    flat = np.ravel_multi_index(where, into.shape[: len(where)])
    order = np.argsort(flat, kind="stable")
    keys = flat[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    sums = np.add.reduceat(values[order], starts, axis=0)
    into[np.unravel_index(keys[starts], into.shape[: len(where)])] += sums


def _schur(system: _System, damping: float) -> tuple[Float64, Float64, Float64]:
    """Reduced matrix and gradient of the poses, and the damped inverses of the points."""
    matrix = (
        system.poses + damping * np.diag(np.diag(system.poses)) + 1e-9 * np.eye(len(system.poses))
    )
    inverted = 1.0 / (system.points * (1.0 + damping))
    scaled = system.coupling * inverted
    reduced = matrix - scaled @ system.coupling.T
    gradient = system.pose_gradient - scaled @ system.point_gradient
    return reduced, gradient, inverted


def _step(problem: Problem, system: _System, damping: float) -> Problem:
    """The problem after one damped step; no inverse depth changes by more than a factor of
    three."""
    reduced, gradient, inverted = _schur(system, damping)
    twist = -np.linalg.solve(reduced, gradient)
    change = -inverted * (system.point_gradient + system.coupling.T @ twist)
    poses = problem.poses.copy()
    for slot, index in enumerate(np.flatnonzero(problem.free)):
        poses[index] = rigidified(poses[index] @ se3_exp(twist[6 * slot : 6 * slot + 6]))
    low, high = problem.inverse / 3.0, problem.inverse * 3.0
    longer, bend = float(np.exp(np.clip(twist[-2], -0.1, 0.1))), problem.bend + float(twist[-1])
    lens, focal = problem.lens, longer * problem.focal
    return replace(
        problem,
        poses=poses,
        inverse=np.clip(problem.inverse + change, low, high),
        rays=rays_through(problem.rays, (problem.focal, problem.bend), (focal, bend)),
        lens=replace(lens, fx=longer * lens.fx, fy=longer * lens.fy),
        focal=focal,
        bend=bend,
    )
