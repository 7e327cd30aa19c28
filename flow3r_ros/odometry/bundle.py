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
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.lie import invert, rigidified, se3_exp
from flow3r_ros.odometry.views import rays_through, straightened
from flow3r_ros.types import Camera, Float64

CAUCHY = 2.0
"""whitened residuals beyond it are outliers"""
WRONG = 6.0
"""sigmas of the lens beyond which the given one is no longer a witness"""
BEHIND = 30.0
"""whitened residual of a point that a pose puts behind its camera"""

_HOST, _TARGET, _LENS, _DEPTH, _OFF = slice(0, 6), slice(6, 12), slice(12, 14), 14, 15
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Problem:
    """What is adjusted, by index.

    `poses` float64 `[K, 4, 4]` camera-to-world, `free` bool `[K]`; points: `host` int `[P]`
    keyframe index, `rays` `[P, 3]`, `inverse` `[P]`, `prior` and `prior_sigma` `[P]`; observations:
    `point` and `target` int `[E]` (never the point's own host, no pair twice; quickest where those
    of one host and target follow each other), `observed` `[E, 2]` pixels, `weight` `[E]`; `focal`
    how long the lens is over the given one, `bend` its radial distortion beyond the given
    (`views.straightened`), and `lens_sigma` the 1-sigma of the logarithm of the one and of the
    other, about what is given; None: both stay as they are.
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


def _derivatives(
    problem: Problem, residual: Float64, weight: Float64, q: Float64, relative: Float64
) -> Float64:
    """What each residual changes with, times the root of its weight: `[2, 16, E]` with a column of
    _HOST (the pose of the point's keyframe), _TARGET (that of the observing one), _LENS, _DEPTH
    (the inverse depth) and _OFF (the residual itself)."""
    lens, rays = problem.lens, problem.rays[problem.point].T
    inverse, root = problem.inverse[problem.point], np.sqrt(weight)
    turn, shift = relative[:, :3, :3], relative[:, :3, 3].T
    columns = np.zeros((2, 16, len(q)))
    seen_squared = problem.focal**2 * (rays[0] ** 2 + rays[1] ** 2)
    off = (problem.observed - np.array([lens.cx, lens.cy])).T
    squared = (off[0] / lens.fx) ** 2 + (off[1] / lens.fy) ** 2
    for axis, focal in enumerate((lens.fx, lens.fy)):
        column = columns[axis]
        gain, tilt = root * focal / (problem.sigma_px * q[:, 2]), q[:, axis] / q[:, 2]
        x, y, z = (gain * (turn[:, axis, k] - tilt * turn[:, 2, k]) for k in range(3))
        column[0], column[1], column[2] = inverse * x, inverse * y, inverse * z
        column[3] = rays[1] * z - rays[2] * y
        column[4] = rays[2] * x - rays[0] * z
        column[5] = rays[0] * y - rays[1] * x
        column[6 + axis], column[8] = -inverse * gain, inverse * gain * tilt
        if problem.lens_sigma is not None:
            wider = x * rays[0] + y * rays[1]  # a longer lens narrows rays
            bent = root * off[axis] * squared * problem.focal**2 / problem.sigma_px
            column[12] = gain * q[:, axis] - wider
            column[13] = wider * seen_squared - bent
        column[14] = gain * (shift[axis] - tilt * shift[2])
        column[15] = root * residual[:, axis]
        column[9:12] = gain * _turned(axis, tilt, q)
    return columns


def _turned(axis: int, tilt: Float64, q: Float64) -> Float64:
    """Derivative `[3, E]` of x or y over z by a rotation of the camera that sees q, times z."""
    if axis == 0:
        return np.stack([tilt * q[:, 1], -tilt * q[:, 0] - q[:, 2], q[:, 1]])
    return np.stack([q[:, 2] + tilt * q[:, 1], -tilt * q[:, 0], -q[:, 0]])


def _normal_equations(problem: Problem) -> _System:
    columns = _derivatives(problem, *_residuals(problem))
    host, point, target = problem.host[problem.point], problem.point, problem.target
    count, size = int(problem.free.sum()), len(problem.inverse)
    slot = np.where(problem.free, np.cumsum(problem.free), 0)  # fixed ones share the first
    firsts = np.flatnonzero(np.diff(host * len(slot) + target, prepend=-1))
    rows = np.ascontiguousarray(columns.transpose(2, 0, 1)).reshape(-1, 16)
    pairs = [rows[2 * first : 2 * end] for first, end in pairwise([*firsts, len(host)])]
    products = np.stack([each.T @ each for each in pairs])
    poses, gradient = np.zeros((count + 1, count + 1, 6, 6)), np.zeros((count + 1, 6))
    with_lens, both = np.zeros((count + 1, 6, 2)), (slot[host[firsts]], slot[target[firsts]])
    for here, mine in zip(both, (_HOST, _TARGET), strict=True):
        np.add.at(gradient, here, products[:, mine, _OFF])
        np.add.at(with_lens, here, products[:, mine, _LENS])
        for there, theirs in zip(both, (_HOST, _TARGET), strict=True):
            np.add.at(poses, (here, there), products[:, mine, theirs])

    off, slope = _off_prior(problem)
    depth, residual = columns[:, _DEPTH], columns[:, _OFF]
    own = np.bincount(point, np.sum(depth**2, axis=0), size) + slope**2
    pull = np.bincount(point, np.sum(depth * residual, axis=0), size) + slope * off
    shared = np.sum(columns[:, :_DEPTH] * depth[:, None], axis=0)
    coupling = np.zeros((6 * (count + 1) + 2, size))
    by_pose = coupling[:-2].reshape(count + 1, 6, size)
    by_pose[slot[target], :, point] = shared[_TARGET].T
    of_host = np.stack([np.bincount(point, row, size) for row in shared[_HOST]])
    by_pose[slot[problem.host], :, np.arange(size)] += of_host.T
    coupling[-2:] = [np.bincount(point, row, size) for row in shared[_LENS]]

    _, lens_pull, lens_information = _lens_prior(problem)
    of_all = np.sum(products[:, _LENS], axis=0)
    whole = np.zeros((6 * count + 2, 6 * count + 2))
    whole[:-2, :-2] = poses[1:, 1:].transpose(0, 2, 1, 3).reshape(6 * count, 6 * count)
    whole[:-2, -2:] = with_lens[1:].reshape(6 * count, 2)
    whole[-2:, :-2] = whole[:-2, -2:].T
    whole[-2:, -2:] = of_all[:, _LENS] + np.diag(lens_information)
    pulls = np.append(gradient[1:], of_all[:, _OFF] + lens_pull)
    return _System(whole, pulls, coupling[6:], own, np.asarray(pull, np.float64))


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
