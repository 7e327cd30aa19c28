"""`flow3r evaluate recording`: how good is it on my data, with whatever truth there is, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flow3r_ros.config import Config
from flow3r_ros.datasets.recording_truth import DepthReader, depth_from_bag, poses_from_bag
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import EvaluationError, InputError, OutputError
from flow3r_ros.evaluation.agreement import Agreement, loop_error
from flow3r_ros.evaluation.depth import evaluate_depth
from flow3r_ros.evaluation.recording_checks import check_rows
from flow3r_ros.evaluation.trajectory import evaluate_trajectory
from flow3r_ros.geometry.camera import scaled
from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.geometry.depth_map import resample_depth
from flow3r_ros.geometry.motion import path_length
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.odometry.model_defaults import fitted_to
from flow3r_ros.offline.drive import drive
from flow3r_ros.offline.summary import summarise, title_of
from flow3r_ros.report.page import write_report
from flow3r_ros.report.record import RunRecord
from flow3r_ros.types import Estimate, Float32, Predictor
from flow3r_ros.wire.tum import read_tum

MATCH_NS = 10_000_000
"""largest stamp difference of an image and its true depth"""


def evaluate_recording(
    recording: Path,
    predictor: Predictor,
    config: Config | None = None,
    html: Path | None = None,
    reference: Path | None = None,
    truth_topic: str | None = None,
    depth_topic: str | None = None,
    topic: str | None = None,
    camera: Path | None = None,
    max_frames: int | None = None,
    offset_s: float = 0.0,
) -> dict[str, Any]:
    """Run a recording through the odometry and judge it.

    Args:
        recording: bag, video, image folder or clip folder.
        predictor: the network.
        config: settings of the odometry.
        html: page to write.
        reference: TUM file of true camera poses; without it `groundtruth.tum` beside the recording,
            if there is one.
        truth_topic: topic of the bag with true poses (Odometry, PoseStamped,
            PoseWithCovarianceStamped, TransformStamped).
        depth_topic: topic of the bag with true depth (16UC1 millimetres or 32FC1 metres).
        topic: image topic.
        camera: camera.json.
        max_frames: stop after so many.
        offset_s: seconds added to the stamps of the recording, for true poses in another time base.

    Returns:
        `summary` (keys of summary.json), `agreement` (label-free, by gap), `seams` (median and 95th
        percentile of the residual, refused), `loop`, and where there is truth `trajectory` and
        `depth`; a comparison that is impossible leaves its reason under `error`.

    Raises:
        EvaluationError: no frame could be used, or the truth that was named cannot be read.
        OutputError: the page cannot be written.
    """
    settings = fitted_to(predictor, config or Config())
    truth = _true_poses(recording, reference, truth_topic)
    if html is not None and not html.parent.is_dir():
        raise OutputError(f"{html}: its folder does not exist", "make the folder first")
    truth_depth = _TrueDepth(depth_from_bag(recording, depth_topic)) if depth_topic else None
    matcher = Matcher(width=settings.tracking.depth_width)
    agreement, record = Agreement(matcher), RunRecord(title_of(recording))

    def take(estimate: Estimate) -> None:
        record.add(estimate)
        agreement.add(estimate)
        if truth_depth is not None:
            truth_depth.match(estimate)

    with (
        open_source(recording, topic, camera, max_frames=max_frames) as source,
        Engine(predictor, settings) as engine,
    ):
        timing = drive(source, engine, take, quiet=True)
        record.summary = summarise(source, engine, record, timing)
    record.settings = settings.model_dump()
    residuals = record.column("seam_residual").astype(np.float64)
    known = residuals[np.isfinite(residuals)]
    assert agreement.first is not None
    assert agreement.last is not None
    result: dict[str, Any] = {
        "summary": record.summary,
        "agreement": agreement.summary(),
        "seams": {
            "residual_median": float(np.median(known)) if len(known) else None,
            "residual_p95": float(np.percentile(known, 95)) if len(known) else None,
            "refused": record.summary["seams_refused"],
            "of": record.summary["seams"],
        },
        "loop": loop_error(agreement.first, agreement.last, path_length(record.poses), matcher),
    }
    if truth is not None:
        result["trajectory"] = _trajectory(record, truth, offset_s)
        record.reference = Trajectory(
            truth.stamps_ns - round(offset_s * 1e9), truth.poses, truth.name
        )
    if truth_depth is not None:
        result["depth"] = truth_depth.score()
    if html is not None:
        write_report(html, record, check_rows(result))
    return result


def _true_poses(
    recording: Path, reference: Path | None, truth_topic: str | None
) -> Trajectory | None:
    """Those that were named, else `groundtruth.tum` in or beside the recording, else None."""
    if truth_topic:
        return poses_from_bag(recording, truth_topic)
    if reference:
        return read_tum(reference)
    beside = next(
        (
            folder / "groundtruth.tum"
            for folder in (recording, recording.parent)
            if (folder / "groundtruth.tum").is_file()
        ),
        None,
    )
    return read_tum(beside) if beside else None


def _trajectory(record: RunRecord, truth: Trajectory, offset_s: float) -> dict[str, Any]:
    """Errors against the true poses, or under `error` why they cannot be compared."""
    try:
        return evaluate_trajectory(record.trajectory(), truth, "sim3", offset_s=offset_s)
    except EvaluationError as error:
        return {"error": str(error)}


class _TrueDepth:
    """True depth images of a recording, and the estimates that belong to them."""

    def __init__(self, readers: dict[int, DepthReader]) -> None:
        self._open = dict(readers)
        self._images = len(readers)
        self._pairs: list[tuple[Float32, Float32]] = []
        self._nearest_ns: int | None = None
        self._unusable: list[str] = []

    def match(self, estimate: Estimate) -> None:
        """Take the depth image of the estimate's moment, if there is one."""
        stamp = min(self._open, key=lambda stamp: abs(stamp - estimate.stamp_ns), default=None)
        if stamp is None:
            return
        apart = abs(stamp - estimate.stamp_ns)
        self._nearest_ns = apart if self._nearest_ns is None else min(apart, self._nearest_ns)
        if apart > MATCH_NS:
            return
        try:
            depth, lens = self._open.pop(stamp)()
            source = lens or scaled(estimate.camera, depth.shape[1], depth.shape[0])
            self._pairs.append((estimate.depth, resample_depth(depth, source, estimate.camera)))
        except (EvaluationError, InputError) as error:
            self._unusable.append(str(error))

    def score(self) -> dict[str, Any]:
        """Median-aligned errors, with `images` read, `unmatched` in time and `unusable`; a reason
        under `error` where nothing is left."""
        counts = {
            "images": self._images,
            "unmatched": self._images - len(self._pairs) - len(self._unusable),
            "unusable": len(self._unusable),
        }
        if not self._pairs:
            apart = (
                ""
                if self._nearest_ns is None
                else f"; the nearest are {self._nearest_ns / 1e6:.1f} ms apart"
            )
            reason = (
                self._unusable[0]
                if self._unusable
                else f"no depth image is within {MATCH_NS / 1e6:.0f} ms of a frame{apart}"
            )
            return {"error": reason, **counts}
        try:
            estimates, truths = zip(*self._pairs, strict=True)
            return {
                **evaluate_depth(np.stack(estimates), np.stack(truths), "median", "frame"),
                **counts,
            }
        except EvaluationError as error:
            return {"error": str(error), **counts}
