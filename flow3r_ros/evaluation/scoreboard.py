"""`make scoreboard`: every clip, every contender, one table each for accuracy, steadiness and health, written to docs/results.md.

No number in that page is written by hand. An interrupted scoreboard goes on where it stopped, since each result is kept; what fails is a
row of the page. Run: `python -m flow3r_ros.evaluation.scoreboard --clips ../shared/video [--benchmark sintel=DIR ...]`.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.benchmarks.run import render_benchmark
from flow3r_ros.evaluation.classical_vo import stand_still, straight_line
from flow3r_ros.evaluation.clip_runs import CONTENDERS, DECIDING, Clip, Contender, find_clips, run_clip
from flow3r_ros.evaluation.machine import commit, describe_machine, fingerprint
from flow3r_ros.evaluation.svg import Line, color, line_chart, standalone
from flow3r_ros.evaluation.trajectory import Align, Trajectory, align_poses, associate, evaluate_trajectory, path_length, read_tum

log = logging.getLogger(__name__)
NAMES = {"ours": "Flow3r", "no_assist": "without geometric assist", "classical": "classical odometry"}
SPEED_FRAMES = 40
"""frames that the speed of the others is measured on, with the machine to themselves"""
Results = dict[str, dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, nargs="+", default=[Path("../shared/video"), Path("demo")], help="folders of clips")
    parser.add_argument("--only", nargs="*", default=None, help="names of clips; default: all")
    parser.add_argument("--model", default="flow3r_nano")
    parser.add_argument("--max-frames", type=int, default=None, help="stop every clip after so many frames; the page says so")
    parser.add_argument("--benchmark", action="append", default=[], metavar="NAME=DIR", help="also score a benchmark; repeat for several")
    parser.add_argument("--output", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/scoreboard"))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    clips = [clip for root in options.clips if root.is_dir() for clip in find_clips(root)]
    clips = [clip for clip in clips if options.only is None or clip.name in options.only]
    if not clips:
        raise EvaluationError(f"no clip below {', '.join(map(str, options.clips))}", "give folders of clips with --clips")
    results = measure_all(clips, options.cache, options.model, options.max_frames)
    benchmarks = {name: run_benchmark(name, options.cache.resolve(), options.model) for name in options.benchmark}
    write_results(options.output, clips, results, options.model, options.max_frames, benchmarks)
    log.info("wrote %s", options.output)


def measure_all(clips: Sequence[Clip], cache: Path, model: str, max_frames: int | None = None) -> dict[str, Results]:
    """Results by clip and contender; what was measured before with the same code is not measured again.

    Ours has the machine to itself, since its speed is reported; the others share it, two at a time, and show their speed (under the key
    `alone`) on the first frames of each clip beforehand.
    """
    weights = _weights(model)
    results: dict[str, Results] = {clip.name: {} for clip in clips}

    def measure(clip: Clip, contender: Contender, frames: int | None, alone: bool) -> dict[str, Any]:
        result = run_clip(clip, contender, cache.resolve(), model, weights, frames, alone)
        log.info(
            "%s, %s%s: %s", clip.name, NAMES[contender], ", alone" if alone else "", result.get("error", f"{result.get('frames')} frames")
        )
        return result

    few = min(SPEED_FRAMES, max_frames or SPEED_FRAMES)
    for clip in clips:
        results[clip.name]["ours"] = measure(clip, "ours", max_frames, True)
    others = [(clip, contender) for clip in clips for contender in CONTENDERS[1:]]
    speeds = [measure(clip, contender, few, True) for clip, contender in others]
    with ThreadPoolExecutor(2) as pool:
        whole = list(pool.map(lambda pair: measure(pair[0], pair[1], max_frames, False), others))
    for (clip, contender), result, speed in zip(others, whole, speeds, strict=True):
        results[clip.name][contender] = {**result, "alone": speed}
    return results


def _weights(model: str) -> Path | None:
    return next(iter(sorted(Path("models", model).glob("model.safetensors"))), None)


def run_benchmark(name_and_folder: str, cache: Path, model: str) -> dict[str, Any]:
    """Result of the public command `flow3r evaluate benchmark NAME --data DIR`, from the cache or measured now; a failure is a result
    too, under the key `error`, but it is not kept."""
    name, _, folder = name_and_folder.partition("=")
    weights = _weights(model)
    word = fingerprint((*DECIDING["ours"], "evaluation"), [weights] if weights else [])
    kept = cache / "benchmarks" / f"{name}-{word}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    log.info("benchmark %s", name)
    command = [sys.executable, "-m", "flow3r_ros.cli", "evaluate", "benchmark", name, "--data", folder, "--model", model, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(done.stdout, encoding="utf-8")
    return dict(json.loads(done.stdout))


def write_results(
    output: Path,
    clips: Sequence[Clip],
    results: dict[str, Results],
    model: str,
    max_frames: int | None = None,
    benchmarks: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """The page and its pictures (trajectories only: no image of a clip is copied)."""
    machine = describe_machine()
    measured = [clip for clip in clips if clip.truth]
    images = output.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    parts = [
        "# Results\n",
        "Written by `make scoreboard`; no number here is edited by hand. Every clip that was present is listed, good or bad.\n",
        f"Commit {commit() or 'unknown'}, {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, model `{model}`, {machine['cpu']}, "
        f"{machine['cores']} cores, torch {machine['torch']}, GPU: {machine['gpu']}.\n",
        f"Every clip was stopped after {max_frames} frames.\n" if max_frames else "",
        "## Accuracy on clips with ground truth\n",
        "Sim(3)-aligned ATE; RPE over one frame; metres (nerf_fox_50: arbitrary units), degrees. *Classical odometry* is KLT, essential "
        "matrix and triangulated scale with the same intrinsics (`evaluation/classical_vo.py`); *standing still* (SE(3)-aligned) and "
        "*straight line* (constant velocity) use no image.\n",
        _accuracy(measured, results, max_frames),
        *[_picture(clip, results[clip.name], images, max_frames) for clip in measured],
        "## Depth\n",
        _depth(measured, results),
        "## The network by itself, on the held-out synthetic set\n",
        _network(model),
        "## Benchmarks\n",
        _benchmarks(benchmarks or {}),
        "## Steadiness where the camera stands still\n",
        "Farthest point from the start as a share of the median depth of the scene, and the largest turn of the camera. Truth: 0 and 0.\n",
        _steadiness([clip for clip in clips if clip.static], results),
        "## Every clip\n",
        "Frames estimated of frames read, speed of `flow3r run` end to end, latency of one step, drops, states, refused seams, and which "
        "candidate won the pose. Each run had the machine to itself.\n",
        _health(clips, results),
        "## Every clip without geometric assist\n",
        f"These runs shared the machine two at a time; speed, latency and memory are those of the first {SPEED_FRAMES} frames with the "
        "machine to themselves.\n",
        _health(clips, results, "no_assist"),
    ]
    output.write_text("\n".join(part for part in parts if part), encoding="utf-8")


def _truth(clip: Clip, max_frames: int | None) -> Trajectory:
    assert clip.truth is not None
    whole = read_tum(clip.truth)
    return Trajectory(whole.stamps_ns[:max_frames], whole.poses[:max_frames], whole.name)


def _accuracy(clips: Sequence[Clip], results: dict[str, Results], max_frames: int | None) -> str:
    rows = []
    for clip in clips:
        try:
            reference = _truth(clip, max_frames)
            length = path_length(reference.poses)
        except EvaluationError as error:
            rows.append([clip.name, str(error)])
            continue
        stamps = [int(stamp) for stamp in reference.stamps_ns]
        answers = {NAMES[name]: results[clip.name][name] for name in CONTENDERS}
        columns: dict[str, dict[str, Any]] = {
            name: answer.get("errors", {"error": answer.get("error", "not measured")}) for name, answer in answers.items()
        }
        columns["standing still"] = _errors(stand_still(stamps), reference, "se3")
        columns["straight line"] = _errors(straight_line(stamps), reference, "sim3")
        for key, title in (("ate_rmse", "ATE"), ("rpe_trans_rmse", "RPE translation"), ("rpe_rot_deg_rmse", "RPE rotation")):
            label = f"{clip.name} ({len(stamps)} frames, {length:.3g} m)" if key == "ate_rmse" else ""
            best = min((column[key] for column in columns.values() if key in column), default=None)
            rows.append([label, title, *[_best(column.get(key), best) if key in column else "failed" for column in columns.values()]])
        for name, column in columns.items():
            if "error" in column:
                rows.append(["", f"{name}: {column['error']}"])
    return _table(["clip", "", *NAMES.values(), "standing still", "straight line"], rows)


def _errors(estimate: Trajectory, reference: Trajectory, align: Align) -> dict[str, Any]:
    try:
        return evaluate_trajectory(estimate, reference, align)
    except EvaluationError as error:
        return {"error": str(error)}


def _picture(clip: Clip, answers: Results, images: Path, max_frames: int | None) -> str:
    """The ways from above, aligned to the truth."""
    try:
        reference = _truth(clip, max_frames)
    except EvaluationError:
        return ""
    to_first = np.linalg.inv(reference.poses[0])
    lines = [("ground truth", reference.poses, color(6), True)]
    for index, name in enumerate(CONTENDERS):
        path = Path(answers[name].get("trajectory", "missing"))
        if not path.exists():
            continue
        trajectory = read_tum(path)
        try:
            est_ids, ref_ids = associate(trajectory, reference)
            alignment = align_poses(trajectory.poses[est_ids], reference.poses[ref_ids], "sim3")
        except EvaluationError:
            continue
        lines.append((NAMES[name], alignment.apply(trajectory.poses), color((0, 1, 2)[index]), False))
    curves = []
    for label, poses, shade, dashed in lines:
        centres = poses[:, :3, 3] @ to_first[:3, :3].T + to_first[:3, 3]
        curves.append(Line(label, centres[:, 0], centres[:, 2], shade, dashed, 2.0))
    # The truth sets the frame of the picture: a contender that runs away leaves it instead of shrinking everything else.
    chart = line_chart(curves[1:] + curves[:1], "right (m)", "forward (m)", width=640, height=420, equal=True, frame=curves[0])
    file = images / f"{clip.name}.svg"
    file.write_text(standalone(chart, [(line.label, line.color) for line in curves]), encoding="utf-8")
    return f"![{clip.name}: ways from above](images/{file.name})\n"


def _depth(clips: Sequence[Clip], results: dict[str, Results]) -> str:
    rows = []
    for clip in clips:
        for name in ("ours", "no_assist"):
            depth = results[clip.name][name].get("depth") or {}
            if "abs_rel" in depth:
                numbers = [_number(depth[key]) for key in ("abs_rel", "delta_1.25", "rmse", "log10", "coverage")]
                rows.append([clip.name, NAMES[name], *numbers, str(depth["frames"])])
            elif "error" in depth:
                rows.append([clip.name, NAMES[name], depth["error"]])
    if not rows:
        return "No clip with depth was present.\n"
    note = "Median-aligned per frame, 0.1 to 10 m; the depth camera is another lens than the colour camera (offset not corrected).\n\n"
    return note + _table(["clip", "", "AbsRel", "delta < 1.25", "RMSE (m)", "log10", "coverage", "frames"], rows)


def _network(model: str) -> str:
    """What the model's manifest says of it, as `training.validation` measured it."""
    manifest = next((path for path in (Path(model, "manifest.yaml"), Path("models", model, "manifest.yaml")) if path.exists()), None)
    metrics = (yaml.safe_load(manifest.read_text(encoding="utf-8")) or {}).get("metrics") if manifest else None
    if not manifest or not metrics:
        return "The model's manifest holds no metrics.\n"
    rows = []
    for group, values in metrics.items():
        pairs = values.items() if isinstance(values, dict) else [("", values)]
        rows += [[group.replace("_", " "), name, _number(value) if isinstance(value, float) else str(value)] for name, value in pairs]
    return f"From `{manifest}`; names with `constant`, `identity`, `zero`, `triangulated` are the baselines.\n\n" + _table(
        ["set", "metric", "value"], rows
    )


def _benchmarks(benchmarks: Mapping[str, dict[str, Any]]) -> str:
    """Each benchmark's own table, published rows included."""
    if not benchmarks:
        return 'None was present (`make scoreboard BENCHMARKS="NAME=DIR ..."`).\n'
    parts = []
    for name, result in benchmarks.items():
        table = f"failed: {result['error']}\n" if "error" in result else f"```\n{render_benchmark(result)}\n```\n"
        parts.append(f"`flow3r evaluate benchmark {name.replace('=', ' --data ', 1)}`\n\n{table}")
    return "\n".join(parts)


def _steadiness(clips: Sequence[Clip], results: dict[str, Results]) -> str:
    if not clips:
        return "No such clip was present.\n"
    rows = []
    for clip in clips:
        row = [clip.name]
        for name in CONTENDERS:
            answer = results[clip.name][name]
            if "error" in answer:
                row.append("failed")
                continue
            depth = answer.get("median_depth")
            far = f"{answer['farthest'] / depth:.2%} of depth" if depth else f"{answer['farthest']:.3g} units"
            row.append(f"{far}, {answer['largest_turn_deg']:.2f}°")
        rows.append(row)
    return _table(["clip", *NAMES.values()], rows)


def _health(clips: Sequence[Clip], results: dict[str, Results], contender: str = "ours") -> str:
    rows = []
    for clip in clips:
        answer = results[clip.name][contender]
        if "error" in answer:
            rows.append([clip.name, f"failed: {answer['error']}"])
            continue
        summary = answer["summary"]
        speed = answer["alone"].get("summary", {}) if "alone" in answer else summary
        latency = speed.get("latency_ms", {})
        rows.append(
            [
                clip.name,
                f"{summary['frames_estimated']} / {summary['frames_in']}",
                _number(speed.get("fps")),
                f"{_number(latency.get('p50'))} / {_number(latency.get('p95'))}",
                _counts(summary["frames_dropped"]) or "none",
                _counts(summary["tracking_states"]),
                f"{summary['seams_refused']} / {summary['seams']}",
                _counts(summary["pose_sources"]),
                _number(speed.get("peak_rss_mb")),
                _number(results[clip.name]["classical"].get("alone", {}).get("fps")),
            ]
        )
    head = ["clip", "frames", "fps", "p50 / p95 ms", "dropped", "states", "seams refused", "pose from", "peak MB", "classical fps"]
    return _table(head, rows)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]) if count)


def _best(value: float | None, best: float | None) -> str:
    if value is None:
        return ""
    return f"**{_number(value)}**" if best is not None and value <= best else _number(value)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join([*row, *[""] * (len(head) - len(row))]) + " |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
