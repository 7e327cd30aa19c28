"""Tracks and poses adjusted together by COLMAP's parts (Schonberger and Frahm, CVPR 2016), without
its database: matches and poses to begin with go in, poses come out."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.lie import invert
from flow3r_ros.slam.picture_matches import PictureMatches, require_pycolmap
from flow3r_ros.types import Float64

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


@dataclass(frozen=True)
class Solution:
    """An adjustment: `poses` `[4, 4]` camera-to-world of the pictures that see enough points, by
    number; how many `points` and `observations`; mean reprojection error `error_px`; `bend_px`
    what radial distortion moves the corners of the picture by, outwards; `cameras` COLMAP's, by
    picture; `depths` which features of a picture are points, `[N]`, and how deep they lie,
    `[N]`."""

    poses: dict[int, Float64]
    points: int
    observations: int
    error_px: float
    bend_px: float
    cameras: list[Any]
    depths: dict[int, tuple[NDArray[np.intp], Float64]]


class Adjustment:
    """Pictures with poses (`[4, 4]` camera-to-world, by number) and the points that they see.

    Args:
        matches: of the pictures.
        poses: what is known of them; the points of those tell the others.
    """

    def __init__(self, matches: PictureMatches, poses: Mapping[int, Float64]) -> None:
        self._colmap = colmap = require_pycolmap()
        self._matches, self._graph = matches, matches.graph()
        self._model = colmap.Reconstruction()
        for camera in {each.camera_id: each for each in matches.cameras}.values():
            self._model.add_camera_with_trivial_rig(camera)
        for at, (points, camera) in enumerate(zip(matches.pixels, matches.cameras, strict=True)):
            image = colmap.Image(
                name=str(at), keypoints=points, camera_id=camera.camera_id, image_id=at + 1
            )
            if at in poses:
                motion = colmap.Rigid3d(invert(poses[at])[:3])
                self._model.add_image_with_trivial_frame(image, motion)
            else:
                self._model.add_image_with_trivial_frame(image)
        self._manager = colmap.ObservationManager(self._model, self._graph)

    def round(self, lens: bool = False) -> float:
        """Triangulate, adjust (with `lens` radial distortion, too) and leave out what does not fit;
        the mean error in pixels before the adjustment."""
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
            refine_focal_length=False, refine_principal_point=False, refine_extra_params=lens,
            print_summary=False,
        )  # fmt: skip
        adjustment.ceres.loss_function_type = colmap.LossFunctionType.CAUCHY
        adjustment.ceres.loss_function_scale = CAUCHY_PX
        adjustment.ceres.solver_options.num_threads = 1  # the same numbers every time
        adjustment.ceres.solver_options.max_num_iterations = 50
        if model.num_points3D():
            self._manager.filter_observations_with_negative_depth()
            pictures = colmap.BundleAdjustmentConfig()
            for id_ in model.reg_image_ids():
                pictures.add_image(id_)
            pictures.fix_gauge(colmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
            colmap.create_default_bundle_adjuster(adjustment, pictures, model).solve()
        self._manager.filter_all_points3D(FILTER_PX, MIN_ANGLE)
        model.update_point_3d_errors()
        return before

    def place_more(self) -> int:
        """Give pictures without a pose the one that the points they see explain; how many got
        one."""
        placed = 0
        for at in range(len(self._matches)):
            if self._model.image(at + 1).has_pose:
                continue
            rows, points = self._points_of(at)
            if len(rows) < MIN_POINTS:
                continue
            options = self._colmap.AbsolutePoseEstimationOptions()
            options.ransac.max_error = POSE_PX
            options.ransac.random_seed = 0
            found = self._colmap.estimate_and_refine_absolute_pose(
                self._matches.pixels[at][rows], points, self._matches.cameras[at], options
            )
            if found is None or found["num_inliers"] < max(MIN_POINTS, POSE_SHARE * len(rows)):
                continue
            self._model.frame(at + 1).set_cam_from_world(
                self._matches.cameras[at].camera_id, found["cam_from_world"]
            )
            self._manager.register_frame(at + 1)
            placed += 1
        return placed

    def _points_of(self, at: int) -> tuple[list[int], Float64]:
        """Features of a picture that match points, and the points `[M, 3]`."""
        rows, points = [], []
        for row in range(len(self._matches.pixels[at])):
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

    def solution(self) -> Solution:
        """What was found so far."""
        found, depths = {}, {}
        for at in range(len(self._matches)):
            image = self._model.image(at + 1)
            if image.has_pose and image.num_points3D >= MIN_POINTS:
                depths[at] = self._depths(image)
                motion = np.asarray(image.cam_from_world().matrix(), np.float64)
                found[at] = invert(np.vstack([motion, [0.0, 0.0, 0.0, 1.0]]))
        return Solution(
            found,
            int(self._model.num_points3D()),
            int(self._model.compute_num_observations()),
            float(self._model.compute_mean_reprojection_error()),
            self._bend(),
            [deepcopy(self._model.camera(each.camera_id)) for each in self._matches.cameras],
            depths,
        )

    def _depths(self, image: Any) -> tuple[NDArray[np.intp], Float64]:
        """Features of a picture that are points, and their depth."""
        rows = [row for row, each in enumerate(image.points2D) if each.has_point3D()]
        points = np.array(
            [self._model.point3D(image.points2D[row].point3D_id).xyz for row in rows], np.float64
        )
        motion = np.asarray(image.cam_from_world().matrix(), np.float64)
        return np.array(rows, np.intp), points @ motion[2, :3] + motion[2, 3]

    def _bend(self) -> float:
        """Pixels by which the adjusted lens moves corners outwards, of the camera that does so
        most."""
        bends = [0.0]
        for camera in self._model.cameras.values():
            focal, cx, cy, k1, k2 = camera.params
            reach = np.hypot(max(cx, camera.width - cx), max(cy, camera.height - cy)) / focal
            bends.append(float(focal * reach * (k1 * reach**2 + k2 * reach**4)))
        return max(bends, key=abs)
