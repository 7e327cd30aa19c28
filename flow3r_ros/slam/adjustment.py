"""Tracks and poses adjusted together by COLMAP's parts (Schonberger and Frahm, CVPR 2016), without
its database: pictures, features and matches go in, poses come out."""

from __future__ import annotations

import importlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.errors import ConfigError, install_extra
from flow3r_ros.geometry.lie import invert
from flow3r_ros.slam.held_out import HeldOut
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


@dataclass(frozen=True)
class Solution:
    """An adjustment: `poses` `[4, 4]` camera-to-world of the pictures that see enough points, by
    number; how many `points` and `observations`; mean reprojection error `error_px`; `bend_px`
    what radial distortion moves the corners of the picture by, outwards; `held_out_px` robust rms
    of the epipolar error of the matches that were held out; `depths` which features of a picture
    are points, `[N]`, and how deep they lie, `[N]`."""

    poses: dict[int, Float64]
    points: int
    observations: int
    error_px: float
    bend_px: float
    held_out_px: float
    depths: dict[int, tuple[NDArray[np.intp], Float64]]


class Adjustment:
    """Pictures numbered from 0, their matches, points and poses (`[4, 4]` camera-to-world).

    Pictures of equal cameras share one, pinhole with radial distortion that is zero at first.
    Where `fx` is not `fy`, pixels are stretched vertically until it is.

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
        self._pixels = [_squared(*each) for each in zip(pixels, cameras, strict=True)]
        shared: dict[Camera, Any] = {}
        for camera in cameras:
            shared.setdefault(camera, _camera(colmap, camera, len(shared) + 1))
        self._cameras = [shared[camera] for camera in cameras]
        self._held_out = HeldOut()
        self._given = {at: pose for at, pose in enumerate(poses) if pose is not None}
        self._graph = colmap.CorrespondenceGraph()
        self._model = colmap.Reconstruction()
        for camera in shared.values():
            self._model.add_camera_with_trivial_rig(camera)
        for at, points in enumerate(self._pixels):
            self._graph.add_image(at + 1, len(points))
            image = colmap.Image(
                name=str(at), keypoints=points, camera_id=self._cameras[at].camera_id,
                image_id=at + 1,
            )  # fmt: skip
            if at in self._given:
                motion = colmap.Rigid3d(invert(self._given[at])[:3])
                self._model.add_image_with_trivial_frame(image, motion)
            else:
                self._model.add_image_with_trivial_frame(image)
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
            if first in self._given and second in self._given:
                inliers = np.asarray(found.inlier_matches, np.uint32)
                found.inlier_matches = self._held_out.hold(first, second, inliers)
            self._graph.add_two_view_geometry(first + 1, second + 1, found)

    def finish_matches(self) -> None:
        """No more matches come."""
        self._graph.finalize()
        self._manager = self._colmap.ObservationManager(self._model, self._graph)

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
            self._model.frame(at + 1).set_cam_from_world(
                self._cameras[at].camera_id, found["cam_from_world"]
            )
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

    def solution(self) -> Solution:
        """What was found so far."""
        found, depths = {}, {}
        for at in range(len(self._pixels)):
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
            self._judged(found, lens=True),
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

    def given_held_out_px(self, among: Container[int]) -> float:
        """`held_out_px` of the poses as given through a pinhole, of pictures `among` some."""
        given = {at: pose for at, pose in self._given.items() if at in among}
        return self._judged(given, lens=False)

    def _judged(self, poses: Mapping[int, Float64], lens: bool) -> float:
        """What is held out, judged through the adjusted lens or a pinhole."""
        focal = float(self._cameras[0].params[0])
        return self._held_out.error_px(poses, partial(self._rays, lens=lens), focal)

    def _rays(self, at: int, rows: NDArray[np.uint32], lens: bool) -> Float64:
        """Rays `[N, 3]` with z = 1 of features, through the adjusted lens or a pinhole."""
        camera = self._model.camera(self._cameras[at].camera_id)
        if not lens:
            camera = self._cameras[at]
        plane = np.asarray(camera.cam_from_img(self._pixels[at][rows]), np.float64)
        return np.column_stack([plane, np.ones(len(plane))])

    def _bend(self) -> float:
        """Pixels by which the adjusted lens moves corners outwards, of the camera that does so
        most."""
        bends = [0.0]
        for camera in self._model.cameras.values():
            focal, cx, cy, k1, k2 = camera.params
            reach = np.hypot(max(cx, camera.width - cx), max(cy, camera.height - cy)) / focal
            bends.append(float(focal * reach * (k1 * reach**2 + k2 * reach**4)))
        return max(bends, key=abs)


def _camera(colmap: Any, camera: Camera, id_: int) -> Any:
    """A camera in COLMAP's terms, whose pixel centres lie at halves."""
    parameters = [camera.fx, camera.cx + 0.5, camera.cy + 0.5, 0.0, 0.0]
    return colmap.Camera(
        model="RADIAL", width=camera.width, height=camera.height, params=parameters, camera_id=id_
    )


def _squared(pixels: Float32, camera: Camera) -> Float64:
    """Pixels `[N, 2]` with centres at halves, where one focal length holds for both axes."""
    squared = pixels.astype(np.float64) + 0.5
    centre = camera.cy + 0.5
    squared[:, 1] = centre + (squared[:, 1] - centre) * (camera.fx / camera.fy)
    return squared


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
