"""Pictures, their features and the matches between them that one motion explains, in COLMAP's
terms: what every adjustment of them is made from."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.errors import ConfigError, install_extra
from flow3r_ros.slam.held_out import HeldOut, Rays
from flow3r_ros.types import Camera, Float32, Float64

MAX_ERROR_PX = 4.0
"""epipolar distance of a match at most"""
MIN_MATCHES = 15
"""matches that a pair of pictures must share"""


class PictureMatches:
    """Pictures numbered from 0; owns their features, and the pairs of them that match.

    Pictures of equal cameras share one, pinhole with radial distortion that is zero at first.
    Where `fx` is not `fy`, pixels are stretched vertically until it is. `cameras` are COLMAP's, by
    picture; `pixels` float64 `[N, 2]` features with pixel centres at halves; `pairs` pictures and
    COLMAP's geometry of them; `held_out` the matches that no adjustment is told of, to judge it by.

    Args:
        cameras: pinhole of each picture.
        pixels: float32 `[N, 2]` its features.

    Raises:
        ConfigError: pycolmap is not installed.
    """

    def __init__(self, cameras: Sequence[Camera], pixels: Sequence[Float32]) -> None:
        self._colmap = colmap = require_pycolmap()
        self.pixels = [_squared(*each) for each in zip(pixels, cameras, strict=True)]
        shared: dict[Camera, Any] = {}
        for camera in cameras:
            shared.setdefault(camera, _camera(colmap, camera, len(shared) + 1))
        self.cameras = [shared[camera] for camera in cameras]
        self.held_out = HeldOut()
        self.pairs: list[tuple[int, int, Any]] = []
        self._options = colmap.TwoViewGeometryOptions(
            min_num_inliers=MIN_MATCHES, detect_watermark=False
        )
        self._options.ransac.max_error = MAX_ERROR_PX
        self._options.ransac.random_seed = 0

    def __len__(self) -> int:
        return len(self.pixels)

    def add(self, first: int, second: int, rows: NDArray[np.uint32]) -> None:
        """Matches `[M, 2]` between two pictures; those that one motion explains are kept."""
        if len(rows) < MIN_MATCHES:
            return
        found = self._colmap.estimate_calibrated_two_view_geometry(
            self.cameras[first], self.pixels[first], self.cameras[second], self.pixels[second],
            rows, self._options,
        )  # fmt: skip
        if len(found.inlier_matches) >= MIN_MATCHES:
            inliers = np.asarray(found.inlier_matches, np.uint32)
            found.inlier_matches = self.held_out.hold(first, second, inliers)
            self.pairs.append((first, second, found))

    def held_out_px(
        self,
        poses: Mapping[int, Float64],
        cameras: Sequence[Any] | None = None,
        missed_px: float | None = None,
    ) -> float:
        """Robust rms in pixels of the epipolar error of the matches that are held out; NaN without
        any.

        Args:
            poses: `[4, 4]` camera-to-world of some pictures.
            cameras: COLMAP's, of all pictures; by default the pinholes.
            missed_px: error that the matches of the other pictures count with, None: not at all.
        """
        rays, focal = self._rays(cameras or self.cameras), float(self.cameras[0].params[0])
        return self.held_out.error_px(poses, rays, focal, missed_px)

    def agreement(self, poses: Mapping[int, Float64], cameras: Sequence[Any]) -> dict[int, float]:
        """Share of the held-out matches of each picture with others that its pose among `poses`
        `[4, 4]` explains as well as a match has to be; by picture, of those that have any."""
        focal = float(self.cameras[0].params[0])
        return self.held_out.agreement(poses, self._rays(cameras), focal, MAX_ERROR_PX)

    def _rays(self, cameras: Sequence[Any]) -> Rays:
        def rays(at: int, rows: NDArray[np.uint32]) -> Float64:
            plane = np.asarray(cameras[at].cam_from_img(self.pixels[at][rows]), np.float64)
            return np.column_stack([plane, np.ones(len(plane))])

        return rays

    def graph(self) -> Any:
        """The matches that are not held out, as COLMAP's correspondence graph."""
        graph = self._colmap.CorrespondenceGraph()
        for at, points in enumerate(self.pixels):
            graph.add_image(at + 1, len(points))
        for first, second, found in self.pairs:
            graph.add_two_view_geometry(first + 1, second + 1, found)
        graph.finalize()
        return graph


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
    colmap.logging.minloglevel = colmap.logging.ERROR.value
    return colmap
