"""One keyframe of the map: small enough to keep hundreds of, complete enough to save.

The picture is kept as JPEG, features as bytes, depth in half precision: about 0.4 MB a keyframe of
640x480, whose full image, depth and features take 2.5 MB in the odometry.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.camera import scaled
from flow3r_ros.geometry.camera_pose import DepthPoints
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.odometry.finished import Finished
from flow3r_ros.odometry.views import rays_of
from flow3r_ros.slam.faint import describe_faint
from flow3r_ros.types import Camera, Float32, Float64, UInt8

JPEG_QUALITY = 95
"""of the kept pictures: refinement measures features in them to half a pixel"""
UNSURE = 0.1
"""sigma of a feature's inverse depth at least, as a share of the median: features sit on edges"""
MIN_SHARED = 20
"""points whose depth a keyframe must know for them to say what its unit is"""


@dataclass(frozen=True)
class MapKeyframe:
    """A keyframe of the map.

    `key` counts the keyframes of the map and never repeats; `frame_id` and `stamp_ns` are those of
    its frame; `segment` the piece of trajectory whose unit and origin it shares. `picture` is the
    rectified image as JPEG with the pinhole `camera`; `pixels` float32 `[N, 2]` of its SIFT
    features in a picture with the pinhole `lens`, `descriptors` uint8 `[N, 128]` (more of them
    where the lens is a guess: `slam.faint`); `inverse`,
    `sigma` float16 `[h, w]` inverse depth and 1-sigma over the whole image, NaN where unknown.
    `T_odom_cam` `[4, 4]` is its pose as the odometry told it last, in odometry units.
    """

    key: int
    frame_id: int
    stamp_ns: int
    segment: int
    camera: Camera
    picture: bytes
    lens: Camera
    pixels: Float32
    descriptors: UInt8
    inverse: NDArray[np.float16]
    sigma: NDArray[np.float16]
    T_odom_cam: Float64

    @classmethod
    def of(cls, finished: Finished, key: int, segment: int) -> MapKeyframe:
        """What is kept of a keyframe that the odometry has finished."""
        reference, features = finished.reference, finished.features
        view, depth = reference.view, reference.depth
        assert view.frame.camera is not None
        pixels, descriptors = features.pixels, features.descriptors
        if view.lens.estimated:
            pixels, descriptors = describe_faint(view)
        known = ~reference.moving & (depth.inverse > 0) & np.isfinite(depth.sigma)
        half = np.finfo(np.float16)
        inverse = np.where(known, np.clip(depth.inverse, half.tiny, half.max), np.nan)
        sigma = np.where(known, np.clip(depth.sigma, half.tiny, half.max), np.nan)
        bgr = cv2.cvtColor(view.frame.rgb, cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        return cls(
            key=key,
            frame_id=view.id,
            stamp_ns=view.frame.stamp_ns,
            segment=segment,
            camera=view.frame.camera,
            picture=jpeg.tobytes(),
            lens=view.lens,
            pixels=view.straightened(pixels).astype(np.float32),
            descriptors=np.clip(np.rint(descriptors), 0, 255).astype(np.uint8),
            inverse=inverse.astype(np.float16),
            sigma=sigma.astype(np.float16),
            T_odom_cam=reference.pose.copy(),
        )

    def at(self, T_odom_cam: Float64) -> MapKeyframe:
        """The same at another pose; a copy, so that what was computed of its depth stays."""
        moved = copy(self)
        object.__setattr__(moved, "T_odom_cam", T_odom_cam)
        return moved

    def renumbered(self, key: int, segment: int) -> MapKeyframe:
        """The same under another key, in another segment."""
        return replace(self, key=key, segment=segment)

    @cached_property
    def median_depth(self) -> float:
        """Of its depth map, odometry units; 1 where nothing is known."""
        typical = float(np.nanmedian(self.inverse.astype(np.float32))) if self.knows_depth else 1.0
        return 1.0 / max(typical, 1e-6)

    @cached_property
    def knows_depth(self) -> bool:
        """Whether it knows the depth of any pixel."""
        return bool(np.isfinite(self.inverse).any())

    @property
    def grid(self) -> Camera:
        """The pinhole of its depth map."""
        height, width = self.inverse.shape
        return scaled(self.camera, width, height)

    @property
    def depth(self) -> DepthMap:
        """Its depth map."""
        sigma = self.sigma.astype(np.float32)
        return DepthMap(
            self.inverse.astype(np.float32), np.where(np.isfinite(sigma), sigma, np.float32(np.inf))
        )

    def rgb(self) -> UInt8:
        """Its picture, uint8 `[H, W, 3]`."""
        bgr = cv2.imdecode(np.frombuffer(self.picture, np.uint8), cv2.IMREAD_COLOR)
        return np.asarray(bgr, np.uint8)[..., ::-1]

    def gray(self) -> UInt8:
        """Its picture in gray, uint8 `[H, W]`."""
        data = np.frombuffer(self.picture, np.uint8)
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)

    def unit_in(self, pixels: Float32, depth: Float64) -> float | None:
        """What its depth is to be multiplied by to agree with points at `pixels` `[N, 2]` of its
        picture that lie `depth` `[N]` deep; None where too few are known to it."""
        height, width = self.inverse.shape
        ratio = np.array([self.camera.width / width, self.camera.height / height], np.float32)
        inverse, sigma = self.depth.at(pixels, ratio)
        known = np.isfinite(inverse) & (inverse > 0) & np.isfinite(sigma) & (depth > 0)
        if np.count_nonzero(known) < MIN_SHARED:
            return None
        return float(np.median(inverse[known] * depth[known]))

    def points_at(self, rows: NDArray[np.intp]) -> DepthPoints:
        """Features as points in its optical frame; a feature whose depth is unknown gets the median
        and a sigma that says so."""
        height, width = self.inverse.shape
        ratio = np.array([self.lens.width / width, self.lens.height / height], np.float32)
        pixels = self.pixels[rows]
        inverse, sigma = self.depth.at(pixels, ratio)
        known = np.isfinite(inverse) & (inverse > 0) & np.isfinite(sigma)
        typical = 1.0 / self.median_depth
        return DepthPoints(
            rays_of(self.lens, pixels),
            np.where(known, inverse, typical),
            np.where(known, np.maximum(sigma, UNSURE * typical), 2.0 * typical),
        )
