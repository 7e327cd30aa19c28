"""Trajectories on disk in the TUM format: `timestamp tx ty tz qx qy qz qw`, one pose a line,
seconds.

Stamps become integer nanoseconds without passing through a float, so a round trip changes no digit.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from flow3r_ros.errors import EvaluationError, OutputError, cause_of
from flow3r_ros.geometry.lie import matrix_from_quaternion, quaternion_from_matrix
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.types import Float64, seconds
from flow3r_ros.wire.stamp_text import nanoseconds

_log = logging.getLogger(__name__)
_NAMES = ("tx", "ty", "tz", "qx", "qy", "qz", "qw")
_LINE = "each line is `timestamp tx ty tz qx qy qz qw`"


def read_tum(path: Path) -> Trajectory:
    """Read a trajectory file: TUM, and what other programs make of it.

    Lines that start with `#` are comments. Fields are separated by blanks or commas; a header that
    names its columns (EuRoC's `#timestamp, p_RS_R_x [m], ..., q_RS_w []`, or
    `timestamp,tx,...,qw`) sets their order; commas with nanoseconds and no header are the files of
    VINS, whose quaternion begins with w. Stamps may be in any unit of `wire.stamp_text`. What was
    taken for something else than TUM is logged.

    Raises:
        EvaluationError: the file cannot be read, a line is not eight numbers, a quaternion is zero,
            poses are not finite, no unit of time fits, or stamps do not increase; the message names
            file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path}: cannot be read ({cause_of(error)})", _cure(path)) from error
    order: list[int] | None = None
    found: list[tuple[int, list[str]]] = []
    for number, line in enumerate(lines, start=1):
        fields = _fields(line.lstrip().lstrip("#"))
        if not fields:
            continue
        if line.lstrip().startswith("#") or not (found or _is_number(fields[0])):
            named = _named_columns(fields)
            if named is None and not line.lstrip().startswith("#"):
                raise EvaluationError(f"{path}:{number}: not a number", _LINE)
            order = named or order
            continue
        found.append((number, fields))
    if not found:
        raise EvaluationError(f"{path}: holds no pose", _cure(path))
    stamps, unit = _stamps(path, found)
    if order is None:
        vins = "," in lines[found[0][0] - 1] and unit == "nanoseconds"
        order = [1, 2, 3, 5, 6, 7, 4] if vins else [1, 2, 3, 4, 5, 6, 7]
        exact = None if vins else 8
    else:
        exact = None
    rows = [_row(path, number, fields, order, exact) for number, fields in found]
    if unit != "seconds" or order != [1, 2, 3, 4, 5, 6, 7]:
        columns = " ".join(_NAMES[order.index(at)] for at in sorted(order))
        _log.info("%s: read as %s, columns %s", path, unit, columns)
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    for pose, row in zip(poses, rows, strict=True):
        pose[:3, :3] = matrix_from_quaternion(row[3:])
        pose[:3, 3] = row[:3]
    return Trajectory(np.array(stamps, np.int64), poses, str(path))


def _cure(path: Path) -> str:
    """What to give instead of `path`: the trajectory in it, where it is a folder that has one."""
    try:
        inside = sorted(path.glob("*.tum"), key=lambda file: (file.name != "trajectory.tum", file))
    except OSError:
        inside = []
    return f"give {inside[0]}" if inside else "give a TUM trajectory file"


def _fields(line: str) -> list[str]:
    separator = "," if "," in line else ";" if ";" in line else None
    fields = [field.strip() for field in line.strip().split(separator)]
    while fields and not fields[-1]:
        fields.pop()
    return fields


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _named_columns(fields: list[str]) -> list[int] | None:
    """Where a header has tx ty tz qx qy qz qw; None when it does not name them all."""
    names = [re.sub(r"\[.*?\]|\W", "", field).lower() for field in fields]
    rotation = [bool(re.match(r"q|quat|ori|rot", name)) for name in names]
    places = []
    for axis, turned in (*((a, False) for a in "xyz"), *((a, True) for a in "xyzw")):
        place = next(
            (
                at
                for at, name in enumerate(names)
                if name.endswith(axis) and rotation[at] == turned and at > 0
            ),
            None,
        )
        if place is None:
            return None
        places.append(place)
    return places


def _stamps(path: Path, found: list[tuple[int, list[str]]]) -> tuple[list[int], str]:
    if {len(fields) for _, fields in found} == {12}:
        raise EvaluationError(
            f"{path}: 12 numbers a line, the poses of KITTI, which have no stamps",
            "write them as TUM lines with the stamps of times.txt",
        )
    try:
        return nanoseconds([fields[0] for _, fields in found])
    except ValueError as error:
        at = error.args[0]
        if at < 0:
            raise EvaluationError(
                f"{path}: its stamps are no time in seconds, nor in any other unit",
                "write seconds in the first column",
            ) from error
        raise EvaluationError(f"{path}:{found[at][0]}: not a number", _LINE) from error


def _row(
    path: Path, number: int, fields: list[str], order: list[int], exact: int | None
) -> list[float]:
    """tx ty tz qx qy qz qw of one line."""
    if len(fields) <= max(order) or (exact is not None and len(fields) != exact):
        raise EvaluationError(f"{path}:{number}: {len(fields)} fields", _LINE)
    try:
        values = [float(fields[at]) for at in order]
    except ValueError as error:
        raise EvaluationError(f"{path}:{number}: not a number", _LINE) from error
    if not np.isfinite(values).all() or np.linalg.norm(values[3:]) < 1e-6:
        raise EvaluationError(
            f"{path}:{number}: the pose is not finite or its quaternion is zero",
            "leave the line out",
        )
    return values


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
        raise OutputError(f"{path}: cannot be written ({cause_of(error)})") from error


def tum_line(stamp_ns: int, pose: Iterable[float]) -> str:
    """`timestamp tx ty tz qx qy qz qw` and a newline, every number with 9 decimals: nanometres at
    metric scale. `pose` as `pose_numbers` gives it."""
    return f"{seconds(stamp_ns)} {' '.join(f'{number:.9f}' for number in pose)}\n"


def pose_numbers(pose: Float64) -> tuple[float, ...]:
    """`tx ty tz qx qy qz qw` of a camera-to-world pose `[4, 4]`."""
    return (*pose[:3, 3], *quaternion_from_matrix(pose[:3, :3]))
