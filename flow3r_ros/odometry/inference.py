"""The network's part of a keyframe: its window, what it is told of the geometry, and how its answer
is joined to the odometry."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from flow3r_ros.config import EngineSettings
from flow3r_ros.errors import Flow3rError
from flow3r_ros.geometry.correspondence import Correspondence
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.evidence import build_evidence
from flow3r_ros.geometry.lie import nearest_rotation
from flow3r_ros.odometry.keyframes import Keyframe
from flow3r_ros.odometry.seam import Known, fit_seam
from flow3r_ros.types import Evidence, Float32, Prediction, Predictor, Seam, Window

log = logging.getLogger(__name__)

SHARED = 2
"""frames of a window that join it to the odometry"""
SURE = 0.2
"""relative sigma above which depth is not told to the network: it is not to hear its own guesses"""


@dataclass(frozen=True)
class Answer:
    """What the network said of a keyframe: `depth` float32 `[h, w]` in odometry units on the
    prediction's grid and its `confidence` in [0, 1], the `seam` that joined it (None for the first
    window), the ids of its `window`; `prediction` as it came."""

    depth: Float32
    confidence: Float32
    seam: Seam | None
    window: tuple[int, ...]
    prediction: Prediction


def ask_network(
    predictor: Predictor,
    companions: Sequence[Keyframe],
    new: Keyframe,
    steps: Sequence[Correspondence | None],
    settings: EngineSettings,
) -> Answer | None:
    """Geometry of a new keyframe from the window of it and its companions, oldest first.

    Args:
        steps: correspondences between neighbours of the window, oldest first (None: not matched).

    Returns None where the network fails, its answer is not finite, or it knows no depth.
    """
    views = [*companions, new]
    evidence = None
    if predictor.uses_evidence:
        evidence = _evidence(predictor, views, steps)
    window = Window(
        frames=tuple(each.view.frame for each in views),
        wanted=tuple(each.id for each in (*companions[-SHARED:], new)),
        evidence=evidence,
    )
    try:
        prediction = _with_rotations(predictor.predict(window))
    except Flow3rError as error:
        log.warning("window %s failed: %s", [frame.id for frame in window.frames], error)
        return None
    if set(prediction.frame_ids) != set(window.wanted):
        log.warning(
            "the network answered frames %s, asked were %s", prediction.frame_ids, window.wanted
        )
        return None
    index = prediction.frame_ids.index(new.id)
    z = prediction.local_points[index, :, :, 2]
    if not np.isfinite(z).any() or not np.isfinite(prediction.poses).all():
        log.warning("window %s: the network's answer is not finite", window.wanted)
        return None
    seam = None
    if companions:
        height, width = prediction.confidence.shape[1:]
        shared = {
            each.id: Known(each.pose, _on_grid(each, width, height))
            for each in companions[-SHARED:]
        }
        seam = fit_seam(prediction, shared, settings)
    scale = seam.scale if seam is not None else 1.0
    ids = tuple(frame.id for frame in window.frames)
    return Answer(
        (z * scale).astype(np.float32), prediction.confidence[index], seam, ids, prediction
    )


def _evidence(
    predictor: Predictor,
    views: Sequence[Keyframe],
    steps: Sequence[Correspondence | None],
) -> Evidence:
    grid = predictor.input_size(*views[-1].view.frame.rgb.shape[1::-1])
    poses = np.stack([view.pose for view in views])
    depths = [_sure(view.measured) for view in views]
    backwards = [None if step is None else step.reversed() for step in steps]
    return build_evidence(
        views[-1].view.camera, poses, depths, [None, *backwards], [*steps, None], grid
    )


def _sure(map_: DepthMap) -> DepthMap:
    with np.errstate(invalid="ignore"):
        return map_.where(map_.sigma < SURE * map_.inverse)


def _on_grid(view: Keyframe, width: int, height: int) -> Float32:
    """Depth that a view is sure of, on a prediction's grid, NaN elsewhere."""
    map_ = view.depth.resized(width, height)
    with np.errstate(invalid="ignore"):
        sure = map_.sigma < 0.5 * map_.inverse
    return np.where(sure, map_.depth(), np.nan).astype(np.float32)


def _with_rotations(prediction: Prediction) -> Prediction:
    """The prediction with proper rotations."""
    poses = np.array(prediction.poses, dtype=np.float64)
    for pose in poses:
        if np.isfinite(pose).all():
            pose[:3, :3] = nearest_rotation(pose[:3, :3])
    return replace(prediction, poses=poses)
