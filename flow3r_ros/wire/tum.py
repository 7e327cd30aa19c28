"""Trajectories on disk in the TUM format: `timestamp tx ty tz qx qy qz qw`, one pose a line,
seconds.

Stamps become integer nanoseconds without passing through a float, so a round trip changes no digit.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from flow3r_ros.errors import EvaluationError, OutputError
from flow3r_ros.geometry.lie import matrix_from_quaternion, quaternion_from_matrix
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.types import Float64, seconds


def read_tum(path: Path) -> Trajectory:
    """Read a TUM file; lines that start with `#` are comments.

    Raises:
        EvaluationError: the file cannot be read, a line is not eight numbers, a quaternion is zero,
            poses are not finite, or stamps do not increase; the message names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(
            f"{path}: cannot be read ({error})", "give a TUM trajectory file"
        ) from error
    stamps: list[int] = []
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = line.replace(",", " ").split()
        try:
            stamp, values = Decimal(fields[0]), [float(field) for field in fields[1:]]
        except (InvalidOperation, ValueError) as error:
            raise EvaluationError(
                f"{path}:{number}: not a number", "each line is `timestamp tx ty tz qx qy qz qw`"
            ) from error
        if len(values) != 7 or not stamp.is_finite():
            raise EvaluationError(
                f"{path}:{number}: {len(fields)} fields",
                "each line is `timestamp tx ty tz qx qy qz qw`",
            )
        if not np.isfinite(values).all() or np.linalg.norm(values[3:]) < 1e-6:
            raise EvaluationError(
                f"{path}:{number}: the pose is not finite or its quaternion is zero",
                "leave the line out",
            )
        stamps.append(int((stamp * 1_000_000_000).to_integral_value()))
        rows.append(values)
    if not rows:
        raise EvaluationError(f"{path}: holds no pose", "give a TUM trajectory file")
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    for pose, row in zip(poses, rows, strict=True):
        pose[:3, :3] = matrix_from_quaternion(row[3:])
        pose[:3, 3] = row[:3]
    return Trajectory(np.array(stamps, np.int64), poses, str(path))


def write_tum(path: Path, trajectory: Trajectory) -> None:
    """Write poses as TUM lines, stamps with nine decimals from the integer nanoseconds.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        path.write_text(
            "".join(
                tum_line(int(stamp), pose_numbers(pose))
                for stamp, pose in zip(trajectory.stamps_ns, trajectory.poses, strict=True)
            ),
            encoding="utf-8",
        )
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error})") from error


def tum_line(stamp_ns: int, pose: Iterable[float]) -> str:
    """`timestamp tx ty tz qx qy qz qw` and a newline, every number with 9 decimals: nanometres at
    metric scale. `pose` as `pose_numbers` gives it."""
    return f"{seconds(stamp_ns)} {' '.join(f'{number:.9f}' for number in pose)}\n"


def pose_numbers(pose: Float64) -> tuple[float, ...]:
    """`tx ty tz qx qy qz qw` of a camera-to-world pose `[4, 4]`."""
    return (*pose[:3, 3], *quaternion_from_matrix(pose[:3, :3]))
