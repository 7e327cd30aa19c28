"""The textured plane of `bench.plane_scene` in small, as views, references and frames with known
poses."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from flow3r_ros.bench.plane_scene import CAMERA as LARGE
from flow3r_ros.bench.plane_scene import PlanePredictor, PlaneScene
from flow3r_ros.config import Config, load_config
from flow3r_ros.geometry.camera import scaled
from flow3r_ros.geometry.camera_pose import DepthPoints
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.lie import invert
from flow3r_ros.odometry.corners import Reference
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.odometry.input import view_of
from flow3r_ros.odometry.promotion import new_corners
from flow3r_ros.odometry.views import View, rays_of
from flow3r_ros.types import Estimate, Float64, Frame, Prediction, UInt8, Window

CAMERA = scaled(LARGE, 320, 240)
SCENE = PlaneScene(CAMERA)
PERIOD_NS = 33_333_333
START_NS = 1_700_000_000_123_456_789
DEPTH_WIDTH = 168
BLACK = np.zeros((240, 320, 3), np.uint8)


@cache
def picture(index: int) -> UInt8:
    return SCENE.picture(SCENE.pose(index))


def frame_of(id_: int, rgb: UInt8) -> Frame:
    return Frame(id_, START_NS + id_ * PERIOD_NS, rgb, CAMERA)


def frames_of(order: Iterable[int | None]) -> list[Frame]:
    """Pictures of these moments with fresh ids and stamps; None is a black picture."""
    return [
        frame_of(id_, BLACK if index is None else picture(index)) for id_, index in enumerate(order)
    ]


def view(rgb: UInt8, id_: int = 0) -> View:
    return view_of(frame_of(id_, rgb), DEPTH_WIDTH)


def seen_at(index: int) -> View:
    return view(picture(index), index)


def depth_at(index: int, where: View, relative_sigma: float = 0.02) -> DepthMap:
    """The exact inverse depth."""
    inverse = (1.0 / SCENE.points(SCENE.pose(index), where.camera)[..., 2]).astype(np.float32)
    return DepthMap(inverse, (relative_sigma * inverse).astype(np.float32))


def reference_at(index: int, corners: int = 200) -> Reference:
    """A keyframe that knows everything."""
    where = seen_at(index)
    pixels = new_corners(where, np.empty((0, 2), np.float32), corners)
    depth = depth_at(index, where)
    inverse = exact_inverse(index, where, pixels)
    points = DepthPoints(rays_of(where.lens, pixels), inverse, 0.02 * inverse)
    moving = np.zeros(where.gray.shape, np.bool_)
    return Reference(
        where, SCENE.pose(index), depth, moving, np.arange(len(pixels)), pixels, points
    )


def exact_inverse(index: int, where: View, pixels: np.ndarray) -> Float64:
    """Exact inverse depth `[N]` of pixels `[N, 2]` of the tracking image."""
    from flow3r_ros.bench.plane_scene import DISTANCE, NORMAL

    pose = SCENE.pose(index)
    directions = rays_of(where.lens, pixels)
    depth = (DISTANCE - NORMAL @ pose[:3, 3]) / (directions @ (pose[:3, :3].T @ NORMAL))
    return np.asarray(1.0 / depth)


def relative(a: int, b: int) -> Float64:
    """Pose of the camera at moment b in that at moment a."""
    return np.asarray(invert(SCENE.pose(a)) @ SCENE.pose(b))


def settings(**overrides: object) -> Config:
    tree = {"tracking.depth_width": DEPTH_WIDTH, "tracking.corners": 160}
    return load_config(None, tree | {k.replace("__", "."): v for k, v in overrides.items()})


class Network(PlanePredictor):
    """Knows the plane; `mishap` may change its answer, raise, or wait."""

    def __init__(
        self,
        order: Sequence[int | None],
        mishap: Callable[[Prediction, int], Prediction] | None = None,
        seconds: float = 0.0,
    ) -> None:
        super().__init__(SCENE, lambda frame: SCENE.pose(order[frame.id] or 0), (84, 63))
        self.asked = 0
        self._mishap, self._seconds = mishap, seconds

    def predict(self, window: Window) -> Prediction:
        self.asked += 1
        time.sleep(self._seconds)
        answer = super().predict(window)
        return answer if self._mishap is None else self._mishap(answer, self.asked)


def stepped(
    network: Network, frames: Iterable[Frame], config: Config | None = None
) -> tuple[list[Estimate], Engine]:
    """Estimates by `step` and the engine, closed."""
    with Engine(network, config or settings()) as engine:
        estimates = [each for frame in frames for each in engine.step(frame)] + engine.finish()
    return estimates, engine


def bytes_of(estimates: Iterable[Estimate]) -> list[bytes]:
    """Everything in each estimate but its timing."""
    return [pickle.dumps(replace(estimate, stage_ms={})) for estimate in estimates]


def position_error(estimate: Estimate, first: int, index: int) -> float:
    """Distance from the true position, whose unit the network's is."""
    return float(np.linalg.norm(estimate.T_odom_cam[:3, 3] - relative(first, index)[:3, 3]))
