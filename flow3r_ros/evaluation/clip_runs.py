"""One contender on one clip, in a process of its own, with its result kept: what an interrupted scoreboard goes on from.

Ours is the public command `flow3r run`; the classical odometry reads the same frames through the same source. Results are kept under
the hash of clip, contender, settings and the sources that decide the answer, so that a changed line of code measures anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import cv2
import numpy as np
import yaml

from flow3r_ros.errors import EvaluationError, Flow3rError
from flow3r_ros.evaluation.classical_vo import ClassicalOdometry
from flow3r_ros.evaluation.depth import evaluate_depth, resample_depth
from flow3r_ros.evaluation.machine import fingerprint
from flow3r_ros.evaluation.trajectory import Trajectory, evaluate_trajectory, path_length, read_tum, rotation_angle, write_tum
from flow3r_ros.geometry.camera import load_camera
from flow3r_ros.geometry.lie import invert
from flow3r_ros.offline.sources import open_source
from flow3r_ros.types import Camera, Frame

Contender = Literal["ours", "no_assist", "classical"]
CONTENDERS: tuple[Contender, ...] = ("ours", "no_assist", "classical")
DECIDING = {
    "ours": ("types.py", "config.py", "geometry", "network", "odometry", "offline"),
    "no_assist": ("types.py", "config.py", "geometry", "network", "odometry", "offline"),
    "classical": ("geometry", "evaluation/classical_vo.py", "offline"),
}


@dataclass(frozen=True)
class Clip:
    """A folder in the layout of `../shared/video`: frames, stamps, camera.json, and ground truth where it exists."""

    path: Path
    static: bool = False
    """the camera stands still in truth, so whatever motion is found is error"""

    @property
    def name(self) -> str:
        """Name of the folder; where that is merely `clip`, its parent's name goes before."""
        return f"{self.path.parent.name}_clip" if self.path.name == "clip" else self.path.name

    @property
    def truth(self) -> Path | None:
        """`groundtruth.tum`, if there is one."""
        path = self.path / "groundtruth.tum"
        return path if path.exists() else None


def find_clips(root: Path) -> list[Clip]:
    """Every clip below a folder, by name.

    Raises:
        EvaluationError: there is none.
    """
    found = sorted(path.parent for path in root.glob("*/camera.json")) if root.is_dir() else []
    if not found:
        raise EvaluationError(f"{root}: holds no clip (a folder with camera.json)", "give the folder of the clips")
    return [Clip(path, _is_static(path)) for path in found]


def run_clip(
    clip: Clip,
    contender: Contender,
    cache: Path,
    model: str,
    weights: Path | None = None,
    max_frames: int | None = None,
    alone: bool = True,
    limit_s: float = 1800.0,
) -> dict[str, Any]:
    """Result of a contender on a clip, from the cache or measured now; whatever fails is a result too, under the key `error`, but it is
    not kept. Only with the machine to itself (`alone`) does a run use every core, and is its speed worth telling."""
    try:
        return _kept_or_measured(clip, contender, cache, model, weights, max_frames, alone, limit_s)
    except Exception as error:
        return {"error": " ".join(str(error).split()) or type(error).__name__}


def _kept_or_measured(
    clip: Clip, contender: Contender, cache: Path, model: str, weights: Path | None, max_frames: int | None, alone: bool, limit_s: float
) -> dict[str, Any]:
    word = fingerprint(DECIDING[contender], [weights] if weights and contender != "classical" else [])
    folder = cache / clip.name / f"{contender}-{word}-{max_frames or 'all'}-{'alone' if alone else 'shared'}"
    kept = folder / "result.json"
    if kept.exists():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    folder.mkdir(parents=True, exist_ok=True)
    if contender == "classical":
        result = _run_classical(clip, folder, max_frames)
    else:
        result = _run_ours(clip, folder, model, contender == "ours", max_frames, alone, limit_s)
    if "error" in result:
        return result
    result["trajectory"] = str(folder / "trajectory.tum")
    partial = folder / "result.partial"
    partial.write_text(json.dumps(result, default=str), encoding="utf-8")
    partial.rename(kept)
    return result


def _run_ours(clip: Clip, folder: Path, model: str, assist: bool, max_frames: int | None, alone: bool, limit_s: float) -> dict[str, Any]:
    settings = folder / "settings.yaml"
    tree = {"model": {"name": model, "threads": 0 if alone else 1}, "assist": {"enabled": assist}}
    settings.write_text(yaml.safe_dump(tree), encoding="utf-8")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        output = Path(scratch) / "run"
        command = [
            sys.executable,
            "-m",
            "flow3r_ros.cli",
            "run",
            str(clip.path),
            "--output",
            str(output),
            "--config",
            str(settings),
            "--json",
        ]
        command += ["--max-frames", str(max_frames)] if max_frames else []
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            return {"error": f"not finished within {limit_s:.0f} s"}
        if done.returncode:
            return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
        result: dict[str, Any] = {"summary": json.loads((output / "summary.json").read_text(encoding="utf-8"))}
        trajectory = read_tum(output / "trajectory.tum")
        write_tum(folder / "trajectory.tum", trajectory)
        result |= measure(clip, trajectory)
        result["median_depth"] = _median_depth(output / "depth")
        try:
            result["depth"] = measure_depth(clip, output / "depth")
        except EvaluationError as error:
            result["depth"] = {"error": str(error)}
        return result


def _run_classical(clip: Clip, folder: Path, max_frames: int | None) -> dict[str, Any]:
    odometry = ClassicalOdometry()
    start = perf_counter()
    try:
        with open_source(clip.path, max_frames=max_frames) as source:
            trajectory = odometry(_increasing(source))
    except Flow3rError as error:
        return {"error": str(error)}
    seconds = perf_counter() - start
    write_tum(folder / "trajectory.tum", trajectory)
    count = len(trajectory.stamps_ns)
    return {"fps": count / seconds, "frames": count, "failures": odometry.failures, **measure(clip, trajectory)}


def measure(clip: Clip, trajectory: Trajectory) -> dict[str, Any]:
    """Errors against the truth where there is one; the way's length, its farthest point from the start and its largest turn always."""
    first = invert(trajectory.poses[0]) @ trajectory.poses
    result: dict[str, Any] = {
        "frames": len(trajectory.stamps_ns),
        "path": path_length(trajectory.poses),
        "farthest": float(np.linalg.norm(first[:, :3, 3], axis=1).max()),
        "largest_turn_deg": float(np.degrees(rotation_angle(first[:, :3, :3])).max()),
    }
    if clip.truth:
        try:
            result["errors"] = evaluate_trajectory(trajectory, clip.truth, "sim3")
        except EvaluationError as error:
            result["errors"] = {"error": str(error)}
    return result


def measure_depth(clip: Clip, folder: Path) -> dict[str, Any]:
    """Depth against the clip's own depth maps, median-aligned per frame; empty where the clip has none.

    Where the truth was taken by a camera of other intrinsics (`depth_intrinsics` in camera.json), it is resampled to the estimate's view;
    the few centimetres between the two lenses are not corrected, as their calibration is not in the data.
    """
    listing = clip.path / "depth.txt"
    if not listing.exists():
        return {}
    meta = json.loads((clip.path / "camera.json").read_text(encoding="utf-8"))
    ours = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    colour = load_camera(clip.path / "camera.json")
    lens = meta.get("depth_intrinsics")
    if colour is None:
        return {}
    grid = Camera(**ours["camera"])
    source = Camera(meta["width"], meta["height"], **lens) if lens else colour
    estimates, truths = [], []
    files = sorted(folder.glob("*.png"))
    for line in listing.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        index, name = line.split()[:2]
        path = next((file for file in files if _frame_index(file) == int(index)), None)
        truth = cv2.imread(str(clip.path / name), cv2.IMREAD_UNCHANGED)
        if path is None or truth is None:
            continue
        image = np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), np.float32) / float(ours["scale"])
        metres = np.where(truth > 0, truth / float(meta["depth_scale"]), np.nan).astype(np.float32)
        truths.append(resample_depth(metres, source, grid))
        estimates.append(image)
    if not truths:
        raise EvaluationError(f"{clip.name}: no depth map of the run belongs to a frame with true depth")
    return evaluate_depth(np.stack(estimates), np.stack(truths), "median", "frame", minimum=0.1, maximum=10.0)


def _frame_index(path: Path) -> int:
    digits = "".join(letter for letter in path.stem if letter.isdigit())
    return int(digits) if digits else -1


def _median_depth(folder: Path) -> float | None:
    """Median of the depths of up to ten frames, in output units."""
    files = sorted(folder.glob("*.png"))
    if not files:
        return None
    scale = float(json.loads((folder / "meta.json").read_text(encoding="utf-8"))["scale"])
    values = [np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)) for path in files[:: max(1, len(files) // 10)]]
    known = np.concatenate([value[value > 0] for value in values])
    return float(np.median(known)) / scale if len(known) else None


def _is_static(path: Path) -> bool:
    """Whether SOURCE.md says that the camera does not move (as `../shared/video` words it)."""
    text = (path / "SOURCE.md").read_text(encoding="utf-8") if (path / "SOURCE.md").exists() else ""
    return any(words in text for words in ("camera static", "camera motion is zero", "zero-motion"))


def _increasing(source: Any) -> Any:
    """Frames whose stamp is later than that of the frame before."""
    last = -1
    for frame in source:
        if isinstance(frame, Frame) and frame.stamp_ns > last:
            last = frame.stamp_ns
            yield frame
