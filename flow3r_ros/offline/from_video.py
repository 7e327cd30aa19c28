"""`flow3r bags from-video`: a video or image folder as the bag that a camera driver would have
recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from flow3r_ros.bags.types import make
from flow3r_ros.bags.writer import BagWriter
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import InputError
from flow3r_ros.offline.progress import FrameProgress
from flow3r_ros.paths import OutputFolder
from flow3r_ros.types import Camera, Frame
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.images import rgb_image
from flow3r_ros.wire.transforms import header_of

FRAME = "camera_optical_frame"


def bag_from_video(
    video: Path,
    output: Path,
    camera_file: Path | None = None,
    compressed: bool = False,
    storage: Literal["mcap", "sqlite3"] = "mcap",
    every: int = 1,
    max_frames: int | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write `/camera/image` (rgb8; or `/camera/image/compressed`, jpeg quality 95) and
    `/camera/camera_info` with the source's stamps; one of zero, which in a message says that there
    is none, becomes one nanosecond.

    CameraInfo has zeros where the intrinsics are unknown. `output` appears complete or not at all.
    Returns frames, drops and the path. Raises InputError and CameraError as `open_source`,
    OutputError when the bag exists or cannot be written.
    """
    topic = "/camera/image/compressed" if compressed else "/camera/image"
    with (
        OutputFolder(output) as unfinished,
        open_source(video, camera=camera_file, every=every, max_frames=max_frames) as source,
    ):
        bag = unfinished.path / unfinished.final.name
        frames = 0
        with (
            BagWriter(bag, storage) as writer,
            FrameProgress(video.name, source.total, quiet) as progress,
        ):
            writer.add("/camera/camera_info", "sensor_msgs/msg/CameraInfo")
            writer.add(topic, f"sensor_msgs/msg/{'CompressedImage' if compressed else 'Image'}")
            for frame in source:
                stamp_ns = frame.stamp_ns or 1
                header = header_of(make, stamp_ns, FRAME)
                writer.write("/camera/camera_info", stamp_ns, _info(header, frame))
                writer.write(
                    topic,
                    stamp_ns,
                    _jpeg(header, frame) if compressed else rgb_image(make, header, frame.rgb),
                )
                frames += 1
                progress.step()
        if not frames:
            raise InputError(
                f"{video}: no frame could be read ({dict(source.drops)})", "check the input"
            )
        for file in sorted(bag.iterdir()):
            file.rename(unfinished.path / file.name)
        bag.rmdir()
        return {
            "frames": frames,
            "frames_dropped": dict(source.drops),
            "notes": source.notes,
            "bag": str(output),
        }


def _info(header: Any, frame: Frame) -> Any:
    """CameraInfo of the frame's camera; K, P and D of zeros when it is unknown, as uncalibrated
    drivers send."""
    height, width = frame.rgb.shape[:2]
    if frame.camera is not None:
        return info_from_camera(make, header, frame.camera)
    info = info_from_camera(make, header, Camera(width, height, 1.0, 1.0, 0.0, 0.0))
    info.k, info.p = np.zeros(9), np.zeros(12)
    return info


def _jpeg(header: Any, frame: Frame) -> Any:
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95]
    )
    return make(
        "sensor_msgs/msg/CompressedImage",
        header=header,
        format="jpeg",
        data=np.asarray(data).reshape(-1),
    )
