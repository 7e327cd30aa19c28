"""Refinement after a run: all keyframes and the points they see, adjusted together.

Multi-view tracks (`slam.tracks`) are triangulated from the poses of the odometry or the graph and
adjusted with them by COLMAP (Schonberger and Frahm, CVPR 2016) through pycolmap, in rounds. Dense
flow measures to half a pixel of a small grid and links few keyframes; such tracks measure to half a
pixel of the picture and span many, which the rotation gains most from.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flow3r_ros.errors import ConfigError
from flow3r_ros.geometry.lie import average_rotations, invert, rigid, rotation_angle, sim3_parts
from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.slam.tracks import features_of, matched, pairs_to_match
from flow3r_ros.types import Camera, Float64

ROUNDS = 3
"""times that tracks are triangulated and adjusted: better poses find more of them"""
MAX_ERROR_PX = 4.0
"""epipolar distance of a match at most"""
MIN_MATCHES = 15
"""matches that a pair of keyframes must share"""
CAUCHY_PX = 1.0
"""reprojection error from which on an observation loses weight"""
FILTER_PX, MIN_ANGLE = 4.0, 1.0
"""pixels and degrees: observations that miss by more, and points seen under less, are left out
after each round"""
MIN_POINTS = 20
"""points that a keyframe must see for its refined pose to count"""


@dataclass(frozen=True)
class Refined:
    """What refinement found: `poses` rigid `[4, 4]` in the map, by key, of the keyframes that see
    enough; `points` and `observations`; mean reprojection error in pixels `before_px` (of the first
    triangulation, poses as given) and `after_px`; `turn_deg`
    median turn of the poses."""

    poses: dict[int, Float64]
    points: int
    observations: int
    before_px: float
    after_px: float
    turn_deg: float


def refine(
    keyframes: Sequence[MapKeyframe],
    poses: dict[int, Float64],
    loops: Iterable[tuple[int, int]] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Refined:
    """Adjust keyframes together.

    Args:
        keyframes: in the order they came, all of one connected part of the map.
        poses: Sim(3) poses `[4, 4]` in the map, by key; their scales are left aside.
        loops: pairs of keys that show one place.
        say: told what is being done.

    Raises:
        ConfigError: pycolmap is not installed.
    """
    colmap = require_pycolmap()
    order = {each.key: at for at, each in enumerate(keyframes)}
    start = np.stack([_rigid(poses[each.key]) for each in keyframes])
    say("features")
    features = [features_of(each.gray()) for each in keyframes]
    cameras = [_camera(colmap, each.camera, at + 1) for at, each in enumerate(keyframes)]
    graph = colmap.CorrespondenceGraph()
    for at, each in enumerate(features):
        graph.add_image(at + 1, len(each.pixels))
    pairs = pairs_to_match(keyframes, [(order[a], order[b]) for a, b in loops])
    say(f"matches of {len(pairs)} pairs")
    options = colmap.TwoViewGeometryOptions(min_num_inliers=MIN_MATCHES, detect_watermark=False)
    options.ransac.max_error = MAX_ERROR_PX
    options.ransac.random_seed = 0
    for a, b in pairs:
        rows = matched(features[a], features[b])
        if len(rows) < MIN_MATCHES:
            continue
        found = colmap.estimate_calibrated_two_view_geometry(
            cameras[a], _centred(features[a].pixels), cameras[b], _centred(features[b].pixels),
            rows, options,
        )  # fmt: skip
        if len(found.inlier_matches) >= MIN_MATCHES:
            graph.add_two_view_geometry(a + 1, b + 1, found)
    graph.finalize()
    model = colmap.Reconstruction()
    for at, each in enumerate(keyframes):
        model.add_camera_with_trivial_rig(cameras[at])
        picture = colmap.Image(
            name=f"{each.key:06d}.jpg", keypoints=_centred(features[at].pixels),
            camera_id=at + 1, image_id=at + 1,
        )  # fmt: skip
        model.add_image_with_trivial_frame(picture, colmap.Rigid3d(invert(start[at])[:3]))
    before_px = 0.0
    for turn in range(ROUNDS):
        say(f"adjustment {turn + 1} of {ROUNDS}")
        error = _round(colmap, graph, model)
        before_px = before_px or error
    return _read(model, keyframes, start, before_px)


def _round(colmap: Any, graph: Any, model: Any) -> float:
    """Triangulate, adjust and filter; the mean error in pixels before the adjustment."""
    manager = colmap.ObservationManager(model, graph)
    triangulator = colmap.IncrementalTriangulator(graph, model, manager)
    options = colmap.IncrementalTriangulatorOptions(
        ignore_two_view_tracks=False, min_angle=MIN_ANGLE, random_seed=0
    )
    for id_ in model.reg_image_ids():
        triangulator.triangulate_image(options, id_)
    triangulator.complete_all_tracks(options)
    triangulator.merge_all_tracks(options)
    model.update_point_3d_errors()
    before = float(model.compute_mean_reprojection_error())
    adjustment = colmap.BundleAdjustmentOptions(
        refine_focal_length=False, refine_principal_point=False, refine_extra_params=False,
        print_summary=False,
    )  # fmt: skip
    adjustment.ceres.loss_function_type = colmap.LossFunctionType.CAUCHY
    adjustment.ceres.loss_function_scale = CAUCHY_PX
    adjustment.ceres.solver_options.num_threads = 1  # the same numbers every time
    adjustment.ceres.solver_options.max_num_iterations = 50
    if model.num_points3D():
        colmap.bundle_adjustment(model, adjustment)
    manager.filter_all_points3D(FILTER_PX, MIN_ANGLE)
    model.update_point_3d_errors()
    return before


def _read(
    model: Any, keyframes: Sequence[MapKeyframe], start: Float64, before_px: float
) -> Refined:
    """The adjusted poses, brought back to where and how large the map was."""
    seen = [at for at in range(len(keyframes)) if model.image(at + 1).num_points3D >= MIN_POINTS]
    found = np.stack(
        [invert(_matrix(model.image(at + 1).cam_from_world())) for at in seen]
        or [np.empty((0, 4, 4))]
    )
    back = _alignment(found, start[seen]) if len(seen) > 1 else None
    if back is None:
        return Refined({}, 0, 0, before_px, before_px, 0.0)
    R, scale, t = back
    poses, turns = {}, []
    for at, pose in zip(seen, found, strict=True):
        refined = rigid(R @ pose[:3, :3], scale * R @ pose[:3, 3] + t)
        poses[keyframes[at].key] = refined
        turns.append(rotation_angle(start[at][:3, :3].T @ refined[:3, :3]))
    return Refined(
        poses, int(model.num_points3D()), int(model.compute_num_observations()), before_px,
        float(model.compute_mean_reprojection_error()), float(np.degrees(np.median(turns))),
    )  # fmt: skip


def _alignment(found: Float64, start: Float64) -> tuple[Float64, float, Float64]:
    """Rotation, scale and translation that bring poses `[N, 4, 4]` onto others: attitudes give the
    rotation, which centres on a line would leave open."""
    R = average_rotations(start[:, :3, :3] @ np.swapaxes(found[:, :3, :3], 1, 2))
    x, y = found[:, :3, 3] @ R.T, start[:, :3, 3]
    dx, dy = x - x.mean(axis=0), y - y.mean(axis=0)
    extent = float(np.sum(dx * dx))
    scale = float(np.sum(dx * dy)) / extent if extent > 0 else 1.0
    return R, scale, y.mean(axis=0) - scale * x.mean(axis=0)


def _rigid(S: Float64) -> Float64:
    _, R, t = sim3_parts(S)
    return rigid(R, t)


def _matrix(motion: Any) -> Float64:
    return np.vstack([np.asarray(motion.matrix(), np.float64), [0.0, 0.0, 0.0, 1.0]])


def _camera(colmap: Any, camera: Camera, id_: int) -> Any:
    """A pinhole in COLMAP's terms, whose pixel centres lie at halves."""
    parameters = [camera.fx, camera.fy, camera.cx + 0.5, camera.cy + 0.5]
    return colmap.Camera(
        model="PINHOLE", width=camera.width, height=camera.height, params=parameters, camera_id=id_
    )


def _centred(pixels: np.ndarray) -> Float64:
    return pixels.astype(np.float64) + 0.5


def require_pycolmap() -> Any:
    """The pycolmap module. Raises ConfigError where it is not installed."""
    try:
        colmap: Any = importlib.import_module("pycolmap")
        colmap.logging.minloglevel = colmap.logging.WARNING.value
        return colmap
    except ImportError as error:
        raise ConfigError(
            "--refine needs pycolmap, which is not installed", "pip install 'flow3r_ros[refine]'"
        ) from error
