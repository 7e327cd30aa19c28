"""Smooth camera paths: a body twist that varies slowly is integrated, so every path is a solution
of rigid motion.

Motions: `handheld` (6 DoF), `driving` (forward and yaw), `orbit` (looking at what it circles),
`sideways` (dolly), `rotation` (no translation) and `static`. Camera frames are optical (x right, y
down, z forward).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from flow3r_ros.geometry.lie import se3_exp
from flow3r_ros.types import Float64

Motion = Literal["handheld", "driving", "orbit", "sideways", "rotation", "static"]

_SUBSTEPS = 8


@dataclass(frozen=True)
class Path:
    """Body twist over time: `mean + amplitude * sin(frequency * t + phase)`, each `[6]` (vx, vy,
    vz, wx, wy, wz) per unit of time."""

    start: Float64
    mean: Float64
    amplitude: Float64
    frequency: Float64
    phase: Float64

    def poses(self, times: Float64) -> Float64:
        """Camera-to-world poses float64 `[N, 4, 4]` at non-decreasing times `[N]`, by the midpoint
        rule in fixed substeps."""
        poses = [self.start]
        for before, after in pairwise(times):
            pose = poses[-1]
            substeps = max(_SUBSTEPS, int(np.ceil((after - before) * _SUBSTEPS)))
            step = (after - before) / substeps
            for index in range(substeps):
                middle = before + (index + 0.5) * step
                pose = pose @ se3_exp(
                    (self.mean + self.amplitude * np.sin(self.frequency * middle + self.phase))
                    * step
                )
            poses.append(pose)
        return np.stack(poses)


def random_path(
    rng: np.random.Generator,
    motion: Motion,
    start: Float64,
    speed: float,
    turn: float,
    radius: float,
) -> Path:
    """A random path of a motion family.

    Args:
        start: `[4, 4]` camera-to-world at time 0.
        speed: typical translation per unit of time, scene units.
        turn: typical rotation per unit of time, radians.
        radius: distance to what an orbit circles, scene units.
    """
    mean = np.zeros(6)
    amplitude = np.zeros(6)
    direction = rng.normal(size=3) * (1.0, 0.5, 1.0)
    direction /= np.linalg.norm(direction)
    spin = rng.normal(size=3) * (0.6, 1.0, 0.4)
    spin /= np.linalg.norm(spin)
    if motion == "handheld":
        mean[:3], mean[3:] = direction * speed, spin * turn
        amplitude[:3], amplitude[3:] = (
            rng.normal(size=3) * 0.4 * speed,
            rng.normal(size=3) * 0.4 * turn,
        )
    elif motion == "driving":
        mean[2], mean[4] = speed, turn * rng.normal() * 0.3
        amplitude[1], amplitude[3], amplitude[4] = 0.01 * speed, 0.03 * turn, 0.3 * turn
    elif motion == "orbit":
        side = speed * rng.choice((-1.0, 1.0))
        mean[0], mean[4] = side, -side / radius
        amplitude[1], amplitude[2], amplitude[3] = rng.normal(size=3) * (
            0.3 * speed,
            0.3 * speed,
            0.1 * turn,
        )
    elif motion == "sideways":
        mean[:3] = (speed * rng.choice((-1.0, 1.0)), 0.2 * speed * rng.normal(), 0.0)
        amplitude[3:] = rng.normal(size=3) * 0.05 * turn
    elif motion == "rotation":
        mean[3:] = spin * turn
        amplitude[3:] = rng.normal(size=3) * 0.3 * turn
    return Path(start, mean, amplitude, rng.uniform(0.3, 1.5, 6), rng.uniform(0, 2 * np.pi, 6))
