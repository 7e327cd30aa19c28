"""A synthetic clip in the layout of ../shared/video."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from flow3r_ros.geometry.camera_file import save_camera
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.training.scenes.renderer import render_clip
from flow3r_ros.wire.tum import write_tum


def write_clip(folder: Path, frames: int = 16) -> None:
    """A room seen on an orbit at 10 Hz, with ground truth."""
    clip = render_clip(
        5,
        frames=frames,
        width=320,
        height=240,
        layout="room",
        motion="orbit",
        movers=0,
        speed=0.06,
        turn=0.06,
        field_of_view=70.0,
    )
    (folder / "frames").mkdir(parents=True)
    for index, image in enumerate(clip.rgb):
        cv2.imwrite(str(folder / "frames" / f"{index:06d}.jpg"), image[..., ::-1])
    stamps = np.arange(frames) * 100_000_000
    (folder / "timestamps.txt").write_text("".join(f"{stamp / 1e9:.6f}\n" for stamp in stamps))
    save_camera(clip.camera, folder / "camera.json")
    write_tum(folder / "groundtruth.tum", Trajectory(stamps, clip.poses))
