"""The keyframes that are remembered and the points between them.

A point lives in the keyframe that first saw it, as a pixel there with an inverse depth; every other
keyframe that sees it holds an observation. The back end owns the map and is the only one to change
it; the front end gets a `Reference` of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.camera_pose import DepthPoints
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.lie import invert
from flow3r_ros.odometry.views import View, rays_through
from flow3r_ros.types import Bool, Float32, Float64

Ids = NDArray[np.int64]


@dataclass
class Keyframe:
    """A remembered view.

    `pose` float64 `[4, 4]` camera-to-world, odometry units; `ids` int64 `[M]` of the points seen in
    it (its own included), sorted, and `pixels` float32 `[M, 2]` where, in its tracking image;
    `measured` what
    geometry alone knows of its depth, on the depth grid, `depth` that completed by the network;
    `moving` bool `[h, w]`, pixels that move by themselves.
    """

    view: View
    pose: Float64
    ids: Ids
    pixels: Float32
    measured: DepthMap
    depth: DepthMap
    moving: Bool

    @property
    def id(self) -> int:
        """Its frame's id."""
        return self.view.id

    def observe(self, ids: Ids, pixels: Float32) -> None:
        """Add observations; what was seen already is replaced."""
        merged = np.concatenate([ids, self.ids])
        where = np.concatenate([pixels, self.pixels])
        self.ids, first = np.unique(merged, return_index=True)
        self.pixels = where[first]

    def forget(self, ids: Ids) -> None:
        """Take observations away."""
        keep = ~np.isin(self.ids, ids)
        self.ids, self.pixels = self.ids[keep], self.pixels[keep]


@dataclass(frozen=True)
class Points:
    """Points as columns, sorted by id: `ids`; `hosts` the ids of their keyframes; `rays` float64
    `[N, 3]` in the host's optical frame with z = 1; `inverse` and `sigma` `[N]` inverse depth
    there; `prior` and `prior_sigma` what was known before any adjustment."""

    ids: Ids
    hosts: Ids
    rays: Float64
    inverse: Float64
    sigma: Float64
    prior: Float64
    prior_sigma: Float64

    def only(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> Points:
        """Some of them."""
        return Points(**{name: column[keep] for name, column in vars(self).items()})

    def with_more(self, others: Points) -> Points:
        """These and others, whose ids are larger."""
        more = vars(others)
        return Points(
            **{name: np.concatenate([column, more[name]]) for name, column in vars(self).items()}
        )

    def rows(self, ids: Ids) -> NDArray[np.intp]:
        """Rows of points that exist."""
        return np.asarray(np.searchsorted(self.ids, ids), np.intp)


def no_points() -> Points:
    """None yet."""
    none, empty = np.empty(0, np.int64), np.empty(0)
    return Points(none, none, np.empty((0, 3)), empty, empty, empty, empty)


class KeyframeMap:
    """Keyframes, oldest first, and their points; at most `capacity` keyframes. `focal` is how long
    their lens is over the given one, `focal_sigma` the 1-sigma of its logarithm, `bend` its radial
    distortion beyond what was given."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.keyframes: list[Keyframe] = []
        self.points = no_points()
        self.focal, self.focal_sigma, self.bend = 1.0, 0.0, 0.0

    def refocus(self, focal: float, sigma: float, bend: float) -> None:
        """The lens is as long as this and bends so: pixels stay, their rays change."""
        for keyframe in self.keyframes:
            keyframe.view = keyframe.view.with_lens(focal, bend)
        before = (self.focal, self.bend)
        self.points.rays[:] = rays_through(self.points.rays, before, (focal, bend))
        self.focal, self.focal_sigma, self.bend = focal, sigma, bend

    def __len__(self) -> int:
        return len(self.keyframes)

    def add(self, keyframe: Keyframe, new: Points) -> None:
        """Take in a keyframe and its own new points (hosted there, ids beyond all others); over
        capacity the oldest keyframe goes, with its points."""
        self.keyframes.append(keyframe)
        self.points = self.points.with_more(new)
        if len(self.keyframes) > self.capacity:
            gone = self.keyframes.pop(0)
            self._drop(self.points.hosts == gone.id)

    def remove(self, ids: Ids) -> None:
        """Forget points."""
        self._drop(np.isin(self.points.ids, ids))

    def _drop(self, which: NDArray[np.bool_]) -> None:
        ids = self.points.ids[which]
        self.points = self.points.only(~which)
        for keyframe in self.keyframes:
            keyframe.forget(ids)

    def change(self, rows: NDArray[np.intp], inverse: Float64, sigma: Float64) -> None:
        """Give points other inverse depths."""
        self.points.inverse[rows], self.points.sigma[rows] = inverse, sigma

    def reset_prior(self, rows: NDArray[np.intp], inverse: Float64, sigma: Float64) -> None:
        """Give points that nobody else has seen another depth to start from."""
        self.change(rows, inverse, sigma)
        self.points.prior[rows], self.points.prior_sigma[rows] = inverse, sigma

    def find(self, id_: int) -> Keyframe:
        """The keyframe of a frame id."""
        return next(keyframe for keyframe in self.keyframes if keyframe.id == id_)

    def poses_of(self, ids: Ids) -> Float64:
        """Camera-to-world poses `[n, 4, 4]` of keyframes."""
        order = np.array([keyframe.id for keyframe in self.keyframes])
        poses = np.stack([keyframe.pose for keyframe in self.keyframes])
        return np.asarray(poses[np.searchsorted(order, ids)])

    def seen_from(self, ids: Ids, T_world_cam: Float64) -> DepthPoints:
        """Points in a camera's optical frame; inverse depth is 0 or less behind it."""
        points = self.points.only(self.points.rows(ids))
        if not len(points.ids):
            return DepthPoints(np.empty((0, 3)), np.empty(0), np.empty(0))
        T = invert(T_world_cam) @ self.poses_of(points.hosts)
        turned = np.einsum("nij,nj->ni", T[:, :3, :3], points.rays)
        q = turned + points.inverse[:, None] * T[:, :3, 3]
        safe = np.where(np.abs(q[:, 2]) > 1e-6, q[:, 2], 1e-6)
        inverse = points.inverse / safe
        sigma = points.sigma * np.abs(turned[:, 2]) / safe**2
        return DepthPoints(q / safe[:, None], inverse, sigma)
