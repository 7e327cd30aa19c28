"""Rotations, rigid motions and similarities: exp/log, interpolation, averaging, alignment.

Everything that composes or fits poses in the house goes through here, in float64, so that
conventions exist once: `T_a_b` maps points of frame b to frame a, a twist is `(rho, phi)` with the
translation first, quaternions are `x y z w`. Formulas: Barfoot, "State Estimation for Robotics",
ch. 8; Umeyama, PAMI 1991.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flow3r_ros.types import Float64

_SMALL = 1e-4
"""rad; below it the Taylor series is more exact than the closed form"""


def hat(phi: ArrayLike) -> Float64:
    """Cross-product matrices `[..., 3, 3]` of vectors `[..., 3]`: `hat(a) @ b == cross(a, b)`."""
    v = np.asarray(phi, dtype=np.float64)
    matrix = np.zeros((*v.shape[:-1], 3, 3))
    matrix[..., 0, 1], matrix[..., 0, 2], matrix[..., 1, 2] = -v[..., 2], v[..., 1], -v[..., 0]
    matrix[..., 1, 0], matrix[..., 2, 0], matrix[..., 2, 1] = v[..., 2], -v[..., 1], v[..., 0]
    return matrix


def so3_exp(phi: ArrayLike) -> Float64:
    """Rotation `[..., 3, 3]` of rotation vectors `[..., 3]` in rad (Rodrigues)."""
    v = np.asarray(phi, dtype=np.float64)
    if v.ndim == 1:
        return _about(v, *_rodrigues(v))
    angle2 = np.sum(v * v, axis=-1)[..., None, None]
    angle = np.sqrt(angle2)
    safe = np.where(angle < _SMALL, 1.0, angle)
    a = np.where(angle < _SMALL, 1.0 - angle2 / 6.0, np.sin(safe) / safe)
    b = np.where(angle < _SMALL, 0.5 - angle2 / 24.0, 2.0 * np.sin(safe / 2.0) ** 2 / safe**2)
    cross = hat(v)
    return np.asarray(np.eye(3) + a * cross + b * (cross @ cross))


def so3_log(R: ArrayLike) -> Float64:
    """Rotation vector `[3]` in rad, norm at most pi, of a rotation `[3, 3]`; exact near 0 and near
    pi (through the quaternion)."""
    q = quaternion_from_matrix(R)
    norm = float(np.linalg.norm(q[:3]))
    if norm < 1e-9:
        return np.asarray(2.0 * q[:3])
    return np.asarray(q[:3] * (2.0 * np.arctan2(norm, q[3]) / norm))


def rotation_angle(R: ArrayLike) -> float:
    """Angle in rad, 0 to pi, of a rotation `[3, 3]`."""
    return float(np.linalg.norm(so3_log(R)))


def _left_jacobian(phi: Float64) -> Float64:
    """Left Jacobian `[3, 3]` of SO(3)."""
    angle2 = float(phi @ phi)
    if angle2 < _SMALL**2:
        return _about(phi, 0.5 - angle2 / 24.0, 1.0 / 6.0 - angle2 / 120.0)
    angle = math.sqrt(angle2)
    half = math.sin(angle / 2.0)
    return _about(phi, 2.0 * half * half / angle2, (angle - math.sin(angle)) / (angle2 * angle))


def _rodrigues(phi: Float64) -> tuple[float, float]:
    """What the cross-product matrix and its square count in a rotation."""
    angle2 = float(phi @ phi)
    if angle2 < _SMALL**2:
        return 1.0 - angle2 / 6.0, 0.5 - angle2 / 24.0
    angle = math.sqrt(angle2)
    return math.sin(angle) / angle, 2.0 * math.sin(angle / 2.0) ** 2 / angle2


def _about(phi: Float64, a: float, b: float) -> Float64:
    """I + a hat(phi) + b hat(phi)^2, `[3, 3]`: in plain numbers, because fits ask for it all the
    time."""
    x, y, z = phi.tolist()
    xx, yy, zz = b * x * x, b * y * y, b * z * z
    xy, xz, yz = b * x * y, b * x * z, b * y * z
    x, y, z = a * x, a * y, a * z
    return np.array(
        [
            [1.0 - yy - zz, xy - z, xz + y],
            [xy + z, 1.0 - xx - zz, yz - x],
            [xz - y, yz + x, 1.0 - xx - yy],
        ]
    )


def se3_exp(xi: ArrayLike) -> Float64:
    """Rigid motion `[4, 4]` of a twist `[6]` = (rho, phi)."""
    twist = np.asarray(xi, dtype=np.float64)
    return rigid(so3_exp(twist[3:]), _left_jacobian(twist[3:]) @ twist[:3])


def se3_log(T: ArrayLike) -> Float64:
    """Twist `[6]` = (rho, phi) of a rigid motion `[4, 4]`."""
    matrix = np.asarray(T, dtype=np.float64)
    phi = so3_log(matrix[:3, :3])
    return np.concatenate([np.linalg.solve(_left_jacobian(phi), matrix[:3, 3]), phi])


def rigid(R: ArrayLike, t: ArrayLike) -> Float64:
    """Matrix `[4, 4]` from rotation `[3, 3]` and translation `[3]`."""
    matrix = np.eye(4)
    matrix[:3, :3] = R
    matrix[:3, 3] = t
    return matrix


def sim3(scale: float, R: ArrayLike, t: ArrayLike) -> Float64:
    """Similarity `[4, 4]`: `x -> scale R x + t`."""
    return rigid(scale * np.asarray(R, dtype=np.float64), t)


def sim3_parts(S: ArrayLike) -> tuple[float, Float64, Float64]:
    """Scale, rotation `[3, 3]` and translation `[3]` of a similarity `[4, 4]`."""
    matrix = np.asarray(S, dtype=np.float64)
    scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
    return scale, matrix[:3, :3] / scale, matrix[:3, 3].copy()


def rigid_part(S: ArrayLike) -> Float64:
    """The pose `[4, 4]` of a camera whose pose is the similarity `S`: where it stands and looks."""
    _, R, t = sim3_parts(S)
    return rigid(R, t)


def invert(T: ArrayLike) -> Float64:
    """Inverse of rigid motions or similarities `[..., 4, 4]`."""
    matrix = np.asarray(T, dtype=np.float64)
    block = matrix[..., :3, :3]
    scale2 = np.sum(block[..., 0] ** 2, axis=-1)[..., None, None]
    inverse = np.zeros_like(matrix)
    inverse[..., :3, :3] = np.swapaxes(block, -1, -2) / scale2
    inverse[..., :3, 3] = -(inverse[..., :3, :3] @ matrix[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1.0
    return inverse


def adjoint(T: ArrayLike) -> Float64:
    """Matrix `[6, 6]` that carries a twist (linear, angular) of one point of a rigid body to
    another: `T_a_b [4, 4]` takes the velocity of b in the axes of b to that of a in the axes of
    a."""
    matrix = np.asarray(T, dtype=np.float64)
    carry = np.zeros((6, 6))
    carry[:3, :3] = carry[3:, 3:] = matrix[:3, :3]
    carry[:3, 3:] = hat(matrix[:3, 3]) @ matrix[:3, :3]
    return carry


def apply(T: ArrayLike, points: NDArray[Any]) -> NDArray[Any]:
    """Transform points `[..., 3]` by a rigid motion or similarity `[4, 4]`; the points' dtype is
    kept."""
    matrix = np.asarray(T, dtype=points.dtype)
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])


def interpolate(T0: ArrayLike, T1: ArrayLike, a: float) -> Float64:
    """Pose `[4, 4]` at share `a` between two rigid poses: geodesic rotation, straight-line
    translation (a may extrapolate)."""
    start, end = np.asarray(T0, dtype=np.float64), np.asarray(T1, dtype=np.float64)
    R = start[:3, :3] @ so3_exp(a * so3_log(start[:3, :3].T @ end[:3, :3]))
    return rigid(R, (1.0 - a) * start[:3, 3] + a * end[:3, 3])


def nearest_rotation(matrix: ArrayLike) -> Float64:
    """Rotation `[3, 3]` nearest in Frobenius norm to any matrix `[3, 3]`."""
    U, _, Vt = np.linalg.svd(np.asarray(matrix, dtype=np.float64))
    U[:, 2] *= np.sign(np.linalg.det(U @ Vt))
    return np.asarray(U @ Vt)


def rigidified(T: ArrayLike) -> Float64:
    """The pose `[4, 4]` nearest to one whose rotation has lost its orthonormality by rounding:
    where poses are inverted by transposition and composed again and again, that loss doubles each
    time."""
    pose = np.asarray(T, dtype=np.float64)
    return rigid(nearest_rotation(pose[:3, :3]), pose[:3, 3])


def average_rotations(rotations: ArrayLike, weights: ArrayLike | None = None) -> Float64:
    """Chordal L2 mean `[3, 3]` of rotations `[n, 3, 3]` with optional weights `[n]`."""
    stack = np.asarray(rotations, dtype=np.float64)
    w = np.ones(len(stack)) if weights is None else np.asarray(weights, dtype=np.float64)
    return nearest_rotation(np.einsum("n,nij->ij", w, stack))


def umeyama(src: ArrayLike, dst: ArrayLike, with_scale: bool = True) -> Float64:
    """Least-squares similarity `[4, 4]` mapping `src [n, 3]` onto `dst [n, 3]` (Umeyama 1991).

    Degenerate input still gives a proper similarity: where the points do not determine the rotation
    (fewer than three, or collinear) any of the equally good ones, and scale 1 where `src` has no
    extent. Raises ValueError for no point at all or non-finite points.
    """
    x, y = np.asarray(src, dtype=np.float64), np.asarray(dst, dtype=np.float64)
    if x.shape != y.shape or not len(x) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"umeyama needs finite points of one shape; got {x.shape}, {y.shape}")
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    dx, dy = x - mean_x, y - mean_y
    U, singular, Vt = np.linalg.svd(dy.T @ dx / len(x))
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(U) * np.linalg.det(Vt))])
    R = (U * signs) @ Vt
    variance = float(np.mean(np.sum(dx * dx, axis=1)))
    scale = float(singular @ signs) / variance if with_scale and variance > 1e-30 else 1.0
    scale = scale if scale > 1e-12 else 1.0
    return sim3(scale, R, mean_y - scale * R @ mean_x)


def quaternion_from_matrix(R: ArrayLike) -> Float64:
    """Unit quaternion `[4]` = x y z w, w >= 0, of a rotation `[3, 3]` (Shepperd's method: the
    largest component first)."""
    m = np.asarray(R, dtype=np.float64).tolist()
    trace = m[0][0] + m[1][1] + m[2][2]
    candidates = [m[0][0], m[1][1], m[2][2], trace]
    largest = candidates.index(max(candidates))
    if largest == 3:
        q = [m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1], 1.0 + trace]
    else:
        i, j, k = largest, (largest + 1) % 3, (largest + 2) % 3
        q = [0.0, 0.0, 0.0, m[k][j] - m[j][k]]
        q[i] = 1.0 + 2.0 * m[i][i] - trace
        q[j], q[k] = m[j][i] + m[i][j], m[k][i] + m[i][k]
    norm = math.copysign(math.hypot(*q), q[3])
    return np.array(q) / norm


def matrix_from_quaternion(q: ArrayLike) -> Float64:
    """Rotation `[3, 3]` of a quaternion `[4]` = x y z w (normalised here)."""
    v = np.asarray(q, dtype=np.float64)
    x, y, z, w = v / np.linalg.norm(v)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
