"""The plain data that travels between the parts of the house: numpy inside, no torch, no ROS.

Frames come in, windows go to the network, predictions come back, estimates leave. Poses are
camera-to-world 4x4 float64 of the *optical* frame (x right, y down, z forward); stamps are integer
nanoseconds; depth is z along the optical axis.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]


LOST_VARIANCE = 1e9
"""variance of every axis of a pose or twist that nothing is known about, m^2 (or output units
squared) and rad^2; what `~/odometry` publishes while LOST"""


class TrackingState(Enum):
    """How far the pose of a frame can be trusted."""

    INITIALIZING = "initializing"
    TRACKING = "tracking"
    DEGRADED = "degraded"
    LOST = "lost"
    RELOCALIZING = "relocalizing"

    @property
    def has_pose(self) -> bool:
        """Whether the pose may be used at all: not while LOST, nor while RELOCALIZING (lost, and
        searching among the remembered keyframes)."""
        return self not in (TrackingState.LOST, TrackingState.RELOCALIZING)


class ScaleState(Enum):
    """What one unit of the published trajectory means."""

    RELATIVE = "relative"
    ANCHORED = "anchored"
    METRIC = "metric"


class PoseSource(Enum):
    """Which candidate won the pose of a frame."""

    FIRST = "first"
    REPEATED = "repeated"
    NETWORK = "network"
    TWO_VIEW = "two_view"
    ESSENTIAL = "essential"
    PNP = "pnp"
    STATIONARY = "stationary"
    RELOCALISED = "relocalised"
    PREDICTED = "predicted"


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one camera in `sensor_msgs/CameraInfo` terms.

    `width`, `height` in pixels; `fx, fy, cx, cy` in pixels, pixel centres at integers; `distortion`
    in the order of OpenCV for `distortion_model` in `none`, `plumb_bob`, `rational_polynomial`,
    `equidistant`. `estimated` marks intrinsics recovered from the prediction instead of a
    calibration.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = "none"
    distortion: tuple[float, ...] = ()
    estimated: bool = False

    @property
    def matrix(self) -> Float64:
        """K, `[3, 3]` pixels."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Frame:
    """One image at one time.

    `id` counts frames of this run from 0 and never repeats; `stamp_ns` is the source's stamp in int
    nanoseconds; `rgb` is uint8 `[H, W, 3]`; `camera` is None when nothing is known; `source_frame`
    is the optical frame's name on the ROS side; `ignored` bool `[h, w]` over the whole image, of
    any size, is True where it shows what is not to be looked at (the robot's own body, people).
    """

    id: int
    stamp_ns: int
    rgb: UInt8
    camera: Camera | None = None
    source_frame: str = "camera_optical_frame"
    ignored: Bool | None = None


@dataclass(frozen=True)
class Inertial:
    """One reading of an inertial unit, turned to the camera's optical axes.

    `rate` `[3]` rad/s and `acceleration` `[3]` m/s^2 (up, at rest), None where there is none;
    `down` `[3]` the unit vector that points down in the optical world of a level odometry.
    """

    stamp_ns: int
    rate: Float64 | None
    acceleration: Float64 | None
    down: Float64


@dataclass(frozen=True)
class Evidence:
    """What classical geometry knows about a window, offered to small networks (layout:
    `geometry.evidence`).

    `planes` float32 `[N, C, h, w]` with C = `geometry.evidence.CHANNELS`; `poses` float64 `[N, 4,
    4]` camera-to-world of the prior, first frame identity, in units of `scale`; `scale` odometry
    units per evidence unit (a network's output times `scale` is in odometry units when it followed
    the evidence).
    """

    planes: Float32
    poses: Float64
    scale: float = 1.0


@dataclass(frozen=True)
class Window:
    """Frames that go through the network together, oldest first, keyed by frame id.

    `wanted` are the ids whose geometry is used (the heads run only for them); `pairs` are (source
    id, target id) whose factored flow is wanted.
    """

    frames: tuple[Frame, ...]
    wanted: tuple[int, ...]
    evidence: Evidence | None = None
    pairs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Prediction:
    """What the network says about the wanted frames of a window, in the window's own arbitrary
    Sim(3) frame.

    `local_points` float32 `[N, h, w, 3]` in each camera's optical frame; `confidence` float32 `[N,
    h, w]` in [0, 1]; `poses` float64 `[N, 4, 4]` camera-to-world; `flow` maps (source id, target
    id) to float32 `[h, w, 2]`, displacement in pixels of the h x w grid. The h x w grid covers the
    whole image: pixel u of W columns lies at column (u + 0.5) w / W - 0.5.
    """

    frame_ids: tuple[int, ...]
    local_points: Float32
    confidence: Float32
    poses: Float64
    flow: dict[tuple[int, int], Float32] = field(default_factory=dict)


@dataclass(frozen=True)
class Seam:
    """How a window's frame was joined to the odometry frame.

    `sim3` `[4, 4]` (scale in the rotation block) maps window points to odometry points; `inliers`
    is the inlier share in [0, 1]; `residual` is the robust residual relative to depth
    (dimensionless); a refused seam says why in `reason`.
    """

    sim3: Float64
    scale: float
    inliers: float
    residual: float
    accepted: bool
    reason: str = ""


@dataclass(frozen=True)
class Estimate:
    """Everything known about one frame; `T_odom_cam`, `depth` and `points()` share one scale.

    `T_odom_cam` float64 `[4, 4]` camera-to-world of the optical frame, world = the first camera's
    optical frame; `covariance` float64 `[6, 6]` (x, y, z, rot x, rot y, rot z; units of the pose
    squared, rad^2) in the axes of the odometry world, against the origin of that world: it grows
    with the way; `depth` float32 `[h, w]` (NaN = invalid);
    `confidence` float32 `[h, w]` in [0, 1]; `moving` bool `[h, w]`, True where pixels move
    independently of the camera; `rgb` uint8 `[h, w, 3]`, the image on the depth grid; `camera` the
    pinhole of the depth grid; `segment` counts the pieces of the trajectory from 0: between two of
    them the motion is not known.
    """

    frame_id: int
    stamp_ns: int
    source_frame: str
    T_odom_cam: Float64
    covariance: Float64
    depth: Float32
    confidence: Float32
    moving: Bool
    rgb: UInt8
    camera: Camera
    tracking_state: TrackingState
    pose_source: PoseSource
    scale_state: ScaleState
    scale_sigma: float
    """relative 1-sigma of the scale, dimensionless; inf while `relative`"""
    seam: Seam | None = None
    keyframe: bool = False
    window: tuple[int, ...] = ()
    stage_ms: dict[str, float] = field(default_factory=dict)
    segment: int = 0
    """grows by one at every new segment, whose unit and origin are unrelated to those before"""
    reason: str = ""
    """why the state is not TRACKING, or what does not fit while it is; empty: nothing to say"""
    step_covariance: Float64 = field(default_factory=lambda: np.zeros((6, 6)))
    """covariance `[6, 6]` of the motion since the previous estimate, units, order and world axes of
    `covariance`; all zero: not known"""
    twist: Float64 = field(default_factory=lambda: np.zeros(6))
    """velocity `[6]` of the camera in its own optical axes: linear x y z (units of the pose a
    second), angular x y z (rad/s)"""
    twist_covariance: Float64 = field(default_factory=lambda: np.zeros((6, 6)))
    """covariance `[6, 6]` of `twist`; all zero: the twist is not known"""
    keyframes: int = 0
    """keyframes that are remembered"""
    has_depth: bool = True
    """False where nobody asked for the depth of a frame that is no keyframe: all of it is NaN"""

    def points(self) -> Float32:
        """Back-project the depth through `camera`: float32 `[h, w, 3]`, optical frame, NaN where
        depth is invalid."""
        columns = (
            np.arange(self.camera.width, dtype=np.float32) - np.float32(self.camera.cx)
        ) / np.float32(self.camera.fx)
        rows = (
            np.arange(self.camera.height, dtype=np.float32) - np.float32(self.camera.cy)
        ) / np.float32(self.camera.fy)
        return np.stack(
            [self.depth * columns[None, :], self.depth * rows[:, None], self.depth], axis=-1
        )


@dataclass(frozen=True)
class Segment:
    """One piece of the trajectory: ids of its first and last estimated frame, and why it began."""

    first_frame: int
    last_frame: int
    reason: str


class Predictor(Protocol):
    """The only face of a network that odometry, bags, evaluation and the node see."""

    name: str
    """model name for status and reports"""
    uses_evidence: bool
    """whether `Window.evidence` changes the answer"""
    frames_per_window: int
    """frames of a window that its weights were trained on"""

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """(w, h) of the grid that an image of this size is predicted on; a multiple of the patch,
        aspect kept."""
        ...

    def prepare(self, frame: Frame) -> None:
        """Encode one frame ahead of `predict`; safe to call from another thread; optional."""
        ...

    def predict(self, window: Window) -> Prediction:
        """Geometry of the wanted frames; the order of `Prediction.frame_ids` equals
        `window.wanted`."""
        ...

    def reset(self) -> None:
        """Forget every cached frame."""
        ...


def seconds(stamp_ns: int) -> str:
    """Seconds with 9 decimals of integer nanoseconds, exactly: how every stamp is printed."""
    sign = "-" if stamp_ns < 0 else ""
    return f"{sign}{abs(stamp_ns) // 10**9}.{abs(stamp_ns) % 10**9:09d}"
