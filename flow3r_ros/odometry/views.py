"""One frame as the odometry looks at it: rectified, at the sizes that its readers want."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from flow3r_ros.geometry.correspondence import Correspondence, Picture
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.flow import pixel_grid
from flow3r_ros.geometry.gyro import Turn
from flow3r_ros.types import Bool, Camera, Float32, Float64, Frame, UInt8

INVERTED = 5
"""rounds that invert a radial distortion: it is small"""


@dataclass(frozen=True)
class View:
    """A rectified frame.

    `frame` the full image and its pinhole; `tracking` gray uint8 `[H, W]` with the pinhole `lens`,
    what corners are followed in; `rgb` and `gray` uint8 on the depth grid with the pinhole
    `camera`; `ignored` bool on the depth grid, None: every pixel counts; `turn` since the frame
    before, by a gyroscope; `focal` how long the two pinholes are over the given one, `bend` what
    radial distortion the calibration left (`straightened`).
    """

    frame: Frame
    tracking: UInt8
    lens: Camera
    rgb: UInt8
    gray: UInt8
    camera: Camera
    ignored: Bool | None = None
    turn: Turn | None = None
    focal: float = 1.0
    bend: float = 0.0

    def with_lens(self, focal: float, bend: float) -> View:
        """The same through a lens that is `focal` times as long as the given one, and bends so."""
        if (focal, bend) == (self.focal, self.bend):
            return self
        longer = focal / self.focal
        lens, camera = (
            replace(each, fx=longer * each.fx, fy=longer * each.fy)
            for each in (self.lens, self.camera)
        )
        return replace(self, lens=lens, camera=camera, focal=focal, bend=bend)

    def straightened(self, pixels: Float32) -> Float64:
        """Positions `[N, 2]` in the tracking image as the pinhole `lens` sees them."""
        return straightened(pixels, self.lens, self.focal, self.bend)

    def bent(self, pixels: Float64) -> Float64:
        """Positions `[N, 2]` of the pinhole `lens` in the tracking image."""
        return bent(pixels, self.lens, self.focal, self.bend)

    def straightened_link(self, link: Correspondence) -> Correspondence:
        """Dense matches of this picture with another one through the same lens, on the depth grid,
        without what its distortion adds to their flow."""
        if not self.bend:
            return link
        height, width = link.covisibility.shape
        grid = pixel_grid(width, height).reshape(-1, 2)
        there = grid + link.flow.reshape(-1, 2)
        ends = (straightened(each, self.camera, self.focal, self.bend) for each in (there, grid))
        flow = np.subtract(*ends).astype(np.float32).reshape(height, width, 2)
        return replace(link, flow=flow)

    def rays(self, pixels: Float32) -> Float64:
        """Rays `[N, 3]` with z = 1 of positions `[N, 2]` in the tracking image."""
        return rays_of(self.lens, self.straightened(pixels))

    @property
    def id(self) -> int:
        """The frame's id."""
        return self.frame.id

    @property
    def ratio(self) -> Float32:
        """Size of the tracking image over that of the depth grid, `[2]` (x, y)."""
        (high, wide), (rows, columns) = self.tracking.shape, self.gray.shape
        return np.array([wide / columns, high / rows], dtype=np.float32)

    @cached_property
    def sparse_camera(self) -> Camera:
        """The pinhole of every second pixel of the depth grid, from the first one on."""
        height, width = self.gray[::2, ::2].shape
        c = self.camera
        return replace(c, width=width, height=height, fx=c.fx / 2, fy=c.fy / 2,
                       cx=c.cx / 2, cy=c.cy / 2)  # fmt: skip

    @cached_property
    def picture(self) -> Picture:
        """`gray`, ready to be matched."""
        return Picture.of(self.gray)

    def shows(self, pixels: Float32) -> Bool:
        """Whether positions `[N, 2]` in the tracking image are not ignored."""
        if self.ignored is None:
            return np.ones(len(pixels), np.bool_)
        rows, columns = self.ignored.shape
        x, y = np.rint(np.nan_to_num(pixels, nan=-1.0) / self.ratio).astype(np.intp).T
        hidden = self.ignored[np.clip(y, 0, rows - 1), np.clip(x, 0, columns - 1)]
        return np.asarray(~hidden)

    def seen(self, depth: DepthMap) -> DepthMap:
        """A depth map of this frame without what is ignored."""
        return depth if self.ignored is None else depth.where(~self.ignored)

    def turned(self, pixels: Float32) -> Float32 | None:
        """Where pixels `[N, 2]` of the frame before are by the turn alone; None without one."""
        if self.turn is None or not len(pixels):
            return None
        K: Float64 = self.lens.matrix
        there = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(K).T @ self.turn.R
        there = there @ K.T
        ahead = there[:, 2:] > 1e-6
        return np.where(ahead, there[:, :2] / np.where(ahead, there[:, 2:], 1.0), pixels).astype(
            np.float32
        )


def straightened(pixels: Float32 | Float64, lens: Camera, focal: float, bend: float) -> Float64:
    """Pixels `[N, 2]` without the radial distortion `bend` that a calibration left: each is moved
    away from the principal point by `bend` times the square of its distance from it, in focal
    lengths as given (`lens` is `focal` times as long)."""
    centre, given = _axes(lens, focal)
    return np.asarray(centre + given * _widened((pixels - centre) / given, bend))


def bent(pixels: Float64, lens: Camera, focal: float, bend: float) -> Float64:
    """Where pixels `[N, 2]` are before they are `straightened`."""
    centre, given = _axes(lens, focal)
    return np.asarray(centre + given * _narrowed((pixels - centre) / given, bend))


def rays_of(lens: Camera, pixels: Float32 | Float64) -> Float64:
    """Rays `[N, 3]` with z = 1 of pixels `[N, 2]` of a pinhole."""
    x = (pixels[:, 0].astype(np.float64) - lens.cx) / lens.fx
    y = (pixels[:, 1].astype(np.float64) - lens.cy) / lens.fy
    return np.stack([x, y, np.ones(len(pixels))], axis=1)


def rays_through(rays: Float64, before: tuple[float, float], now: tuple[float, float]) -> Float64:
    """Rays `[N, 3]` with z = 1 of the same pixels after the lens, (focal, bend), turned out to be
    another one."""
    seen = _narrowed(before[0] * rays[:, :2], before[1])
    return np.column_stack([_widened(seen, now[1]) / now[0], rays[:, 2]])


def _widened(off: Float64, bend: float) -> Float64:
    """Distances `[N, 2]` from the principal point, focal lengths, without the distortion."""
    return off * (1.0 + bend * np.sum(off * off, axis=1, keepdims=True)) if bend else off


def _narrowed(off: Float64, bend: float) -> Float64:
    """The inverse of `_widened`, by fixed point."""
    seen = off
    for _ in range(INVERTED if bend else 0):
        seen = off / (1.0 + bend * np.sum(seen * seen, axis=1, keepdims=True))
    return seen


def _axes(lens: Camera, focal: float) -> tuple[Float64, Float64]:
    """Principal point and given focal lengths, `[2]` each."""
    return np.array([lens.cx, lens.cy]), np.array([lens.fx, lens.fy]) / focal
