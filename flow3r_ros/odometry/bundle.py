"""Bundle adjustment: keyframe poses and inverse depths that explain all observations between them.

A point has one number, its inverse depth in the keyframe that hosts it; what was known of it before
counts as a prior, which also holds the scale where few keyframes are fixed. Residuals are whitened
pixels with a Cauchy loss. The depths are eliminated (Schur complement; Triggs et al., "Bundle
Adjustment", 2000, sec. 6.1), which for one number a point is a division, so that an iteration
solves for six numbers a free pose, and one for the focal length: a camera that turns shows how
long it is, and one that is wrong by 2 % makes a vehicle's steps longer all through a curve.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.lie import hat, invert, rigidified, se3_exp
from flow3r_ros.types import Camera, Float64

CAUCHY = 2.0
"""whitened residuals beyond it are outliers"""
WRONG = 6.0
"""sigmas of the focal length beyond which the given one is no longer a witness"""
BEHIND = 30.0
"""whitened residual of a point that a pose puts behind its camera"""

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Problem:
    """What is adjusted, by index.

    `poses` float64 `[K, 4, 4]` camera-to-world, `free` bool `[K]`; points: `host` int `[P]`
    keyframe index, `rays` `[P, 3]`, `inverse` `[P]`, `prior` and `prior_sigma` `[P]`; observations:
    `point` and `target` int `[E]` (never the point's own host), `observed` `[E, 2]` pixels,
    `weight` `[E]`; `focal` how long the lens is over the given one, and the 1-sigma of the
    logarithm of what it should be about 1, 0: it stays as it is.
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
    focal_sigma: float = 0.0


@dataclass(frozen=True)
class Adjusted:
    """The outcome: `poses` `[K, 4, 4]`, `inverse` `[P]` and its `sigma` `[P]`, `distance` `[E]`
    whitened length of each residual, `covariance` `[6F, 6F]` of the free poses (right perturbation:
    translation, rotation in the camera's axes), in the order of `free`; `focal` of the lens over
    the given one and the 1-sigma of its logarithm (0: it was fixed)."""

    poses: Float64
    inverse: Float64
    sigma: Float64
    distance: Float64
    covariance: Float64
    focal: float
    focal_sigma: float


@dataclass(frozen=True)
class _System:
    """Normal equations: poses and, last, focal length `[6F + 1, 6F + 1]` and `[6F + 1]`, coupling
    `[6F + 1, P]`, points `[P]` and `[P]`."""

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
    focal_sigma = float(np.sqrt(covariance[-1, -1])) if problem.focal_sigma else 0.0
    return Adjusted(
        problem.poses, problem.inverse, sigma, distance, covariance[:-1, :-1],
        problem.focal, focal_sigma,
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
    residual = (predicted - problem.observed) / problem.sigma_px
    residual = np.where(front[:, None], residual, BEHIND)
    robust = 1.0 / (1.0 + np.sum(residual**2, axis=1) / CAUCHY**2)
    return residual, problem.weight * robust * front, q, relative


def _cost(problem: Problem) -> float:
    squared = np.sum(_residuals(problem)[0] ** 2, axis=1)
    robust = float(np.sum(problem.weight * CAUCHY**2 * np.log1p(squared / CAUCHY**2)))
    return robust + float(np.sum(_off_prior(problem)[0] ** 2)) + _focal_prior(problem)[0]


def _off_prior(problem: Problem) -> tuple[Float64, Float64]:
    """How far inverse depths are from what was known before, in sigmas of its logarithm, `[P]`, and
    the derivative by inverse depth. By the logarithm half as near is as likely as twice as near;
    by inverse depth itself, points that are wrong together would pull their unit up."""
    sharp = problem.prior / problem.prior_sigma
    return sharp * np.log(problem.inverse / problem.prior), sharp / problem.inverse


def _focal_prior(problem: Problem) -> tuple[float, float, float]:
    """Cost, gradient and information of the logarithm of the focal length, about the given one: a
    calibration is right to within `focal_sigma` or, beyond `WRONG` of them, just wrong. One that is
    fixed is held where it is."""
    if not problem.focal_sigma:
        return 0.0, 0.0, 1.0
    sharp = 1.0 / problem.focal_sigma
    off = sharp * float(np.log(problem.focal))
    weight = 1.0 / (1.0 + (off / WRONG) ** 2)
    return WRONG**2 * float(np.log1p((off / WRONG) ** 2)), weight * sharp * off, weight * sharp**2


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
    flat = problem.rays[point] * np.array([-1.0, -1.0, 0.0])  # a longer lens makes rays narrower
    by_focal = bool(problem.focal_sigma) * (
        gain * q[:, :2] + np.einsum("eij,ej->ei", through, flat)
    )

    order = np.cumsum(problem.free) - 1
    count, size = int(problem.free.sum()), len(problem.inverse)
    poses, gradient = np.zeros((count, count, 6, 6)), np.zeros((count, 6))
    coupling, with_focal = np.zeros((count, 6, size)), np.zeros((count, 6))
    weighted = weight[:, None, None]
    for index, jacobian in ((host, by_host), (target, by_target)):
        moves = problem.free[index]
        mine, slot = jacobian[moves], order[index[moves]]
        scaled = weighted[moves] * mine
        _add(poses, (slot, slot), np.swapaxes(scaled, 1, 2) @ mine)
        _add(gradient, (slot,), np.einsum("eij,ei->ej", scaled, residual[moves]))
        _add(with_focal, (slot,), np.einsum("eij,ei->ej", scaled, by_focal[moves]))
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
    _, focal_pull, focal_information = _focal_prior(problem)
    whole = np.zeros((6 * count + 1, 6 * count + 1))
    whole[:-1, :-1] = poses.transpose(0, 2, 1, 3).reshape(6 * count, 6 * count)
    whole[:-1, -1] = whole[-1, :-1] = with_focal.ravel()
    whole[-1, -1] = float(np.sum(weight * np.sum(by_focal**2, axis=1))) + focal_information
    focal_pull += float(np.sum(weight * np.sum(by_focal * residual, axis=1)))
    pulls = np.append(gradient, focal_pull)
    coupled = np.bincount(point, weight * np.sum(by_focal * by_inverse, axis=1), size)
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
    longer = float(np.exp(np.clip(twist[-1], -0.1, 0.1)))
    lens = problem.lens
    return replace(
        problem,
        poses=poses,
        inverse=np.clip(problem.inverse + change, low, high),
        rays=problem.rays / np.array([longer, longer, 1.0]),
        lens=replace(lens, fx=longer * lens.fx, fy=longer * lens.fy),
        focal=longer * problem.focal,
    )
