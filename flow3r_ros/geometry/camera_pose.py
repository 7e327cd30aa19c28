"""Pose of a camera from points of a reference view whose depth is only roughly known.

A point is a ray of the reference with an inverse depth and its sigma. Its image in the other camera
is uncertain along the epipolar line by what the depth is uncertain, and by pixel noise across it,
so a point of unknown depth still constrains rotation and the direction of motion, and a point at
infinity rotation alone: standing still, pure rotation and forward motion need no case of their own
(the covariance of a reprojection with uncertain depth: Engel et al., "Direct Sparse Odometry",
PAMI 2018, sec. 2.2 treats depth as such a parameter).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.epipolar import inverse_depths
from flow3r_ros.geometry.lie import invert, rigid, rigidified, se3_exp, se3_log
from flow3r_ros.types import Bool, Camera, Float64

ROBUST = 3.0
"""whitened residuals beyond it count as outliers (Geman-McClure: they
lose all weight)"""


KNOWN = 0.2
"""relative sigma up to which depths are taken as they are: wrong by so little, they bend nothing"""
DEPTH_ROUNDS = 2
"""steps in which a point's inverse depth is fitted to its observation"""
MOST_CHANGE = 2.3
"""most that the logarithm of a fitted depth differs from the expected one"""
STILL = 1e-4
"""step in median depths and rad below which a fit has arrived: a twentieth of a pixel"""
MIN_POINTS = 12
"""points without which no essential matrix is looked for"""


@dataclass(frozen=True)
class DepthPoints:
    """Points of a reference view: `rays` float64 `[N, 3]` with z = 1 in its optical frame,
    `inverse` `[N]` inverse depth and `sigma` `[N]` its 1-sigma, 1 / unit."""

    rays: Float64
    inverse: Float64
    sigma: Float64

    def __len__(self) -> int:
        return len(self.inverse)

    def only(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> DepthPoints:
        """Some of them, by a mask `[N]` or by index."""
        return DepthPoints(self.rays[keep], self.inverse[keep], self.sigma[keep])


@dataclass(frozen=True)
class PoseFit:
    """A fitted pose.

    `T` `[4, 4]` maps points of the camera to the reference; `information` `[6, 6]` of a
    perturbation (translation, rotation) in the camera's own axes, unit and rad, robustly weighted;
    `whitened` `[N, 2]` residuals over their sigma, along and across the epipolar line; `inliers`
    share of them within three sigma.
    """

    T: Float64
    information: Float64
    whitened: Float64
    inliers: float

    @property
    def cost(self) -> float:
        """Mean robust cost of a residual."""
        squared = self.whitened**2
        return float(np.mean(squared / (ROBUST**2 + squared))) if len(squared) else float("inf")

    @property
    def distance(self) -> Float64:
        """Mahalanobis length of each residual, `[N]`."""
        return np.asarray(np.sqrt(np.sum(self.whitened**2, axis=1)))


@dataclass(frozen=True)
class PosePrior:
    """A pose `T` `[4, 4]` in the reference that is likely, and the `information` `[6, 6]` about it
    (translation, rotation in the camera's axes)."""

    T: Float64
    information: Float64


def project_points(points: DepthPoints, T: Float64, camera: Camera) -> Float64:
    """Pixels `[N, 2]` of points in a camera whose pose in the reference is `T`; NaN behind it."""
    T_cam_ref = invert(T)
    q = points.rays @ T_cam_ref[:3, :3].T + points.inverse[:, None] * T_cam_ref[:3, 3]
    z = np.where(q[:, 2] > 1e-6, q[:, 2], np.nan)
    focal, centre = np.array([camera.fx, camera.fy]), np.array([camera.cx, camera.cy])
    return np.asarray(q[:, :2] / z[:, None] * focal + centre)


def fit_camera_pose(
    points: DepthPoints,
    observed: Float64,
    camera: Camera,
    start: Float64,
    sigma_px: float,
    iterations: int = 10,
    prior: PosePrior | None = None,
    near: bool = False,
) -> PoseFit:
    """Pose that reprojects the points best, by robust Gauss-Newton from `start` `[4, 4]`.

    Args:
        observed: pixels `[N, 2]` in the camera whose pose is wanted.
        camera: pinhole of the observed pixels.
        sigma_px: 1-sigma of an observation, pixels.
        prior: what is known of the pose beforehand; it settles what the points leave open.
        near: the start is within some pixels.
    """
    T_cam_ref = invert(start)
    guessed = bool(np.any(points.sigma > KNOWN * points.inverse))
    information = np.zeros((6, 6))
    whitened = np.zeros((len(points), 2))
    typical = float(np.median(points.inverse)) if len(points) else 1.0
    left, inverse, fitted = iterations, points.inverse, False
    while True:
        # far off, fitted depths would settle on any motion: they come in once the pose is near
        near = near or not guessed or left <= iterations // 2
        rounds = 0 if not (guessed and near) else 1 if fitted else DEPTH_ROUNDS
        inverse, line = _explained(points, observed, camera, T_cam_ref, sigma_px, rounds, inverse)
        fitted = rounds > 0
        whitened = _whitened(points, inverse, line, sigma_px)
        jacobian = _derivative(points, inverse, line, camera, sigma_px)
        weight = 1.0 / (1.0 + whitened**2 / ROBUST**2) ** 2
        weight[:, 0] *= weight[:, 1]  # off the line, nothing is known of the depth
        rows = jacobian.reshape(-1, 6)
        weighted = rows * weight.reshape(-1, 1)
        information = weighted.T @ rows
        if not left:
            break
        gradient = weighted.T @ whitened.ravel()
        normal = information
        if prior is not None:
            normal = information + prior.information
            off = se3_log(T_cam_ref @ prior.T)
            gradient = gradient + prior.information @ off
        damping = 1e-6 * np.trace(information) / 6.0 + 1e-12
        step = np.linalg.solve(normal + damping * np.eye(6), -gradient)
        T_cam_ref = se3_exp(step) @ T_cam_ref
        still = max(typical * float(np.abs(step[:3]).max()), float(np.abs(step[3:]).max())) < STILL
        left = (0 if near else iterations // 2) if still else left - 1
    inliers = float(np.mean(np.sum(whitened**2, axis=1) < 9.0)) if len(points) else 0.0
    return PoseFit(rigidified(invert(T_cam_ref)), information, whitened, inliers)


def judge_camera_pose(
    points: DepthPoints, observed: Float64, camera: Camera, T: Float64, sigma_px: float
) -> Float64:
    """Mahalanobis length of each reprojection residual `[N]` at a pose that is not fitted to
    them."""
    inverse, line = _explained(points, observed, camera, invert(T), sigma_px, DEPTH_ROUNDS)
    whitened = _whitened(points, inverse, line, sigma_px)
    return np.asarray(np.sqrt(np.sum(whitened**2, axis=1)))


def depths_from(
    points: DepthPoints, observed: Float64, camera: Camera, T: Float64, sigma_px: float
) -> tuple[DepthPoints, Float64]:
    """Points with what their observations say of their depth, and the parallax of each, `[N]`: the
    pixels that it moves in the picture per unit of the logarithm of its inverse depth.

    Args:
        observed: pixels `[N, 2]` in a camera at `T` `[4, 4]` in the reference.
        sigma_px: 1-sigma of an observation, pixels.
    """
    inverse, line = _explained(points, observed, camera, invert(T), sigma_px, DEPTH_ROUNDS)
    reach = np.where(line.front, line.length * inverse, 0.0)
    information = (points.inverse / points.sigma) ** 2 + (reach / sigma_px) ** 2
    return DepthPoints(points.rays, inverse, inverse / np.sqrt(information)), reach


def pose_without_depth(points: DepthPoints, observed: Float64, camera: Camera) -> Float64 | None:
    """Pose `[4, 4]` in the reference from the essential matrix (five points: Nister, PAMI 2004;
    RANSAC), whose length alone comes from the depths; None with too few points or no parallax."""
    if len(points) < MIN_POINTS:
        return None
    centre, focal = np.array([camera.cx, camera.cy]), np.array([camera.fx, camera.fy])
    rays = np.concatenate([(observed - centre) / focal, np.ones((len(observed), 1))], axis=1)
    reach = 1.0 / float(np.sqrt(camera.fx * camera.fy))
    essential, mask = cv2.findEssentialMat(
        points.rays[:, :2], rays[:, :2], np.eye(3), cv2.RANSAC, 0.999, reach, 300
    )
    if essential is None or essential.shape != (3, 3):
        return None
    count, R, t, mask = cv2.recoverPose(
        essential, points.rays[:, :2], rays[:, :2], np.eye(3), mask=mask
    )
    if count < MIN_POINTS:
        return None
    rotation, direction = np.asarray(R, np.float64), np.asarray(t, np.float64)[:, 0]
    inverse, parallax = inverse_depths(rotation, direction, points.rays, rays)
    inlier = np.asarray(mask)[:, 0] > 0
    usable = inlier & (inverse > 0) & (parallax > 2.0 * reach) & (points.inverse > 0)
    if np.count_nonzero(usable) < MIN_POINTS:
        return None
    length = float(np.median(inverse[usable] / points.inverse[usable]))
    return invert(rigid(rotation, direction * length))


def _whitened(points: DepthPoints, inverse: Float64, line: _Lines, sigma_px: float) -> Float64:
    """Residuals along and across the epipolar line over their sigmas, `[N, 2]`. The one along it is
    that at the expected depth, to first order in the logarithm of `inverse`."""
    reach = line.length * inverse
    along = line.along - reach * np.log(inverse / points.inverse)
    spread = np.hypot(sigma_px, reach * points.sigma / points.inverse)
    whitened = np.stack([along / spread, line.across / sigma_px], axis=1)
    whitened[~line.front] = 100.0
    return whitened


def _derivative(
    points: DepthPoints, inverse: Float64, line: _Lines, camera: Camera, sigma_px: float
) -> Float64:
    """Of the whitened residuals by a twist in camera axes, `[N, 2, 6]`.

    Taken at the inverse depth that explains the observation best. At the expected one the turn of
    the epipolar line with the motion is missing from what is across it, in proportion to how wrong
    the depth is: with depths that are wrong together the fit then ends beside its own minimum
    (Golub & Pereyra, "Separable nonlinear least squares", 2003).
    """
    x, y, z = line.q
    spread = np.hypot(sigma_px, line.length * inverse * points.sigma / points.inverse)
    jacobian = np.empty((len(x), 2, 6))
    ahead = line.front / z
    toward_x, toward_y = line.direction
    for row, (right, down), sigma in (
        (0, (toward_x, toward_y), spread),
        (1, (-toward_y, toward_x), sigma_px),
    ):
        # how the residual grows as the point moves by x, y and z; a turn moves it by turn x q
        per_sigma = ahead / sigma
        by_x, by_y = right * camera.fx * per_sigma, down * camera.fy * per_sigma
        by_z = -(by_x * x + by_y * y) / z
        columns = jacobian[:, row].T
        columns[0], columns[1], columns[2] = by_x * inverse, by_y * inverse, by_z * inverse
        columns[3], columns[4], columns[5] = (
            y * by_z - z * by_y,
            z * by_x - x * by_z,
            x * by_y - y * by_x,
        )
    return jacobian


def _explained(
    points: DepthPoints,
    observed: Float64,
    camera: Camera,
    T_cam_ref: Float64,
    sigma_px: float,
    rounds: int,
    start: Float64 | None = None,
) -> tuple[Float64, _Lines]:
    """Inverse depths `[N]` that explain observations best, near the expected ones as far as their
    sigma says, from those at a pose nearby (`start`) or the expected ones, and the points' epipolar
    lines there."""
    relative = points.sigma / points.inverse
    inverse = points.inverse if start is None else start
    line = _epipolar_lines(points.rays, inverse, observed, camera, T_cam_ref)
    for _ in range(rounds):
        reach = line.length * inverse
        variance = (reach * relative) ** 2
        shift = line.along - reach * np.log(inverse / points.inverse)  # at the expected depth
        change = -variance / (sigma_px**2 + variance) * shift / np.maximum(reach, 1e-9)
        inverse = points.inverse * np.exp(np.clip(change, -MOST_CHANGE, MOST_CHANGE))
        line = _epipolar_lines(points.rays, inverse, observed, camera, T_cam_ref)
    return inverse, line


@dataclass(frozen=True)
class _Lines:
    """Points as a camera sees them, `q` `[3, N]`, where in `front` of it (z is 1 elsewhere), and
    their epipolar lines there: unit `direction` `[2, N]` in which a point moves as its inverse
    depth grows, by `length` pixels a unit; the residual `along` and `across` it, pixels."""

    q: Float64
    front: Bool
    direction: Float64
    length: Float64
    along: Float64
    across: Float64


def _epipolar_lines(
    rays: Float64, inverse: Float64, observed: Float64, camera: Camera, T_cam_ref: Float64
) -> _Lines:
    q = T_cam_ref[:3, :3] @ rays.T + np.outer(T_cam_ref[:3, 3], inverse)
    front = q[2] > 1e-3
    q[:, ~front] = [[0.0], [0.0], [1.0]]
    nearness = 1.0 / q[2]
    x, y = q[0] * nearness, q[1] * nearness
    right = x * camera.fx + (camera.cx - observed[:, 0])
    down = y * camera.fy + (camera.cy - observed[:, 1])
    # the derivative by inverse depth moves along the line whatever the depth
    t = T_cam_ref[:3, 3]
    slope = np.stack([camera.fx * (t[0] - x * t[2]), camera.fy * (t[1] - y * t[2])]) * nearness
    length = np.hypot(slope[0], slope[1])
    nowhere = length <= 1e-12
    direction = slope / np.where(nowhere, 1.0, length)
    direction[:, nowhere] = [[1.0], [0.0]]
    along = direction[0] * right + direction[1] * down
    across = direction[0] * down - direction[1] * right
    return _Lines(q, front, direction, length, along, across)
