"""`flow3r evaluate trajectory`: two TUM files, or trajectories in memory, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.geometry.trajectory_errors import measure_trajectory
from flow3r_ros.wire.tum import read_tum


def evaluate_trajectory(
    est: Path | Trajectory, ref: Path | Trajectory, *arguments: Any, **options: Any
) -> dict[str, Any]:
    """`geometry.trajectory_errors.measure_trajectory` of an estimate and a reference, each a TUM
    file or a trajectory."""
    return measure_trajectory(_load(est), _load(ref), *arguments, **options)


def _load(source: Path | Trajectory) -> Trajectory:
    return source if isinstance(source, Trajectory) else read_tum(Path(source))
