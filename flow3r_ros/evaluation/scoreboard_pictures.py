"""The ways of every contender on one clip, seen from above, as a small SVG beside
docs/results.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.clip_runs import Clip, Contender
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.geometry.trajectory_alignment import align_poses, associate
from flow3r_ros.report.svg import Line, color, line_chart, standalone
from flow3r_ros.types import Float64
from flow3r_ros.wire.tum import read_tum

TRUTH_COLOR = 6
SHADES = (0, 1, 2, 3, 4, 5, 7)


def write_ways(
    clip: Clip,
    contenders: Sequence[Contender],
    results: Mapping[tuple[str, str, int], Mapping[str, Any]],
    truth: Callable[[Clip], Trajectory],
    folder: Path,
) -> str:
    """Write `folder/CLIP.svg` and return the line of Markdown that shows it; empty where the truth
    cannot be read."""
    try:
        reference = truth(clip)
    except EvaluationError:
        return ""
    to_first = np.linalg.inv(reference.poses[0])
    ways: list[tuple[str, Float64, str, bool]] = [
        ("ground truth", reference.poses, color(TRUTH_COLOR), True)
    ]
    for index, contender in enumerate(contenders):
        path = results.get((clip.name, contender.key, 0), {}).get("trajectory")
        aligned = _aligned(Path(path), reference) if path else None
        if aligned is not None:
            ways.append((contender.title, aligned, color(SHADES[index % len(SHADES)]), False))
    curves = []
    for label, poses, shade, dashed in ways:
        centres = poses[:, :3, 3] @ to_first[:3, :3].T + to_first[:3, 3]
        curves.append(Line(label, centres[:, 0], centres[:, 2], shade, dashed, 2.0))
    # The truth sets the frame of the picture: a contender that runs away leaves it instead of
    # shrinking everything else.
    chart = line_chart(
        curves[1:] + curves[:1],
        "right (m)",
        "forward (m)",
        width=640,
        height=420,
        equal=True,
        frame=curves[0],
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{clip.name}.svg").write_text(
        standalone(chart, [(line.label, line.color) for line in curves]), encoding="utf-8"
    )
    return f"![{clip.name}: ways from above](images/{clip.name}.svg)\n"


def _aligned(path: Path, reference: Trajectory) -> Float64 | None:
    """Poses of a trajectory file in the world of the reference; None where they have no scale or no
    common stamps."""
    trajectory = read_tum(path)
    try:
        est_ids, ref_ids = associate(trajectory, reference)
        return align_poses(trajectory.poses[est_ids], reference.poses[ref_ids], "sim3").apply(
            trajectory.poses
        )
    except EvaluationError:
        return None
