"""What one output unit means: a factor on everything, declared with its uncertainty.

A monocular trajectory has no unit. Three sources give it one: a fixed factor (`anchored`: true at
the start, drifting unseen afterwards), wheel odometry, or the camera's height over ground (both
`metric`, measured again and again). The factor of a stamp applies to pose *increments*, depth and
cloud alike: positions are integrated, `p += factor * step`, so a changing factor bends nothing
behind the camera and never tears the trajectory.
"""

from __future__ import annotations

import math
from collections import deque

import cv2
import numpy as np

from flow3r_ros.config import ScaleSettings
from flow3r_ros.geometry.trajectory import pose_at
from flow3r_ros.types import Camera, Float32, Float64, ScaleState

MIN_RATIOS = 5
"""measurements before the scale counts as metric"""
MAX_SIGMA = 0.15
"""largest relative 1-sigma that still counts as metric"""
ANCHOR_DRIFT = 1e-3
"""relative sigma gained per keyframe (random walk) while nothing measures the scale"""
ODOMETRY_GAP_NS = 500_000_000
"""longest gap that wheel poses are interpolated over"""


class Scale:
    """Factor from odometry units to output units, its state and relative 1-sigma; integrates output
    positions."""

    def __init__(self, settings: ScaleSettings) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Forget measurements and start at the origin."""
        fixed = self.settings.source == "fixed"
        self.factor = self.settings.factor if fixed else 1.0
        self.state = ScaleState.ANCHORED if fixed else ScaleState.RELATIVE
        self.sigma = 0.01 if fixed else math.inf
        self._log_ratios: deque[float] = deque(maxlen=40)
        self._odometry: deque[tuple[int, Float64]] = deque(maxlen=2000)
        self._span_start: tuple[int, Float64] | None = None
        self._since_measured = 0
        self._last: tuple[Float64, Float64] | None = None

    def output_pose(self, pose: Float64) -> Float64:
        """Output pose `[4, 4]` of the next stamp: the step from the previous one, times the factor
        of now."""
        position = (
            self.factor * pose[:3, 3]
            if self._last is None
            else self._last[1] + self.factor * (pose[:3, 3] - self._last[0])
        )
        self._last = pose[:3, 3].copy(), position
        result = pose.copy()
        result[:3, 3] = position
        return result

    @property
    def offset(self) -> Float64:
        """Where the origin of the odometry's unit lies in the output, `[3]` output units: zero
        while the factor has never changed."""
        if self._last is None:
            return np.zeros(3)
        return np.asarray(self._last[1] - self.factor * self._last[0])

    def keyframe_added(self) -> None:
        """Let the uncertainty of an unmeasured scale grow by one keyframe."""
        self._since_measured += 1
        if math.isfinite(self.sigma) and self._since_measured > MIN_RATIOS:
            self.sigma = math.hypot(self.sigma, ANCHOR_DRIFT)
            if self.state is ScaleState.METRIC and self._since_measured > 10 * MIN_RATIOS:
                self.state = ScaleState.ANCHORED

    def add_odometry(self, stamp_ns: int, pose: Float64) -> None:
        """Remember a wheel-odometry pose `[4, 4]` in metres; stamps that do not increase are
        ignored."""
        if np.isfinite(pose).all() and (not self._odometry or stamp_ns > self._odometry[-1][0]):
            self._odometry.append((stamp_ns, np.asarray(pose, dtype=np.float64)))

    def observe_pose(self, stamp_ns: int, pose: Float64, median_depth: float) -> None:
        """Compare the visual step since the last comparison with the wheels', once both moved
        enough to tell.

        `pose` is in odometry units. Steps are chords between two stamps, compared when the visual
        one reaches 5 % of the median depth.
        """
        if self.settings.source != "odometry":
            return
        if self._span_start is None:
            self._span_start = stamp_ns, pose
            return
        start_ns, start = self._span_start
        visual = float(np.linalg.norm(pose[:3, 3] - start[:3, 3]))
        wheel_start, wheel_end = self._odometry_at(start_ns), self._odometry_at(stamp_ns)
        if wheel_start is None:
            self._span_start = stamp_ns, pose
            return
        if visual < 0.05 * median_depth or wheel_end is None:
            return
        wheel = float(np.linalg.norm(wheel_end[:3, 3] - wheel_start[:3, 3]))
        if wheel > 0.01:
            self._add_ratio(wheel / visual)
        self._span_start = stamp_ns, pose

    def observe_ground(self, depth: Float32, camera: Camera) -> None:
        """Measure the camera's height over the ground plane in a depth map `[h, w]` (odometry
        units)."""
        if self.settings.source != "camera_height":
            return
        height = ground_height(depth, camera)
        if height is not None:
            self._add_ratio(self.settings.camera_height / height)

    def restart_span(self, stamp_ns: int) -> None:
        """Do not compare across a gap in the visual trajectory, which goes on at `stamp_ns`; where
        that lies before the span, the wheels' poses are of another time and go too."""
        if self._span_start is not None and stamp_ns < self._span_start[0]:
            self._odometry.clear()
        self._span_start = None

    def _add_ratio(self, ratio: float) -> None:
        self._log_ratios.append(math.log(ratio))
        if len(self._log_ratios) < MIN_RATIOS:
            return
        logs = np.array(self._log_ratios)
        centre = float(np.median(logs))
        sigma = 1.4826 * float(np.median(np.abs(logs - centre))) / math.sqrt(len(logs)) + 1e-3
        if sigma > MAX_SIGMA:
            return
        self.factor, self.sigma, self.state, self._since_measured = (
            math.exp(centre),
            sigma,
            ScaleState.METRIC,
            0,
        )

    def _odometry_at(self, stamp_ns: int) -> Float64 | None:
        """Wheel pose interpolated at a stamp, None outside what was received or across a gap of
        more than half a second."""
        stamps, poses = [stamp for stamp, _ in self._odometry], [pose for _, pose in self._odometry]
        return pose_at(stamps, poses, stamp_ns, ODOMETRY_GAP_NS)


def ground_height(depth: Float32, camera: Camera) -> float | None:
    """Distance from the camera to the ground plane, in units of `depth` `[h, w]`; None when no
    plane is convincing.

    Fits the plane that most points of the lower half of the image lie on (deterministic RANSAC,
    then least squares), with its normal within 35 degrees of the optical down axis, as for a camera
    mounted on a vehicle (REP-103 up = optical -y).
    """
    small = cv2.resize(
        depth, (camera.width // 4, camera.height // 4), interpolation=cv2.INTER_NEAREST
    )
    rows, columns = np.mgrid[small.shape[0] // 2 : small.shape[0], 0 : small.shape[1]]
    z = small[rows, columns].astype(np.float64)
    x = ((columns + 0.5) * camera.width / small.shape[1] - 0.5 - camera.cx) / camera.fx
    y = ((rows + 0.5) * camera.height / small.shape[0] - 0.5 - camera.cy) / camera.fy
    keep = np.isfinite(z) & (z > 0) & (y > 0)
    points = np.stack([x[keep] * z[keep], y[keep] * z[keep], z[keep]], axis=1)
    if len(points) < 100:
        return None
    random = np.random.default_rng(0)
    triples = points[random.integers(0, len(points), (100, 3))]
    normals = np.cross(triples[:, 1] - triples[:, 0], triples[:, 2] - triples[:, 0])
    length = np.linalg.norm(normals, axis=1)
    normals = normals / np.maximum(length, 1e-12)[:, None]
    normals *= np.sign(normals[:, 1:2])
    heights = np.sum(normals * triples[:, 0], axis=1)
    plausible = (length > 1e-12) & (normals[:, 1] > math.cos(math.radians(35))) & (heights > 0)
    if not plausible.any():
        return None
    normals, heights = normals[plausible], heights[plausible]
    near = np.abs(points @ normals.T - heights) < 0.04 * np.maximum(heights, 1e-9)
    best = near[:, int(np.argmax(near.sum(axis=0)))]
    if best.mean() < 0.3:
        return None
    centre = points[best].mean(axis=0)
    normal = np.linalg.svd(points[best] - centre, full_matrices=False)[2][2]
    height = abs(float(normal @ centre))
    return height if abs(normal[1]) > math.cos(math.radians(35)) and height > 0 else None
