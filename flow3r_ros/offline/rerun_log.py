"""What rerun shows of a run, live or in a recording (`.rrd`): image, tracks, depth, cloud, way,
keyframes, loops, state and scale on the time line of the images; the truth where there is one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.errors import OutputError, cause_of, install_extra
from flow3r_ros.types import Bool, Camera, Estimate, Float32, Float64, TrackingState, UInt8

MAX_POINTS = 20_000
"""points of one picture that are logged"""
TRAIL = 5000
"""places of the way that are shown behind the camera"""
TAIL = 12
"""pictures that the tail of a corner reaches back"""
_CORNERS = (250, 204, 21)
_TIMELINE = "stamp"
_COLORS = {
    TrackingState.TRACKING: (13, 148, 136),
    TrackingState.DEGRADED: (202, 138, 4),
}
"""colours of the camera by state; grey where there is no pose"""


class RerunLog:
    """Logs into an `.rrd` file, or into a viewer that is started; a context manager. The file
    takes its name when the block ends, and not where an error ends it. Raises OutputError when
    rerun-sdk is missing or the file cannot be written.

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
        self._tails: dict[int, list[list[float]]] = {}
        self._segment = 0
        self._stream = rerun.RecordingStream("flow3r", recording_id=title)
        self._path = path
        self._partial = None if path is None else path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            if path is not None and path.is_dir():
                raise IsADirectoryError
            self._stream.save(self._partial) if self._partial else self._stream.spawn()
        except Exception as error:
            what = f"{path or 'the viewer'}: cannot be {'written' if path else 'started'}"
            raise OutputError(
                f"{what} ({cause_of(error)})",
                "check the path and free space" if path else "write a file instead: --rerun FILE",
            ) from error
        axes = rerun.ViewCoordinates.FLU if z_up else rerun.ViewCoordinates.RDF
        self._stream.log("world", axes, static=True)

    def __enter__(self) -> RerunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stream.flush()
        self._stream.disconnect()
        if self._partial is None or self._path is None:
            return
        if kind is None:
            os.replace(self._partial, self._path)
        else:
            self._partial.unlink(missing_ok=True)

    def add(self, estimate: Estimate, keep: Bool) -> None:
        """Log one estimate; `keep` `[h, w]` marks the pixels worth a point."""
        rr, stream = self._rerun, self._stream
        self.at(estimate.stamp_ns, estimate.T_odom_cam, estimate.tracking_state, estimate.segment)
        self.picture(estimate.camera, estimate.depth, estimate.rgb)
        if estimate.keyframe and estimate.tracking_state.has_pose:
            self.keyframe(estimate.T_odom_cam)
        if estimate.tracking_state.has_pose:
            self.cloud("world/camera/points", estimate.points()[keep], estimate.rgb[keep])
        words = f"{estimate.tracking_state.value}, pose from {estimate.pose_source.value}"
        stream.log("state", rr.TextLog(f"{words}: {estimate.reason}" if estimate.reason else words))
        self.count("scale/sigma", min(estimate.scale_sigma, 1e3))
        self.count("confidence", float(np.nanmean(estimate.confidence)))

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

    def keyframe(self, pose: Float64) -> None:
        """A keyframe at `pose` `[4, 4]`; the latest TRAIL of them are shown."""
        self._keyframes.append(pose[:3, 3].tolist())
        shown = self._rerun.Points3D(self._keyframes[-TRAIL:], radii=-4.0)
        self._stream.log("world/keyframes", shown)

    def count(self, name: str, value: float) -> None:
        """A number of this stamp, as a curve."""
        self._stream.log(name, self._rerun.Scalars(value))

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

    def tracks(self, ids: NDArray[np.int64], shares: Float32, camera: Camera) -> None:
        """Corners of the picture of `camera` at this stamp, with their tails: `ids` `[N]`, the same
        for one corner in all pictures, and `shares` `[N, 2]` of width and height."""
        if not len(ids):
            return
        places = (shares * [camera.width, camera.height] - 0.5).tolist()
        self._tails = {
            id_: [*self._tails.get(id_, []), place][-TAIL:]
            for id_, place in zip(ids.tolist(), places, strict=True)
        }
        rr = self._rerun
        self._stream.log("world/camera/image/corners", rr.Points2D(places, colors=[_CORNERS]))
        tails = rr.LineStrips2D([*self._tails.values()], colors=[_CORNERS])
        self._stream.log("world/camera/image/tracks", tails)

    def loops(self, ends: Sequence[tuple[Float64, Float64]]) -> None:
        """Loops, each between two camera centres `[3]`; all that are known by now."""
        lines = [[first.tolist(), second.tolist()] for first, second in ends]
        strips = self._rerun.LineStrips3D(lines, colors=[(220, 38, 38)])
        self._stream.log("world/loops", strips)

    def truth(self, centres: Float64) -> None:
        """The true way `[M, 3]`, in the axes and unit of the estimate."""
        self._still("world/truth", centres, (148, 163, 184))

    def way_in_map(self, centres: Float64) -> None:
        """The way `[M, 3]` after loops and refinement, in the axes and unit of the estimate."""
        self._still("world/way_in_map", centres, (202, 138, 4))

    def _still(self, path: str, centres: Float64, color: tuple[int, int, int]) -> None:
        strip = self._rerun.LineStrips3D([centres.tolist()], colors=[color])
        self._stream.log(path, strip, static=True)
