"""Pictures that compare the depth of two runs of a clip, before and after a change.

    python -m flow3r_ros.evaluation.depth_pictures CLIP BEFORE AFTER --output docs/images

where BEFORE and AFTER are folders of `flow3r run CLIP --save-confidence`. Writes depth_CLIP.jpg (a
row a frame: picture, depth before, depth after), cloud_CLIP.jpg (both clouds, seen from behind and
above a pose of the middle) and, where the clip has true depth, reliability_CLIP.svg.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np

from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import EvaluationError, Flow3rError
from flow3r_ros.evaluation.clip_depth import measure_confidence
from flow3r_ros.report.svg import Line, color, line_chart, standalone
from flow3r_ros.types import Float32, Float64, UInt8
from flow3r_ros.wire.ply import read_ply
from flow3r_ros.wire.tum import read_tum

ROWS, WIDTH = 3, 300
"""frames of a strip, and the width of each of its pictures, pixels"""
NAMES = ("before", "after")
CLOUD = (420, 300)
"""size of a cloud's picture, pixels"""
BACK, UP = 0.35, 0.25
"""how far behind and above the pose a cloud is looked at, in its median depth"""


def write_pictures(clip: Path, runs: tuple[Path, Path], output: Path) -> list[Path]:
    """All pictures of one clip; see the module. Raises EvaluationError when the runs have no
    common depth map."""
    output.mkdir(parents=True, exist_ok=True)
    name = f"{clip.parent.name}_clip" if clip.name == "clip" else clip.name
    common = sorted(set.intersection(*(_indices(run) for run in runs)))
    if not common:
        raise EvaluationError(f"{clip.name}: the runs have no common depth map", "run both again")
    chosen = [common[round(k * (len(common) - 1) / (ROWS + 1))] for k in range(1, ROWS + 1)]
    written = [output / f"depth_{name}.jpg", output / f"cloud_{name}.jpg"]
    _write(written[0], _strip(clip, runs, chosen))
    _write(written[1], np.hstack([_cloud(run) for run in runs]))
    measured = [measure_confidence(clip, run).get("curve") for run in runs]
    curves = [curve for curve in measured if curve]
    if len(curves) == len(runs):
        written.append(output / f"reliability_{name}.svg")
        written[-1].write_text(_reliability(curves), encoding="utf-8")
    return written


def _indices(run: Path) -> set[int]:
    """Frames whose depth is known somewhere."""
    files = (run / "depth").glob("*.png")
    return {
        int(path.stem)
        for path in files
        if np.any(np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))
    }


def _write(path: Path, rgb: UInt8) -> None:
    cv2.imwrite(str(path), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


def _strip(clip: Path, runs: tuple[Path, Path], chosen: list[int]) -> UInt8:
    pictures: dict[int, UInt8] = {}
    with open_source(clip, max_frames=max(chosen) + 1) as source:
        for frame in source:
            if frame.id in chosen:
                pictures[frame.id] = frame.rgb
    rows = []
    for index in chosen:
        maps = [_depth(run, index) for run in runs]
        low, high = np.nanpercentile(np.log(maps[0]), (2, 98))
        # Each run has its own unit: both are shown at one median.
        shifts = [float(np.nanmedian(np.log(map_))) for map_ in maps]
        colours = [
            _coloured(np.log(map_) + np.float32(shifts[0] - shift), low, high)
            for map_, shift in zip(maps, shifts, strict=True)
        ]
        size = (WIDTH, round(WIDTH * maps[0].shape[0] / maps[0].shape[1]))
        row = [pictures[index], *colours]
        rows.append(
            np.hstack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in row])
        )
    return np.asarray(np.vstack(rows), np.uint8)


def _depth(run: Path, index: int) -> Float32:
    """Depth `[h, w]` in units of the run, NaN unknown."""
    scale = json.loads((run / "depth" / "meta.json").read_text(encoding="utf-8"))["scale"]
    file = run / "depth" / f"{index:06d}.png"
    raw = np.asarray(cv2.imread(str(file), cv2.IMREAD_UNCHANGED))
    return np.where(raw > 0, raw / np.float32(scale), np.float32(np.nan)).astype(np.float32)


def _coloured(log_depth: Float32, low: float, high: float) -> UInt8:
    """Near is bright, far is dark, unknown is grey."""
    level = np.nan_to_num((high - log_depth) / max(high - low, 1e-6))
    shade = np.rint(255 * np.clip(level, 0, 1)).astype(np.uint8)
    painted = cv2.applyColorMap(shade, cv2.COLORMAP_INFERNO)[..., ::-1].copy()
    painted[~np.isfinite(log_depth)] = 128
    return np.asarray(painted, np.uint8)


def _cloud(run: Path) -> UInt8:
    points, rgb = read_ply(run / "cloud.ply")
    poses = read_tum(run / "trajectory.tum").poses
    return draw_cloud(points.astype(np.float64), rgb, poses[len(poses) // 2])


def draw_cloud(points: Float64, rgb: UInt8, pose: Float64) -> UInt8:
    """Points `[M, 3]` with colours `[M, 3]` seen from behind and above a camera-to-world `pose`, on
    white; the nearer point of a pixel wins."""
    width, height = CLOUD
    seen = (points - pose[:3, 3]) @ pose[:3, :3]
    ahead = seen[seen[:, 2] > 0]
    unit = float(np.median(ahead[:, 2])) if len(ahead) else 1.0
    x, y, z = (seen + np.array([0.0, UP * unit, BACK * unit])).T
    tilt = np.arctan2(UP, BACK + 1.0)
    y, z = y * np.cos(tilt) - z * np.sin(tilt), y * np.sin(tilt) + z * np.cos(tilt)
    front = z > 0.05 * unit
    focal = 0.8 * width
    u = np.rint(focal * x[front] / z[front] + width / 2).astype(int)
    v = np.rint(focal * y[front] / z[front] + height / 2).astype(int)
    far_first = np.argsort(-z[front], kind="stable")
    picture = np.full((height, width, 3), 255, np.uint8)
    for step in ((0, 0), (0, 1), (1, 0), (1, 1)):
        column, row = u[far_first] + step[0], v[far_first] + step[1]
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        picture[row[inside], column[inside]] = rgb[front][far_first][inside]
    return picture


def _reliability(curves: list[list[list[float]]]) -> str:
    """Share of right pixels over what was said, beside the line of a perfect probability."""
    ends = np.array([0.0, 1.0])
    lines = [Line("perfect", ends, ends, color(6), True)]
    for index, (name, curve) in enumerate(zip(NAMES, curves, strict=True)):
        said, right = np.array(curve)[:, 0], np.array(curve)[:, 1]
        lines.append(Line(name, said, right, color(1 - index)))
    chart = line_chart(lines, "confidence said", "share of pixels within 10 %", 640, 420)
    return standalone(chart, [(line.label, line.color) for line in lines])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    for path in write_pictures(options.clip, (options.before, options.after), options.output):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    try:
        main()
    except Flow3rError as error:
        sys.exit(f"flow3r: {error}")
