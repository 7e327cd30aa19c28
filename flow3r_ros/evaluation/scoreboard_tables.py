"""What `scoreboard` measured, and the tables of docs/results.md made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.benchmarks.run import render_benchmark
from flow3r_ros.evaluation.classical_vo import stand_still, straight_line
from flow3r_ros.evaluation.clip_runs import CLASSICAL, Clip, Contender, measure
from flow3r_ros.evaluation.markdown import number, table
from flow3r_ros.geometry.motion import path_length
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.wire.tum import read_tum

ACCURACY = (
    ("ate_rmse", "ATE"),
    ("rpe_trans_rmse", "RPE translation"),
    ("rpe_rot_deg_rmse", "RPE rotation"),
)
SCENES = (
    ("depth AbsRel", "abs_rel", "one constant depth", "abs_rel_constant"),
    ("depth delta < 1.25", "delta_1.25", "", ""),
    (
        "depth AbsRel, pictures alone",
        "abs_rel_no_evidence",
        "one constant depth",
        "abs_rel_constant",
    ),
    (
        "depth AbsRel where two-view geometry knows a depth",
        "abs_rel_there",
        "that depth",
        "abs_rel_triangulated",
    ),
    (
        "rotation between frames, median error (deg)",
        "rotation_deg",
        "two-view geometry",
        "rotation_deg_evidence",
    ),
    ("", "rotation_deg", "no rotation", "rotation_deg_identity"),
    (
        "direction of motion, median error (deg)",
        "direction_deg",
        "two-view geometry",
        "direction_deg_evidence",
    ),
    ("RRA@5 (share)", "rra_5", "two-view geometry", "rra_5_evidence"),
    ("RTA@15 (share)", "rta_15", "two-view geometry", "rta_15_evidence"),
    ("flow EPE of the flow head (px)", "epe_head", "no flow", "epe_zero"),
    ("flow EPE of points and poses (px)", "epe_geometry", "no flow", "epe_zero"),
    ("chance that confidence ranks a right pixel above a wrong one", "confidence_auc", "", ""),
)
"""rows of the held-out scenes: what it is, its key, what stands beside it, its key
(`training.validation`)"""


@dataclass
class Board:
    """What is measured, and what came out; `results` by clip, contender and start frame,
    `benchmarks` by NAME=DIR and model."""

    clips: Sequence[Clip]
    contenders: Sequence[Contender]
    models: Sequence[str]
    max_frames: int | None = None
    results: dict[tuple[str, str, int], dict[str, Any]] = field(default_factory=dict)
    scenes: dict[str, dict[str, Any]] = field(default_factory=dict)
    benchmarks: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def result(self, clip: Clip, contender: Contender) -> dict[str, Any]:
        """Of the whole clip."""
        return self.results.get((clip.name, contender.key, 0), {"error": "not measured"})

    def truth(self, clip: Clip) -> Trajectory:
        """True poses of the frames that were read. Raises EvaluationError."""
        assert clip.truth is not None
        whole = read_tum(clip.truth)
        return Trajectory(
            whole.stamps_ns[: self.max_frames], whole.poses[: self.max_frames], whole.name
        )


def accuracy_table(board: Board, clips: Sequence[Clip]) -> str:
    """Trajectory errors of every contender and of the baselines that use no image."""
    rows = []
    for clip in clips:
        try:
            reference = board.truth(clip)
        except EvaluationError as error:
            rows.append([clip.name, str(error)])
            continue
        stamps = [int(stamp) for stamp in reference.stamps_ns]
        answers = {contender.title: board.result(clip, contender) for contender in board.contenders}
        answers |= {
            baseline.name: measure(clip, baseline)
            for baseline in (stand_still(stamps), straight_line(stamps))
        }
        errors = {title: answer.get("errors", answer) for title, answer in answers.items()}
        for key, title in ACCURACY:
            label = (
                f"{clip.name} ({len(stamps)} frames, {path_length(reference.poses):.3g} m)"
                if key == "ate_rmse"
                else ""
            )
            best = min((error[key] for error in errors.values() if key in error), default=np.nan)
            rows.append([label, title, *[_score(error, key, best) for error in errors.values()]])
        rows.append(
            [
                "",
                "frames a second",
                *[number(answer.get("summary", {}).get("fps"), "") for answer in answers.values()],
            ]
        )
        rows += [
            ["", f"{title}: {error['error']}"]
            for title, error in errors.items()
            if "error" in error
        ]
    titles = [contender.title for contender in board.contenders]
    return table(["clip", "", *titles, "standing still", "straight line"], rows)


def _score(errors: Mapping[str, Any], key: str, best: float) -> str:
    if key not in errors:
        return "failed"
    text = number(errors[key]) + (" †" if errors["align"] == "se3" else "")
    return f"**{text}**" if errors[key] <= best else text


def scatter_table(board: Board, clips: Sequence[Clip]) -> str:
    """How far one number can be trusted: median and range over several first frames."""
    rows = []
    for clip in clips:
        cells = []
        for contender in (board.contenders[0], CLASSICAL):
            runs = [
                result
                for (name, key, _), result in board.results.items()
                if (name, key) == (clip.name, contender.key)
            ]
            values = [
                run["errors"]["ate_rmse"] for run in runs if "ate_rmse" in run.get("errors", {})
            ]
            failed = f", {len(runs) - len(values)} failed" if len(values) < len(runs) else ""
            spread = (
                f"{number(float(np.median(values)))} ({number(min(values))} to "
                f"{number(max(values))})"
                if values
                else ""
            )
            cells.append(spread + failed if len(runs) > 1 else "")
        if any(cells):
            rows.append([clip.name, *cells])
    return (
        table(["clip", board.contenders[0].title, CLASSICAL.title], rows)
        if rows
        else "No clip with truth was short enough.\n"
    )


def depth_table(board: Board, clips: Sequence[Clip]) -> str:
    """Depth errors of every contender, beside one constant depth."""
    rows = []
    for clip in clips:
        for contender in board.contenders:
            depth = board.result(clip, contender).get("depth") or {}
            if "error" in depth:
                rows.append([clip.name, contender.title, depth["error"]])
            elif depth:
                rows.append([clip.name, contender.title, *_depth_cells(depth)])
                if contender == board.contenders[0]:
                    rows.append([clip.name, "one constant depth", *_depth_cells(depth["constant"])])
    head = ["clip", "", "AbsRel", "delta < 1.25", "RMSE (m)", "log10", "coverage", "frames"]
    return table(head, rows) if rows else "No clip with depth was present.\n"


def _depth_cells(depth: Mapping[str, Any]) -> list[str]:
    return [
        *[number(depth[key]) for key in ("abs_rel", "delta_1.25", "rmse", "log10", "coverage")],
        str(depth["frames"]),
    ]


def scenes_table(board: Board) -> str:
    """The network by itself on held-out scenes; a model that failed says why below."""
    answers = {model: answer for model, answer in board.scenes.items() if "error" not in answer}
    failed = [
        f"{model}: {answer['error']}\n"
        for model, answer in board.scenes.items()
        if "error" in answer
    ]
    rows = []
    for title, key, baseline, beside in SCENES:
        value = next((answer[beside] for answer in answers.values() if beside in answer), None)
        rows.append(
            [
                title,
                *[number(answer.get(key)) for answer in answers.values()],
                baseline,
                number(value, ""),
            ]
        )
    clips = max((round(answer["clips"]) for answer in answers.values()), default=0)
    return "\n".join(
        [
            table([f"{clips} clips", *answers, "baseline", "its value"], rows) if answers else "",
            *failed,
        ]
    )


def benchmarks_table(board: Board) -> str:
    """Each benchmark's own table, published rows included."""
    if not board.benchmarks:
        return 'None was present (`make scoreboard BENCHMARKS="NAME=DIR ..."`).\n'
    parts = []
    for (pair, model), result in board.benchmarks.items():
        shown = (
            f"failed: {result['error']}\n"
            if "error" in result
            else f"```\n{render_benchmark(result)}\n```\n"
        )
        parts.append(
            f"`flow3r evaluate benchmark {pair.replace('=', ' --data ', 1)} --model "
            f"{model}`\n\n{shown}"
        )
    return "\n".join(parts)


def steadiness_table(board: Board, clips: Sequence[Clip]) -> str:
    """Farthest point and largest turn where the camera stands still."""
    rows = []
    for clip in clips:
        row = [clip.name]
        for answer in (board.result(clip, contender) for contender in board.contenders):
            if "error" in answer:
                row.append("failed")
                continue
            depth = answer.get("median_depth")
            far = (
                f"{answer['farthest'] / depth:.2%} of depth"
                if depth
                else f"{answer['farthest']:.3g} units"
            )
            row.append(f"{far}, {answer['largest_turn_deg']:.2f}°")
        rows.append(row)
    return (
        table(["clip", *[contender.title for contender in board.contenders]], rows)
        if rows
        else "No such clip was present.\n"
    )


def speed_table(board: Board) -> str:
    """Frames a second, latency and memory of every run."""
    rows = []
    for clip in board.clips:
        answers = [board.result(clip, contender) for contender in board.contenders]
        frames = next((str(answer["frames"]) for answer in answers if "frames" in answer), "")
        rows.append([clip.name, frames, *[_speed_cell(answer) for answer in answers]])
    return table(["clip", "frames", *[contender.title for contender in board.contenders]], rows)


def _speed_cell(answer: Mapping[str, Any]) -> str:
    if "summary" not in answer:
        return "failed"
    summary, latency = answer["summary"], answer["summary"]["latency_ms"]
    return (
        f"{number(summary['fps'])} fps, {number(latency['p50'])} / {number(latency['p95'])} "
        f"ms, {number(summary['peak_rss_mb'])} MB"
    )


def health_table(board: Board, contender: Contender) -> str:
    """What became of the frames of one contender: drops, states, seams, sources of poses."""
    rows = []
    for clip in board.clips:
        answer = board.result(clip, contender)
        if "error" in answer:
            rows.append([clip.name, f"failed: {answer['error']}"])
            continue
        summary = answer["summary"]
        frames = f"{summary['frames_estimated']} / {summary['frames_in']}"
        states, sources = _counts(summary["tracking_states"]), _counts(summary["pose_sources"])
        refused = f"{summary['seams_refused']} / {summary['seams']}"
        rows.append(
            [
                clip.name,
                frames,
                _counts(summary["frames_dropped"]) or "none",
                states,
                refused,
                sources,
            ]
        )
    return f"*{contender.title}*\n\n" + table(
        ["clip", "frames", "dropped", "states", "seams refused", "pose from"], rows
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(
        f"{name} {count}"
        for name, count in sorted(counts.items(), key=lambda item: -item[1])
        if count
    )
