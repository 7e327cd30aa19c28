"""A replay as a rerun recording (`.rrd`): image, depth, cloud, trajectory, state and scale on the
time line of the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flow3r_ros.errors import OutputError, install_extra
from flow3r_ros.types import Bool, Estimate

_MAX_POINTS = 20_000
_TIMELINE = "stamp"


class RerunLog:
    """Writes estimates to an `.rrd` file; a context manager. Raises OutputError when rerun-sdk is
    missing or the file cannot be written."""

    def __init__(self, path: Path, title: str) -> None:
        try:
            import rerun
        except ImportError as error:
            raise OutputError("rerun-sdk is not installed", install_extra("viz")) from error
        self._rerun: Any = rerun
        self._trail: list[list[float]] = []
        self._stream = rerun.RecordingStream("flow3r", recording_id=title)
        try:
            self._stream.save(path)
        except Exception as error:
            raise OutputError(
                f"{path}: cannot be written ({error})", "check the path and free space"
            ) from error
        self._stream.log("world", rerun.ViewCoordinates.RDF, static=True)

    def __enter__(self) -> RerunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()
        self._stream.disconnect()

    def add(self, estimate: Estimate, keep: Bool) -> None:
        """Log one estimate; `keep` `[h, w]` marks the pixels worth a point."""
        rr, stream, camera, T = self._rerun, self._stream, estimate.camera, estimate.T_odom_cam
        stream.set_time(_TIMELINE, timestamp=np.datetime64(estimate.stamp_ns, "ns"))
        stream.log("world/camera", rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]))
        stream.log(
            "world/camera/image",
            rr.Pinhole(image_from_camera=camera.matrix, resolution=[camera.width, camera.height]),
        )
        stream.log("world/camera/image/rgb", rr.Image(estimate.rgb).compress(jpeg_quality=80))
        stream.log(
            "world/camera/image/depth", rr.DepthImage(np.nan_to_num(estimate.depth), meter=1.0)
        )
        if estimate.tracking_state.has_pose:
            self._trail.append([float(value) for value in T[:3, 3]])
            stream.log("world/trajectory", rr.LineStrips3D([self._trail[-5000:]]))
            points, colors = estimate.points()[keep], estimate.rgb[keep]
            stride = max(1, len(points) // _MAX_POINTS)
            stream.log(
                "world/camera/points", rr.Points3D(points[::stride], colors=colors[::stride])
            )
        stream.log(
            "state",
            rr.TextLog(f"{estimate.tracking_state.value}, pose from {estimate.pose_source.value}"),
        )
        stream.log("scale/sigma", rr.Scalars(min(estimate.scale_sigma, 1e3)))
        stream.log("confidence", rr.Scalars(float(np.nanmean(estimate.confidence))))
