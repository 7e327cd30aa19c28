"""Baselines that run: classical monocular odometry on OpenCV, and the two answers that need no
images at all.

The classical one is the textbook chain (Scaramuzza and Fraundorfer, 2011): KLT tracks from a
keyframe, essential matrix by RANSAC, triangulation, and the scale carried from keyframe to keyframe
by the depths of common tracks. It shares no code with `odometry/`, sees the same frames and
intrinsics, and is kept simple on purpose: it is what a good afternoon with OpenCV gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from flow3r_ros.geometry.camera import default_camera, undistort_points
from flow3r_ros.geometry.lie import invert, rigid
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.types import Bool, Camera, Float32, Float64, Frame, UInt8

MIN_TRACKS = 30


@dataclass(frozen=True)
class VoSettings:
    """Thresholds of the classical odometry, in pixels of the image scaled to `width`."""

    width: int = 640
    features: int = 1200
    still_px: float = 0.7
    """median flow to the keyframe below which the camera is taken to stand still"""
    start_px: float = 8.0
    """median flow that the first triangulation needs; until then the camera is taken to stand
    still"""
    parallax_px: float = 3.0
    """median flow beside the rotation's below which nothing is triangulated"""
    keyframe_px: float = 24.0
    """median flow to the keyframe above which a new keyframe is made"""
    keyframe_share: float = 0.5
    """share of surviving tracks below which a new keyframe is made"""
    ransac_px: float = 0.8
    back_px: float = 1.0
    """forward-backward distance above which a track is dropped"""


class ClassicalOdometry:
    """Frame after frame to poses; the scale is that of the first keyframe pair (its baseline is
    one).

    Without intrinsics those of `geometry.camera.default_camera` are assumed.
    """

    def __init__(self, settings: VoSettings | None = None) -> None:
        self.settings = settings or VoSettings()
        self.failures = 0
        """frames whose pose was predicted instead of measured"""
        self._camera: Camera | None = None
        self._pose = np.eye(4)
        self._step = np.eye(4)
        self._baseline = 1.0
        self._last: UInt8 | None = None
        self._keyframe_pose = np.eye(4)
        self._start: Float32 = np.zeros((0, 2), np.float32)
        self._tracks: Float32 = np.zeros((0, 2), np.float32)
        self._depth: Float64 = np.zeros(0)
        self._detected = 0

    def __call__(self, frames: Iterable[Frame]) -> Trajectory:
        """Poses of a whole sequence."""
        stamps, poses = [], []
        for frame in frames:
            stamps.append(frame.stamp_ns)
            poses.append(self.register_frame(frame))
        return Trajectory(
            np.array(stamps, np.int64), np.array(poses).reshape(-1, 4, 4), "classical odometry"
        )

    def register_frame(self, frame: Frame) -> Float64:
        """Pose `[4, 4]` of the next frame, camera-to-world, first camera = identity."""
        gray = self._prepare(frame)
        if self._last is None:
            self._new_keyframe(gray, np.zeros((0, 2), np.float32), np.zeros(0))
            self._last = gray
            return self._pose.copy()
        self._track(gray)
        relative, depth = self._relative_pose()
        predicted = self._pose @ self._step
        pose = predicted if relative is None else self._keyframe_pose @ relative
        self.failures += relative is None
        self._step = invert(self._pose) @ pose
        self._pose = pose
        if self._keyframe_is_due(relative is None):
            if relative is not None and np.isfinite(depth).any():
                self._baseline = float(np.linalg.norm(relative[:3, 3])) or self._baseline
            kept = np.isfinite(depth)
            in_new = (
                (invert(relative) @ self._points(depth[kept], kept).T)[2]
                if relative is not None
                else np.zeros(0)
            )
            tracks = self._tracks[kept] if relative is not None else np.zeros((0, 2), np.float32)
            self._new_keyframe(gray, tracks, in_new)
        self._last = gray
        return self._pose.copy()

    def _prepare(self, frame: Frame) -> UInt8:
        height, width = frame.rgb.shape[:2]
        if self._camera is None:
            self._camera = frame.camera or default_camera(width, height)
            self._zoom = min(1.0, self.settings.width / width)
        gray = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY)
        return np.asarray(
            cv2.resize(gray, None, fx=self._zoom, fy=self._zoom, interpolation=cv2.INTER_AREA),
            np.uint8,
        )

    def _track(self, gray: UInt8) -> None:
        """Follow the keyframe's features into the new image; drop what does not come back."""
        assert self._last is not None
        if not len(self._tracks):
            return
        window = {"winSize": (21, 21), "maxLevel": 4}
        moved, found, _ = cv2.calcOpticalFlowPyrLK(
            self._last, gray, self._tracks[:, None], None, **window
        )  # type: ignore[call-overload]
        back, returned, _ = cv2.calcOpticalFlowPyrLK(gray, self._last, moved, None, **window)  # type: ignore[call-overload]
        distance = np.linalg.norm(back[:, 0] - self._tracks, axis=1)
        good = (found[:, 0] == 1) & (returned[:, 0] == 1) & (distance < self.settings.back_px)
        self._tracks, self._start, self._depth = (
            moved[good, 0],
            self._start[good],
            self._depth[good],
        )

    def _relative_pose(self) -> tuple[Float64 | None, Float64]:
        """Camera in the keyframe `[4, 4]`, and the depth of each track in the keyframe (NaN
        unknown)."""
        nothing = np.full(len(self._tracks), np.nan)
        if len(self._tracks) < MIN_TRACKS:
            return None, nothing
        known = bool(np.isfinite(self._depth).any())
        if self._flow() < (self.settings.still_px if known else self.settings.start_px):
            return np.eye(4), self._depth.copy()
        first, second = self._rays(self._start), self._rays(self._tracks)
        threshold = self.settings.ransac_px / (self._focal() * self._zoom)
        essential, mask = cv2.findEssentialMat(
            first, second, np.eye(3), cv2.USAC_ACCURATE, 0.999, threshold
        )
        if essential is None or essential.shape != (3, 3):
            return None, nothing
        count, turn, t, mask, homogeneous = cv2.recoverPose(
            essential, first, second, np.eye(3), distanceThresh=1000.0, mask=mask
        )
        R = np.asarray(turn, np.float64)
        if count < MIN_TRACKS // 2:
            return None, nothing
        if self._parallax(first, second, R) < self.settings.parallax_px:
            return self._turned(first, second, R), self._depth.copy()
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = homogeneous[2] / homogeneous[3]
        usable = (mask[:, 0] > 0) & (depth > 0) & (depth < 200)
        common = usable & np.isfinite(self._depth)
        scale = (
            float(np.median(self._depth[common] / depth[common]))
            if common.sum() >= 8
            else self._baseline
        )
        pose = invert(rigid(R, t[:, 0]))
        pose[:3, 3] *= scale
        depth = np.where(usable, scale * depth, np.nan)
        self._depth = np.where(np.isfinite(self._depth), self._depth, depth)
        return pose, depth

    def _parallax(self, first: Float64, second: Float64, R: Float64) -> float:
        """Median flow in pixels that the rotation does not explain."""
        turned = np.column_stack([first, np.ones(len(first))]) @ R.T
        moved = np.linalg.norm(second - turned[:, :2] / turned[:, 2:], axis=1)
        return float(np.median(moved) * self._focal() * self._zoom)

    def _turned(self, first: Float64, second: Float64, R: Float64) -> Float64:
        """Camera in the keyframe `[4, 4]` where the parallax is too small to triangulate: PnP on
        the known depths, or a pure rotation."""
        known = np.isfinite(self._depth)
        points = np.column_stack([first, np.ones(len(first))])[known] * self._depth[known, None]
        threshold = 2 * self.settings.ransac_px / (self._focal() * self._zoom)
        if known.sum() >= MIN_TRACKS:
            options = {
                "reprojectionError": threshold,
                "iterationsCount": 100,
                "flags": cv2.SOLVEPNP_EPNP,
            }
            found, turn, shift, _ = cv2.solvePnPRansac(
                points, second[known], np.eye(3), None, **options
            )
            if found and np.linalg.norm(shift) < np.median(self._depth[known]):
                return invert(rigid(cv2.Rodrigues(turn)[0], shift[:, 0]))
        return invert(rigid(R, np.zeros(3)))

    def _keyframe_is_due(self, failed: bool) -> bool:
        few = len(self._tracks) < max(MIN_TRACKS, self.settings.keyframe_share * self._detected)
        return failed or few or self._flow() > self.settings.keyframe_px

    def _new_keyframe(self, gray: UInt8, tracks: Float32, depth: Float64) -> None:
        """Start over from this image: tracks with a depth go on, new corners fill the gaps between
        them."""
        mask = np.full(gray.shape, 255, np.uint8)
        for x, y in tracks:
            cv2.circle(mask, (round(float(x)), round(float(y))), 7, 0, -1)
        corners = cv2.goodFeaturesToTrack(gray, self.settings.features, 0.005, 7, mask=mask)
        fresh = corners[:, 0] if corners is not None else np.zeros((0, 2), np.float32)
        self._start = np.concatenate([tracks, fresh]).astype(np.float32)
        self._tracks = self._start.copy()
        self._depth = np.concatenate([depth, np.full(len(fresh), np.nan)])
        self._detected = len(self._start)
        self._keyframe_pose = self._pose.copy()

    def _points(self, depth: Float64, kept: Bool) -> Float64:
        rays = self._rays(self._start[kept])
        return np.column_stack([rays * depth[:, None], depth, np.ones(len(depth))])

    def _rays(self, pixels: Float32) -> Float64:
        """Undistorted x/z, y/z `[n, 2]` of pixels of the scaled image."""
        assert self._camera is not None
        if not len(pixels):
            return np.zeros((0, 2))
        return undistort_points(self._camera, (pixels.astype(np.float64) + 0.5) / self._zoom - 0.5)

    def _focal(self) -> float:
        assert self._camera is not None
        return float(self._camera.fx + self._camera.fy) / 2

    def _flow(self) -> float:
        return (
            float(np.median(np.linalg.norm(self._tracks - self._start, axis=1)))
            if len(self._tracks)
            else float("inf")
        )


def stand_still(stamps_ns: Sequence[int]) -> Trajectory:
    """The camera never moves."""
    return Trajectory(
        np.array(stamps_ns, np.int64), np.tile(np.eye(4), (len(stamps_ns), 1, 1)), "standing still"
    )


def straight_line(stamps_ns: Sequence[int]) -> Trajectory:
    """Constant velocity along the optical axis of the first camera, one unit a second, no
    rotation."""
    poses = np.tile(np.eye(4), (len(stamps_ns), 1, 1))
    poses[:, 2, 3] = (np.array(stamps_ns, np.int64) - stamps_ns[0]) / 1e9
    return Trajectory(np.array(stamps_ns, np.int64), poses, "straight line")
