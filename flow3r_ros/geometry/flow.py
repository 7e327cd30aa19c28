"""Flow fields: the reference's NDC, warping, flow from geometry, composition, resizing.

Flow is float32 `[h, w, 2]`, the displacement in pixels from a pixel of image a to the same surface
point in image b. The factored flow head of the network speaks absolute NDC positions instead
(PyTorch3D signs: +x left, +y up, border pixel *centres* at +-1); its conversions follow
`flow3r_architecture.md` section 11 and are checked against the golden values.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.lie import invert
from flow3r_ros.types import Bool, Camera, Float32, Float64

_ON = 1e-3
_ADD = np.ones((1, 2), dtype=np.float32)
_NO_SECOND_MAP = np.empty((0, 0), dtype=np.float32)


@lru_cache(maxsize=16)
def pixel_grid(width: int, height: int) -> Float32:
    """Pixel coordinates, float32 `[h, w, 2]` = (column, row); shared, so read-only."""
    columns, rows = np.meshgrid(
        np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    )
    grid = np.stack([columns, rows], axis=-1)
    grid.setflags(write=False)
    return grid


def _half_extent(width: int, height: int) -> Float32:
    return np.array([max(width - 1, 1), max(height - 1, 1)], dtype=np.float32) / np.float32(2.0)


def ndc_from_pixels(pixels: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """Absolute NDC `[..., 2]` of pixel positions `[..., 2]`."""
    return np.asarray(1.0 - pixels / _half_extent(width, height))


def pixels_from_ndc(ndc: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """Pixel positions `[..., 2]` of absolute NDC `[..., 2]`."""
    return np.asarray((1.0 - ndc) * _half_extent(width, height))


def flow_from_ndc(ndc: NDArray[Any]) -> NDArray[Any]:
    """Displacement in pixels `[..., h, w, 2]` from absolute target positions in NDC (what the flow
    head says)."""
    height, width = ndc.shape[-3:-1]
    return np.asarray(pixels_from_ndc(ndc, width, height) - pixel_grid(width, height))


def warp(image: NDArray[Any], flow: Float32) -> NDArray[Any]:
    """Image b seen from a: bilinear samples of `image [H, W(, C)]` at `pixel + flow [h, w, 2]`,
    clamped to the image's border."""
    return sample(image, pixel_grid(flow.shape[1], flow.shape[0]) + flow)


def sample(image: NDArray[Any], positions: NDArray[Any]) -> NDArray[Any]:
    """Bilinear samples of `image [H, W(, C)]` at pixel positions `[h, w, 2]`, clamped to the
    image's border."""
    maps = np.ascontiguousarray(positions, dtype=np.float32)
    return np.asarray(
        cv2.remap(image, maps, _NO_SECOND_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    )


def inside(positions: NDArray[Any], width: int, height: int) -> Bool:
    """True where pixel positions `[..., 2]` lie on the image (between the outermost pixel centres,
    rounding forgiven)."""
    pairs = np.ascontiguousarray(positions, dtype=np.float32).reshape(-1, 1, 2)
    found = cv2.inRange(pairs, (-_ON, -_ON), (width - 1 + _ON, height - 1 + _ON))
    return np.asarray(found.reshape(positions.shape[:-1]) > 0)


def squared_length(flow: Float32) -> Float32:
    """Squared displacement of every pixel, float32 `[h, w]`."""
    return np.asarray(cv2.transform(cv2.multiply(flow, flow), _ADD), dtype=np.float32)


HIDDEN = 0.05
"""relative difference of depths beyond which a point lies behind what the other image sees"""


def geometric_flow(
    depth_a: Float32,
    T_a_b: Float64,
    camera_a: Camera,
    camera_b: Camera,
    depth_b: Float32 | None = None,
) -> tuple[Float32, Bool]:
    """Flow from a to b that a rigid scene causes, and where both images see the same point.

    Args:
        depth_a: z `[h, w]` on the grid of `camera_a`; nan or non-positive = unknown.
        T_a_b: pose of camera b in camera a (maps points of b to a), same unit as the depth.
        camera_a, camera_b: pinholes.
        depth_b: z on the grid of `camera_b`; with it, points hidden in b (relative depth differs by
            more than `HIDDEN`) drop out.

    Returns flow float32 `[h, w, 2]` in pixels (0 where depth is unknown or behind b) and
    covisibility bool `[h, w]`.
    """
    columns = ((np.arange(camera_a.width) - camera_a.cx) / camera_a.fx).astype(np.float32)[None, :]
    rows = ((np.arange(camera_a.height) - camera_a.cy) / camera_a.fy).astype(np.float32)[:, None]
    T = invert(T_a_b).astype(np.float32)
    known = np.isfinite(depth_a) & (depth_a > 0)
    depth = np.where(known, depth_a, 1.0).astype(np.float32)
    x, y, z = (depth * (T[i, 0] * columns + T[i, 1] * rows + T[i, 2]) + T[i, 3] for i in range(3))
    known &= z > 1e-6
    safe = np.where(known, z, 1.0)
    u, v = camera_b.fx * x / safe + camera_b.cx, camera_b.fy * y / safe + camera_b.cy
    target = np.stack([u, v], axis=-1).astype(np.float32)
    flow = np.where(
        known[..., None], target - pixel_grid(camera_a.width, camera_a.height), 0.0
    ).astype(np.float32)
    covisible = known & inside(target, camera_b.width, camera_b.height)
    if depth_b is not None:
        seen = sample(depth_b.astype(np.float32), target)
        covisible &= np.abs(seen - z) < HIDDEN * safe
    return flow, covisible


def compose(flow_ab: Float32, flow_bc: Float32) -> Float32:
    """Flow from a to c through b, float32 `[h, w, 2]`; meaningful where a's target lies on b."""
    return np.asarray(flow_ab + warp(flow_bc, flow_ab), dtype=np.float32)


def resize_flow(flow: Float32, width: int, height: int) -> Float32:
    """Flow on another grid of the same image, `[height, width, 2]`: resampled and expressed in that
    grid's pixels."""
    h, w = flow.shape[:2]
    if (w, h) == (width, height):
        return flow
    method = cv2.INTER_AREA if width < w else cv2.INTER_LINEAR
    resized = cv2.resize(flow, (width, height), interpolation=method)
    return np.asarray(
        resized * np.array([width / w, height / h], dtype=np.float32), dtype=np.float32
    )


def nearest_resize(depth: Float32, width: int, height: int) -> Float32:
    """Nearest-neighbour resize of `[h, w]` depth: edges are never averaged across, NaN stays
    NaN."""
    h, w = depth.shape[:2]
    rows = np.clip(np.round((np.arange(height) + 0.5) * h / height - 0.5), 0, h - 1).astype(int)
    columns = np.clip(np.round((np.arange(width) + 0.5) * w / width - 0.5), 0, w - 1).astype(int)
    return np.asarray(depth[rows[:, None], columns[None, :]])
