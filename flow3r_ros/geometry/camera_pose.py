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
from flow3r_ros.geometry.lie import hat, invert, rigid, rigidified, se3_exp, se3_log
from flow3r_ros.types import Camera, Float64

ROBUST = 3.0
"""whitened residuals beyond it count as outliers (Geman-McClure: they
lose all weight)"""


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

    def only(self, keep: NDArray[np.bool_]) -> DepthPoints:
        """Some of them, by a mask `[N]`."""
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
        squared = np.sum(self.whitened**2, axis=1)
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
) -> PoseFit:
    """Pose that reprojects the points best, by robust Gauss-Newton from `start` `[4, 4]`.

    Args:
        observed: pixels `[N, 2]` in the camera whose pose is wanted.
        camera: pinhole of the observed pixels.
        sigma_px: 1-sigma of an observation, pixels.
        prior: what is known of the pose beforehand; it settles what the points leave open.
    """
    T_cam_ref = invert(start)
    information = np.zeros((6, 6))
    whitened = np.zeros((len(points), 2))
    for left in range(iterations, -1, -1):
        whitened, jacobian = _linearised(points, observed, camera, T_cam_ref, sigma_px)
        weight = 1.0 / (1.0 + np.sum(whitened**2, axis=1) / ROBUST**2) ** 2
        weighted = jacobian * weight[:, None, None]
        information = np.einsum("nij,nik->jk", weighted, jacobian)
        if not left:
            break
        gradient = np.einsum("nij,ni->j", weighted, whitened)
        normal = information
        if prior is not None:
            normal = information + prior.information
            off = se3_log(T_cam_ref @ prior.T)
            gradient = gradient + prior.information @ off
        damping = 1e-6 * np.trace(information) / 6.0 + 1e-12
        step = np.linalg.solve(normal + damping * np.eye(6), -gradient)
        T_cam_ref = se3_exp(step) @ T_cam_ref
    inliers = float(np.mean(np.sum(whitened**2, axis=1) < 9.0)) if len(points) else 0.0
    return PoseFit(rigidified(invert(T_cam_ref)), information, whitened, inliers)


def judge_camera_pose(
    points: DepthPoints, observed: Float64, camera: Camera, T: Float64, sigma_px: float
) -> Float64:
    """Mahalanobis length of each reprojection residual `[N]` at a pose that is not fitted to
    them."""
    whitened, _ = _linearised(points, observed, camera, invert(T), sigma_px)
    return np.asarray(np.sqrt(np.sum(whitened**2, axis=1)))


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


def _linearised(
    points: DepthPoints, observed: Float64, camera: Camera, T_cam_ref: Float64, sigma_px: float
) -> tuple[Float64, Float64]:
    """Whitened residuals `[N, 2]` and their derivative `[N, 2, 6]` by a twist in camera axes."""
    R, t = T_cam_ref[:3, :3], T_cam_ref[:3, 3]
    q = points.rays @ R.T + points.inverse[:, None] * t
    front = q[:, 2] > 1e-3
    z = np.where(front, q[:, 2], 1.0)
    u, v = q[:, 0] / z, q[:, 1] / z
    residual = np.stack(
        [
            camera.fx * u + camera.cx - observed[:, 0],
            camera.fy * v + camera.cy - observed[:, 1],
        ],
        axis=1,
    )
    gx, gy = camera.fx / z * (t[0] - u * t[2]), camera.fy / z * (t[1] - v * t[2])
    length = np.hypot(gx, gy)
    safe = np.where(length > 1e-12, length, 1.0)
    along_x, along_y = (
        np.where(length > 1e-12, gx / safe, 1.0),
        np.where(length > 1e-12, gy / safe, 0.0),
    )
    along = 1.0 / np.sqrt(sigma_px**2 + (length * points.sigma) ** 2)
    across = 1.0 / sigma_px
    turn = np.empty((len(q), 2, 2))
    turn[:, 0, 0], turn[:, 0, 1] = along_x * along, along_y * along
    turn[:, 1, 0], turn[:, 1, 1] = -along_y * across, along_x * across
    projection = np.zeros((len(q), 2, 3))
    projection[:, 0, 0], projection[:, 1, 1] = camera.fx / z, camera.fy / z
    projection[:, 0, 2], projection[:, 1, 2] = -camera.fx * u / z, -camera.fy * v / z
    moved = np.concatenate([points.inverse[:, None, None] * np.eye(3)[None], -hat(q)], axis=2)
    whitened = np.einsum("nij,nj->ni", turn, residual)
    jacobian = turn @ (projection @ moved)
    whitened = np.where(front[:, None], whitened, 100.0)
    jacobian = np.where(front[:, None, None], jacobian, 0.0)
    return whitened, jacobian
