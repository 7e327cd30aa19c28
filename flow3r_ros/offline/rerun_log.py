"""What rerun shows of a run, live or in a recording (`.rrd`): image, depth, cloud, way, keyframes,
state and scale on the time line of the images; the truth where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flow3r_ros.errors import OutputError, install_extra
from flow3r_ros.types import Bool, Camera, Estimate, Float32, Float64, TrackingState, UInt8

MAX_POINTS = 20_000
"""points of one picture that are logged"""
TRAIL = 5000
"""places of the way that are shown behind the camera"""
_TIMELINE = "stamp"
_COLORS = {
    TrackingState.TRACKING: (13, 148, 136),
    TrackingState.DEGRADED: (202, 138, 4),
}
"""colours of the camera by state; grey where there is no pose"""


class RerunLog:
    """Logs into an `.rrd` file, or into a viewer that is started; a context manager. Raises
    OutputError when rerun-sdk is missing or the file cannot be written.

    Args:
        path: the file to write; None starts a viewer.
        title: name of the recording.
        z_up: the world is that of a robot (x forward, z up) and not a camera's (z forward).
    """

    def __init__(self, path: Path | None, title: str, z_up: bool = False) -> None:
        try:
            import rerun
        except ImportError as error:
            raise OutputError("rerun-sdk is not installed", install_extra("viz")) from error
        self._rerun: Any = rerun
        self._trail: list[list[float]] = []
        self._keyframes: list[list[float]] = []
        self._segment = 0
        self._stream = rerun.RecordingStream("flow3r", recording_id=title)
        try:
            self._stream.spawn() if path is None else self._stream.save(path)
        except Exception as error:
            raise OutputError(
                f"{path or 'the viewer'}: cannot be {'written' if path else 'started'} ({error})",
                "check the path and free space" if path else "write a file instead: --rerun FILE",
            ) from error
        axes = rerun.ViewCoordinates.FLU if z_up else rerun.ViewCoordinates.RDF
        self._stream.log("world", axes, static=True)

    def __enter__(self) -> RerunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()
        self._stream.disconnect()

    def add(self, estimate: Estimate, keep: Bool) -> None:
        """Log one estimate; `keep` `[h, w]` marks the pixels worth a point."""
        rr, stream = self._rerun, self._stream
        self.at(estimate.stamp_ns, estimate.T_odom_cam, estimate.tracking_state, estimate.segment)
        self.picture(estimate.camera, estimate.depth, estimate.rgb)
        if estimate.keyframe and estimate.tracking_state.has_pose:
            self._keyframes.append(estimate.T_odom_cam[:3, 3].tolist())
            stream.log("world/keyframes", rr.Points3D(self._keyframes[-TRAIL:], radii=-4.0))
        if estimate.tracking_state.has_pose:
            self.cloud("world/camera/points", estimate.points()[keep], estimate.rgb[keep])
        words = f"{estimate.tracking_state.value}, pose from {estimate.pose_source.value}"
        stream.log("state", rr.TextLog(f"{words}: {estimate.reason}" if estimate.reason else words))
        stream.log("scale/sigma", rr.Scalars(min(estimate.scale_sigma, 1e3)))
        stream.log("confidence", rr.Scalars(float(np.nanmean(estimate.confidence))))

    def at(self, stamp_ns: int, pose: Float64, state: TrackingState, segment: int = 0) -> None:
        """Go to a stamp, with the camera at `pose` `[4, 4]`; a new segment begins a new way."""
        rr, stream = self._rerun, self._stream
        stream.set_time(_TIMELINE, timestamp=np.datetime64(stamp_ns, "ns"))
        if segment != self._segment:
            self._segment, self._trail = segment, []
        if not state.has_pose:
            return
        stream.log("world/camera", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        self._trail.append(pose[:3, 3].tolist())
        strip = rr.LineStrips3D(
            [self._trail[-TRAIL:]], colors=[_COLORS.get(state, (100, 116, 139))]
        )
        stream.log(f"world/way/{segment}", strip)

    def picture(self, camera: Camera, depth: Float32, rgb: UInt8 | None = None) -> None:
        """Depth `[h, w]` (NaN unknown) and colours of the picture at this stamp."""
        rr, stream = self._rerun, self._stream
        size = [camera.width, camera.height]
        pinhole = rr.Pinhole(image_from_camera=camera.matrix, resolution=size)
        stream.log("world/camera/image", pinhole)
        if rgb is not None:
            stream.log("world/camera/image/rgb", rr.Image(rgb).compress(jpeg_quality=80))
        known = rr.DepthImage(np.nan_to_num(depth), meter=1.0)
        stream.log("world/camera/image/depth", known)

    def cloud(self, path: str, points: Float32, colors: UInt8, static: bool = False) -> None:
        """Points `[M, 3]` and their colours `[M, 3]`, thinned to MAX_POINTS."""
        every = max(1, -(-len(points) // MAX_POINTS))
        shown = self._rerun.Points3D(points[::every], colors=colors[::every])
        self._stream.log(path, shown, static=static)

    def truth(self, centres: Float64) -> None:
        """The true way `[M, 3]`, in the axes and unit of the estimate."""
        strip = self._rerun.LineStrips3D([centres.tolist()], colors=[(148, 163, 184)])
        self._stream.log("world/truth", strip, static=True)
