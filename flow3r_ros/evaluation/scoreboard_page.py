"""docs/results.md from what `scoreboard` measured: accuracy, steadiness, speed and memory, each
beside its baseline and its command."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from flow3r_ros.evaluation.clip_runs import CLASSICAL, Contender
from flow3r_ros.evaluation.machine import commit, describe_machine
from flow3r_ros.evaluation.scoreboard_pictures import write_ways
from flow3r_ros.evaluation.scoreboard_tables import (
    Board,
    accuracy_table,
    benchmarks_table,
    depth_table,
    health_table,
    scatter_table,
    scenes_table,
    speed_table,
    steadiness_table,
)


def write_page(output: Path, board: Board, trust: str = "") -> None:
    """The page and its pictures (trajectories only: no image of a clip is copied). `trust` are the
    sections of `scoreboard_trust`."""
    machine = describe_machine()
    gpu = (
        machine["gpu"]
        if machine["gpu"] != "none"
        else "none in this machine; on a GPU nothing of this page is measured yet"
    )
    with_truth = [clip for clip in board.clips if clip.truth]
    parts = [
        "# Results\n",
        "Written by `make scoreboard`; no number here is edited by hand. Every clip "
        "that was present is listed, good or bad; "
        "`python -m flow3r_ros.evaluation.scoreboard --only NAME --output FILE` measures one.\n",
        f"Commit {commit() or 'unknown'}, {datetime.now(timezone.utc):%Y-%m-%d %H:%M} "
        f"UTC, {machine['cpu']}, {machine['cores']} cores, "
        f"torch {machine['torch']}. GPU: {gpu}.\n",
        f"Every clip was stopped after {board.max_frames} frames.\n" if board.max_frames else "",
        "Contenders: "
        f"{'; '.join(_described(contender) for contender in board.contenders)}; "
        "*standing still* and *straight line* (constant "
        "velocity), which use no image.\n",
        "## Accuracy\n",
        "`flow3r run CLIP --output RUN`, then `flow3r evaluate trajectory "
        "RUN/trajectory.tum CLIP/groundtruth.tum --align sim3`. ATE, and "
        "RPE over one frame: RMSE in metres (nerf_fox_50: arbitrary units) and "
        "degrees, after Sim(3) alignment. † stands still, so that "
        "its scale is undefined: aligned by SE(3). Best in bold.\n",
        accuracy_table(board, with_truth),
        *[
            write_ways(clip, board.contenders, board.results, board.truth, output.parent / "images")
            for clip in with_truth
        ],
        "### How far one number can be trusted\n",
        "ATE of the same clip without its first 0, 2, 4, 6, 8 frames: median (lowest "
        "to highest).\n",
        scatter_table(board, with_truth),
        trust,
        "## Depth\n",
        "Depth of the same runs, median-aligned per frame, 0.1 to 10 m; the depth "
        "camera is another lens than the colour camera (offset "
        "not corrected).\n",
        depth_table(board, with_truth),
        "## The network by itself, on held-out synthetic scenes\n",
        "`flow3r evaluate scenes --data FOLDER --model NAME`\n",
        scenes_table(board),
        "## Benchmarks\n",
        benchmarks_table(board),
        "## Steadiness where the camera stands still\n",
        "Farthest point from the start as a share of the median depth of the scene, "
        "and the largest turn of the camera. Truth: 0 and 0.\n",
        steadiness_table(board, [clip for clip in board.clips if clip.static]),
        "## Speed and memory\n",
        "Frames a second of the whole run, p50 / p95 of one frame in ms, peak memory "
        "in MB; each run had the machine to itself.\n",
        speed_table(board),
        "## Health of every run\n",
        *[health_table(board, contender) for contender in board.contenders if contender.model],
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(part for part in parts if part), encoding="utf-8")


def _described(contender: Contender) -> str:
    if contender == CLASSICAL:
        return (
            f"*{contender.title}* (`evaluation/classical_vo.py`: OpenCV KLT, essential "
            "matrix, triangulated scale; same intrinsics)"
        )
    return f"*{contender.title}* (model `{contender.model}`, default settings)"
