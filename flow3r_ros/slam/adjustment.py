"""Tracks and poses adjusted together by COLMAP's parts (Schonberger and Frahm, CVPR 2016), without
its database: pictures, features and matches go in, poses come out."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.errors import ConfigError, install_extra
from flow3r_ros.geometry.lie import invert
from flow3r_ros.types import Camera, Float32, Float64

MAX_ERROR_PX = 4.0
"""epipolar distance of a match at most"""
MIN_MATCHES = 15
"""matches that a pair of pictures must share"""
CAUCHY_PX = 1.0
"""reprojection error from which on an observation loses weight"""
FILTER_PX, MIN_ANGLE = 4.0, 1.0
"""pixels and degrees: observations that miss by more, and points seen under less, are left out
after each round"""
MIN_POINTS = 20
"""points that a picture must see for its pose to count"""
POSE_PX, POSE_SHARE = 8.0, 0.3
"""reprojection error of a match with a point, and the share of them that a pose must explain, for a
picture to be placed by the points"""


class Adjustment:
    """Pictures numbered from 0, their matches, points and poses (`[4, 4]` camera-to-world).

    Args:
        cameras: pinhole of each picture.
        pixels: float32 `[N, 2]` its features.
        poses: what is known of its pose; None: the points of the others will tell.

    Raises:
        ConfigError: pycolmap is not installed.
    """

    def __init__(
        self, cameras: Sequence[Camera], pixels: Sequence[Float32], poses: Sequence[Float64 | None]
    ) -> None:
        self._colmap = colmap = require_pycolmap()
        self._pixels = [_centred(each) for each in pixels]
        self._cameras = [_camera(colmap, each, at + 1) for at, each in enumerate(cameras)]
        self._graph = colmap.CorrespondenceGraph()
        self._model = colmap.Reconstruction()
        for at, (points, pose) in enumerate(zip(self._pixels, poses, strict=True)):
            self._graph.add_image(at + 1, len(points))
            self._model.add_camera_with_trivial_rig(self._cameras[at])
            image = colmap.Image(name=str(at), keypoints=points, camera_id=at + 1, image_id=at + 1)
            if pose is None:
                self._model.add_image_with_trivial_frame(image)
            else:
                motion = colmap.Rigid3d(invert(pose)[:3])
                self._model.add_image_with_trivial_frame(image, motion)
        self._options = colmap.TwoViewGeometryOptions(
            min_num_inliers=MIN_MATCHES, detect_watermark=False
        )
        self._options.ransac.max_error = MAX_ERROR_PX
        self._options.ransac.random_seed = 0
        self._manager: Any = None

    def add_matches(self, first: int, second: int, rows: NDArray[np.uint32]) -> None:
        """Matches `[M, 2]` between two pictures; those that one motion explains are kept."""
        if len(rows) < MIN_MATCHES:
            return
        found = self._colmap.estimate_calibrated_two_view_geometry(
            self._cameras[first], self._pixels[first], self._cameras[second], self._pixels[second],
            rows, self._options,
        )  # fmt: skip
        if len(found.inlier_matches) >= MIN_MATCHES:
            self._graph.add_two_view_geometry(first + 1, second + 1, found)

    def finish_matches(self) -> None:
        """No more matches come."""
        self._graph.finalize()
        self._manager = self._colmap.ObservationManager(self._model, self._graph)

    def round(self) -> float:
        """Triangulate, adjust and leave out what does not fit; the mean error in pixels before the
        adjustment."""
        colmap, model = self._colmap, self._model
        triangulator = colmap.IncrementalTriangulator(self._graph, model, self._manager)
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
        self._manager.filter_all_points3D(FILTER_PX, MIN_ANGLE)
        model.update_point_3d_errors()
        return before

    def place_more(self) -> int:
        """Give pictures without a pose the one that the points they see explain; how many got
        one."""
        placed = 0
        for at in range(len(self._pixels)):
            if self._model.image(at + 1).has_pose:
                continue
            rows, points = self._points_of(at)
            if len(rows) < MIN_POINTS:
                continue
            options = self._colmap.AbsolutePoseEstimationOptions()
            options.ransac.max_error = POSE_PX
            options.ransac.random_seed = 0
            found = self._colmap.estimate_and_refine_absolute_pose(
                self._pixels[at][rows], points, self._cameras[at], options
            )
            if found is None or found["num_inliers"] < max(MIN_POINTS, POSE_SHARE * len(rows)):
                continue
            self._model.frame(at + 1).set_cam_from_world(at + 1, found["cam_from_world"])
            self._manager.register_frame(at + 1)
            placed += 1
        return placed

    def _points_of(self, at: int) -> tuple[list[int], Float64]:
        """Features of a picture that match points, and the points `[M, 3]`."""
        rows, points = [], []
        for row in range(len(self._pixels[at])):
            for other in self._graph.extract_correspondences(at + 1, row):
                image = self._model.image(other.image_id)
                if not image.has_pose:
                    continue
                seen = image.point2D(other.point2D_idx)
                if seen.has_point3D():
                    rows.append(row)
                    points.append(self._model.point3D(seen.point3D_id).xyz)
                    break
        return rows, np.array(points, np.float64).reshape(-1, 3)

    def poses(self) -> dict[int, Float64]:
        """Poses of the pictures that see enough points."""
        found = {}
        for at in range(len(self._pixels)):
            image = self._model.image(at + 1)
            if image.has_pose and image.num_points3D >= MIN_POINTS:
                motion = np.asarray(image.cam_from_world().matrix(), np.float64)
                found[at] = invert(np.vstack([motion, [0.0, 0.0, 0.0, 1.0]]))
        return found

    @property
    def points(self) -> int:
        """Number of points."""
        return int(self._model.num_points3D())

    @property
    def observations(self) -> int:
        """Number of observations of points."""
        return int(self._model.compute_num_observations())

    @property
    def error_px(self) -> float:
        """Mean reprojection error in pixels."""
        return float(self._model.compute_mean_reprojection_error())


def _camera(colmap: Any, camera: Camera, id_: int) -> Any:
    """A pinhole in COLMAP's terms, whose pixel centres lie at halves."""
    parameters = [camera.fx, camera.fy, camera.cx + 0.5, camera.cy + 0.5]
    return colmap.Camera(
        model="PINHOLE", width=camera.width, height=camera.height, params=parameters, camera_id=id_
    )


def _centred(pixels: Float32) -> Float64:
    return pixels.astype(np.float64) + 0.5


def require_pycolmap() -> Any:
    """The pycolmap module. Raises ConfigError where it is not installed."""
    try:
        colmap: Any = importlib.import_module("pycolmap")
    except ImportError as error:
        raise ConfigError(
            "--refine needs pycolmap, which is not installed", install_extra("refine")
        ) from error
    colmap.logging.minloglevel = colmap.logging.WARNING.value
    return colmap
