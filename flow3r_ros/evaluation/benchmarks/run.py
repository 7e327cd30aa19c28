"""`evaluate_benchmark(name, data, predictor)`: prediction and scores of one benchmark, with the
published rows beside them.

The paper defines neither its MSE nor its f-score@5; here they are taken after Sim(3) alignment on
valid pixels, in square metres and at 0.05 m, and every result says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flow3r_ros.config import Config
from flow3r_ros.datasets.sequence import Sequence, load_frame
from flow3r_ros.errors import EvaluationError, InputError
from flow3r_ros.evaluation.angular import angular_metrics
from flow3r_ros.evaluation.benchmarks.protocols import Benchmark, find_benchmark, sample
from flow3r_ros.evaluation.benchmarks.published import CAUTIONS, published_rows
from flow3r_ros.evaluation.depth import evaluate_depth
from flow3r_ros.evaluation.pointmap import evaluate_point_map
from flow3r_ros.evaluation.trajectory import evaluate_trajectory
from flow3r_ros.geometry.camera import Rectifier, default_camera, scaled
from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.geometry.depth_map import resample_depth
from flow3r_ros.geometry.evidence import evidence_from_images
from flow3r_ros.geometry.lie import apply
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.types import Camera, Estimate, Float32, Float64, Frame, Predictor, Window

FSCORE_M = 0.05
SCORES = ("ate_rmse", "rpe_trans_rmse", "rpe_rot_deg_rmse", "path_length")
WITH_DEPTH = ("depth_abs_rel", "depth_delta_1.25", "chamfer", "normal_consistency")
POINT_MAPS = (
    "point maps: Sim(3) on valid pixels, no ICP, MSE in m^2, f-score at 0.05 m "
    "(undefined "
    "in the paper)"
)


def evaluate_benchmark(
    name: str, data: Path, predictor: Predictor, config: Config | None = None
) -> dict[str, Any]:
    """Score a network on a benchmark.

    Returns:
        `benchmark`, `model`, `protocol`, `mean` (each score over sequences), `sequences` (name ->
        scores, frames, notes), `failed` (name -> reason) and `published` (rows of the paper, not
        reproduced). Scores: ATE and RPE after Sim(3) alignment for trajectories; RRA, RTA and AUC
        for windows; with depth also AbsRel (median per frame), and point maps after Sim(3)
        alignment on valid pixels, without ICP: MSE in square metres and f-score at 0.05 m (the
            paper defines neither).

    Raises:
        EvaluationError: an unknown name, or no sequence that could be scored.
        InputError: a piece of the download is missing or damaged.
    """
    name, benchmark = find_benchmark(name)
    if not data.is_dir():
        raise InputError(f"{data}: no such folder", f"give the folder of the {name} download")
    scores: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for sequence in benchmark.load(data):
        chosen, note = sample(sequence, benchmark)
        try:
            views = (
                _through_window(chosen, predictor)
                if benchmark.way == "window"
                else _through_odometry(chosen, predictor, config)
            )
            score = _score(benchmark, chosen, views)
            scores[sequence.name] = {**score, "notes": [*sequence.notes, *note, *_undefined(score)]}
        except (EvaluationError, InputError) as error:
            failed[sequence.name] = str(error)
    if not scores:
        raise EvaluationError(f"{name}: no sequence could be scored; {next(iter(failed.values()))}")
    mean = _means(list(scores.values()))
    return {
        "benchmark": name,
        "model": predictor.name,
        "protocol": benchmark.protocol + (f"; {POINT_MAPS}" if "mse" in mean else ""),
        "mean": mean,
        "sequences": scores,
        "failed": failed,
        "published": published_rows(name),
        "caution": CAUTIONS.get(name, ""),
    }


def render_benchmark(result: dict[str, Any]) -> str:
    """A result as a table: ours first, then the published rows; below it our other scores, and what
    was left out or failed."""
    mean, published = result["mean"], result["published"]
    ours = {**mean, "fscore@5": mean.get(f"fscore@{FSCORE_M:g}")}
    keys = (
        [key for key in published[0] if key not in ("method", "published_not_reproduced")]
        if published
        else list(SCORES)
    )
    also = [
        f"{key} {ours[key]:.4g}"
        for key in (*SCORES, *WITH_DEPTH)
        if key in ours and key not in keys
    ]
    lines = ["  ".join([f"{'':<36}", *(f"{key:>14}" for key in keys)])]
    lines.append(
        "  ".join(
            [
                f"{result['model']:<36}",
                *(
                    f"{ours[key]:>14.4g}" if ours.get(key) is not None else f"{'':>14}"
                    for key in keys
                ),
            ]
        )
    )
    for row in published:
        lines.append(
            "  ".join(
                [
                    f"{row['method'] + ' (published, not reproduced)':<36}",
                    *(f"{row[key]:>14g}" for key in keys),
                ]
            )
        )
    lines += [
        f"also: {', '.join(also)}" if also else "",
        f"{len(result['sequences'])} sequences; {result['protocol']}",
        result["caution"],
    ]
    lines += [
        f"note: {name}: {note}"
        for name, scores in result["sequences"].items()
        for note in scores["notes"]
    ]
    lines += [f"failed: {name}: {reason}" for name, reason in result["failed"].items()]
    return "\n".join(line for line in lines if line)


@dataclass(frozen=True)
class _View:
    """One predicted frame: pose in the prediction's world, points in the camera `[h, w, 3]`, the
    pinhole of that grid.

    `points` are kept only where they are scored, so that a long sequence fits into memory.
    """

    index: int
    pose: Float64
    points: Float32 | None
    camera: Camera


def _through_window(sequence: Sequence, predictor: Predictor) -> list[_View]:
    frames = [_rectified(frame) for frame in sequence.frames()]
    height, width = frames[0].rgb.shape[:2]
    camera = frames[0].camera or default_camera(width, height)
    ids = tuple(frame.id for frame in frames)
    evidence = None
    if predictor.uses_evidence:
        matcher = Matcher(width=336)
        grays = [matcher.prepare(frame.rgb) for frame in frames]
        evidence = evidence_from_images(grays, camera, matcher, predictor.input_size(width, height))
    predictor.reset()
    prediction = predictor.predict(Window(tuple(frames), ids, evidence))
    grid = prediction.local_points.shape[2], prediction.local_points.shape[1]
    cameras = [scaled(frame.camera or camera, *grid) for frame in frames]
    parts = zip(ids, prediction.poses, prediction.local_points, cameras, strict=True)
    return [_View(index, pose, points, small) for index, pose, points, small in parts]


def _through_odometry(
    sequence: Sequence, predictor: Predictor, config: Config | None
) -> list[_View]:
    predictor.reset()
    scored = set(_scored_for_depth(sequence))
    views: list[_View] = []

    def keep(estimates: list[Estimate]) -> None:
        for estimate in estimates:
            points = estimate.points() if estimate.frame_id in scored else None
            views.append(_View(estimate.frame_id, estimate.T_odom_cam, points, estimate.camera))

    with Engine(predictor, config or Config()) as engine:
        for frame_id, shot in enumerate(sequence.shots):
            keep(engine.step(load_frame(frame_id, shot)))
        keep(engine.finish())
    return views


def _scored_for_depth(sequence: Sequence) -> list[int]:
    """Up to 30 frames with true depth, evenly spread."""
    known = [i for i, shot in enumerate(sequence.shots) if shot.depth is not None]
    return known[:: max(1, -(-len(known) // 30))]


def _rectified(frame: Frame) -> Frame:
    if frame.camera is None or frame.camera.distortion_model == "none":
        return frame
    rectifier = Rectifier(frame.camera)
    return replace(frame, rgb=rectifier.apply(frame.rgb), camera=rectifier.rectified)


def _score(benchmark: Benchmark, sequence: Sequence, views: list[_View]) -> dict[str, Any]:
    if len(views) < 2:
        raise EvaluationError(
            f"{sequence.name}: only {len(views)} of {len(sequence.shots)} frames were estimated"
        )
    shots = [sequence.shots[view.index] for view in views]
    truth = sequence.only([view.index for view in views]).poses()
    poses = np.stack([view.pose for view in views])
    scores: dict[str, Any] = {"frames": len(shots), "estimated": len(views)}
    if benchmark.way == "window":
        scores |= angular_metrics(poses, truth)
    else:
        stamps = np.array([shot.stamp_ns for shot in shots], np.int64)
        scores |= evaluate_trajectory(
            Trajectory(stamps, poses, "estimate"), Trajectory(stamps, truth, sequence.name), "sim3"
        )
    scored = set(_scored_for_depth(sequence))
    if scored:
        scores |= _score_depth(
            sequence,
            [(view, pose) for view, pose in zip(views, truth, strict=True) if view.index in scored],
        )
    return scores


def _score_depth(sequence: Sequence, views: list[tuple[_View, Float64]]) -> dict[str, Any]:
    """Depth per frame and point maps in one world, on the prediction's own grid; each view comes
    with its true pose."""
    est_depth, ref_depth, est_points, ref_points = [], [], [], []
    for view, truth in views:
        shot = sequence.shots[view.index]
        assert view.points is not None
        assert shot.depth is not None
        depth = shot.depth()
        lens = shot.depth_camera or shot.camera or default_camera(depth.shape[1], depth.shape[0])
        reference = resample_depth(depth, lens, view.camera)
        est_depth.append(view.points[..., 2])
        ref_depth.append(reference)
        est_points.append(apply(view.pose, view.points.astype(np.float64)))
        ref_points.append(apply(truth, _back_project(reference, view.camera)))
    maps = evaluate_point_map(np.stack(est_points), np.stack(ref_points), thresholds=(FSCORE_M,))
    depths = evaluate_depth(np.stack(est_depth), np.stack(ref_depth), "median", "frame")
    return {
        **{
            f"depth_{key}": depths[key]
            for key in ("abs_rel", "delta_1.25", "rmse", "log10", "coverage")
        },
        **maps,
    }


def _back_project(depth: Float32, camera: Camera) -> Float64:
    rows, columns = np.indices(depth.shape)
    z = depth.astype(np.float64)
    return np.stack(
        [z * (columns - camera.cx) / camera.fx, z * (rows - camera.cy) / camera.fy, z], axis=-1
    )


def _undefined(score: dict[str, Any]) -> list[str]:
    """What has no value because the true camera does not move."""
    still, pairs = score.get("undefined_directions", 0), score.get("pairs", 0)
    return (
        [
            f"RTA is undefined for {still} of {pairs} pairs: the true camera does not "
            "move between them"
        ]
        if still
        else []
    )


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean over sequences of every score that is a number; None (undefined) is left out."""
    keys = {key for row in rows for key, value in row.items() if isinstance(value, float)}
    return {
        key: float(np.mean([row[key] for row in rows if isinstance(row.get(key), float)]))
        for key in sorted(keys)
    }
