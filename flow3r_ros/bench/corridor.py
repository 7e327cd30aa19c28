"""A factory corridor with known floor, walls and boxes, driven through at metric scale: does the
cloud hold what a costmap asks of it?

Points are put where the true pose has them, so that the cloud alone is judged: cells of the floor
that hold points higher than `STEP` count as obstacles, and each is compared with the nearest true
one. Frame: x right, y down, z along the corridor, metres, the camera starts at the origin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flow3r_ros.config import Config, load_config
from flow3r_ros.geometry.lie import apply, invert, rigid, so3_exp
from flow3r_ros.odometry.cloud import worth_showing
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.training.scenes.layouts import SceneBuilder
from flow3r_ros.training.scenes.shapes import Scene, Shape, cast_image, paint
from flow3r_ros.training.scenes.textures import texture_atlas
from flow3r_ros.types import (
    Bool,
    Camera,
    Estimate,
    Float32,
    Float64,
    Frame,
    Predictor,
    ScaleState,
    UInt8,
)

FLOOR, WIDTH, LENGTH = 0.6, 2.4, 14.0
"""metres: of the floor below the camera, from wall to wall, from end to end"""
SPEED, RATE = 0.5, 15
"""metres and pictures a second"""
REACH = 3.0
"""metres from the camera that a local costmap looks at"""
STEP, TOP = 0.15, 1.2
"""metres above the floor between which a point is in a robot's way"""
CELL, POINTS = 0.1, 5
"""metres of a costmap's cell, and points that it must hold"""
TOLERANCE = 0.1
"""metres by which an obstacle may be off"""
LIMITS = (0.2, 0.6, 0.8, 0.85)
"""confidences from which on a costmap may take points"""
BOXES = (
    (-0.8, 2.6, 0.25, 0.30),
    (0.85, 3.9, 0.20, 0.20),
    (-0.7, 5.4, 0.30, 0.15),
    (0.8, 6.8, 0.25, 0.35),
    (-0.85, 8.2, 0.20, 0.25),
    (0.75, 9.6, 0.30, 0.20),
)
"""x, z, half width (and depth) and half height of each box, metres"""


class Corridor:
    """Pictures and truth of one drive; equal seeds give equal drives."""

    def __init__(self, frames: int, width: int = 480, height: int = 360, seed: int = 3) -> None:
        self.frames = frames
        focal = 0.62 * width
        self.camera = Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
        seconds = np.arange(frames) / RATE
        self.poses = np.stack([_pose(second) for second in seconds])
        rng = np.random.default_rng(seed)
        self._atlas = texture_atlas("photographs")
        builder = SceneBuilder(rng, self._atlas, self.poses, seconds, clearance=0.2)
        half = np.array([WIDTH / 2, 1.3, LENGTH / 2])
        middle = np.array([0.0, FLOOR - half[1], LENGTH / 2 - 1.0])
        builder.add(Shape.ROOM, half, rigid(np.eye(3), middle), repeats=0.5)
        for x, z, side, tall in BOXES:
            place = rigid(np.eye(3), np.array([x, FLOOR - tall, z]))
            builder.add(Shape.BOX, np.array([side, tall, side]), place, repeats=1.2)
        self._scene: Scene = builder.build(np.array([0.0, -0.6, 3.0]))
        self._first = self.poses[0]

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.frames):
            yield Frame(index, index * 1_000_000_000 // RATE, self._picture(index), self.camera)

    def _picture(self, index: int) -> UInt8:
        pose = invert(self._first) @ self.poses[index]
        depth, primitive = cast_image(self._scene, index, pose, self.camera)
        return paint(self._scene, index, pose, self.camera, depth, primitive, self._atlas)

    def depth(self, index: int, camera: Camera) -> Float32:
        """True depth `[h, w]` on the grid of `camera`, metres."""
        pose = invert(self._first) @ self.poses[index]
        return cast_image(self._scene, index, pose, camera)[0]


def _pose(second: float) -> Float64:
    """Camera-to-corridor `[4, 4]`: forward, swerving a little, looking 8 degrees down."""
    x, yaw = 0.12 * np.sin(0.9 * second), 0.08 * np.sin(0.9 * second + 0.4)
    look = so3_exp([0.0, yaw, 0.0]) @ so3_exp([-0.14, 0.0, 0.0])
    return rigid(look, np.array([x, 0.01 * np.sin(7 * second), SPEED * second]))


def to_nearest(places: Float64) -> Float64:
    """Metres `[M]` from places `[M, 2]` (x, z) to the nearest surface of wall or box."""
    x, z = places[:, 0], places[:, 1]
    walls = np.minimum(np.abs(np.abs(x) - WIDTH / 2), np.abs(z - (LENGTH - 1.0)))
    nearest = np.minimum(walls, np.abs(z + 1.0))
    for left, ahead, side, _ in BOXES:
        dx, dz = np.abs(x - left) - side, np.abs(z - ahead) - side
        outside = np.hypot(np.maximum(dx, 0), np.maximum(dz, 0))
        nearest = np.minimum(nearest, np.abs(outside + np.minimum(np.maximum(dx, dz), 0)))
    return nearest


@dataclass
class Cells:
    """Obstacle cells of a drive; `off` metres of each from the nearest true obstacle. `there` and
    `found`: cells of the floor that truly were in view with an obstacle, and those of them that
    ever had one of ours within `TOLERANCE`."""

    off: list[float] = field(default_factory=list)
    there: set[tuple[int, int]] = field(default_factory=set)
    found: set[tuple[int, int]] = field(default_factory=set)

    def add(self, points: Float64, true_points: Float64, camera_at: Float64) -> None:
        """One frame: points of the cloud and all true ones `[M, 3]` in the corridor's frame."""
        ours, truth = _cells(points, camera_at), _cells(true_points, camera_at)
        self.off += to_nearest(ours).tolist()
        names = [(int(x), int(z)) for x, z in np.floor(truth / CELL)]
        self.there.update(names)
        if len(ours):
            apart = np.linalg.norm(truth[:, None] - ours[None], axis=2).min(axis=1)
            near = apart < TOLERANCE + CELL / 2
            self.found.update(name for name, hit in zip(names, near, strict=True) if hit)

    def summary(self) -> dict[str, float]:
        """Cells; the share of them that is more than `TOLERANCE` off; how far off they are (95 %
        and most, metres); the share of the true cells that was found."""
        off = np.array(self.off or [np.nan])
        return {
            "cells": len(self.off),
            "phantoms": float(np.mean(off > TOLERANCE)),
            "off_p95": float(np.percentile(off, 95)),
            "off_most": float(off.max()),
            "found": len(self.found) / max(len(self.there), 1),
        }


def drive(corridor: Corridor, predictor: Predictor, limits: Sequence[float]) -> list[Cells]:
    """Drive through with the wheels' way as scale; the cells of the frames whose scale is metric,
    by what is shown above each limit of the confidence. A limit below zero shows every depth, not
    filtered at all."""
    settings = load_config(
        None, {"scale.source": "odometry", "depth.min_confidence": max(min(limits), 0.0)}
    )
    cells = [Cells() for _ in limits]
    with Engine(predictor, settings) as engine:
        for frame in corridor:
            engine.add_odometry(frame.stamp_ns, corridor.poses[frame.id])
            for estimate in engine.step(frame):
                if estimate.scale_state is not ScaleState.METRIC:
                    continue
                pose, camera = corridor.poses[estimate.frame_id], estimate.camera
                true = replace(estimate, depth=corridor.depth(estimate.frame_id, camera))
                everything = _in_corridor(true, np.isfinite(true.depth), pose)
                good = worth_showing(estimate, settings.cloud.edge_ratio)
                for limit, found in zip(limits, cells, strict=True):
                    shown = good & (estimate.confidence >= limit)
                    keep = np.isfinite(estimate.depth) if limit < 0 else shown
                    found.add(_in_corridor(estimate, keep, pose), everything, pose[:3, 3])
    return cells


def bench_corridor(thorough: bool = False) -> dict[str, Any]:
    """Suite `corridor`: 6 s of the drive (20 s when `thorough`) with the bundled model; cells of
    obstacles within `REACH` beside the cloud without filters."""
    from flow3r_ros.network.runner import open_predictor

    corridor = Corridor(20 * RATE if thorough else 6 * RATE)
    predictor = open_predictor(Config().model)
    raw, *filtered = (cells.summary() for cells in drive(corridor, predictor, (-1.0, *LIMITS)))
    rows: list[dict[str, Any]] = []
    for limit, cells in zip(LIMITS, filtered, strict=True):
        rows.append(
            {
                "name": f"obstacle cells more than 10 cm off, confidence {limit:.2f} or more",
                "median": 100 * cells["phantoms"],
                "unit": "%",
                "baseline": "no filter",
                "baseline_median": 100 * raw["phantoms"],
                "note": f"{cells['cells']:.0f} cells; 95 % within {100 * cells['off_p95']:.0f} cm, "
                f"all within {100 * cells['off_most']:.0f}; of the true cells "
                f"{100 * cells['found']:.0f} % found",
            }
        )
    return {"rows": rows, "frames": corridor.frames, "metres": SPEED * corridor.frames / RATE}


def _in_corridor(estimate: Estimate, keep: Bool, pose: Float64) -> Float64:
    return apply(pose, estimate.points()[keep].astype(np.float64))


def _cells(points: Float64, camera_at: Float64) -> Float64:
    """Centres `[M, 2]` (x, z) of the points of each obstacle cell."""
    tall = FLOOR - points[:, 1]
    flat = points[:, [0, 2]]
    near = np.linalg.norm(flat - camera_at[[0, 2]], axis=1) < REACH
    flat = flat[near & (tall > STEP) & (tall < TOP)]
    _, cell, count = np.unique(
        np.floor(flat / CELL), axis=0, return_inverse=True, return_counts=True
    )
    sums = np.stack([np.bincount(cell.ravel(), flat[:, i], len(count)) for i in (0, 1)], axis=1)
    return np.asarray((sums / np.maximum(count, 1)[:, None])[count >= POINTS])
