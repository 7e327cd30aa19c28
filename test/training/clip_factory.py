"""Factories of the data tests: clips of a synthetic scene, and the same as recordings on disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from flow3r_ros.geometry.camera_file import save_camera
from flow3r_ros.training.labels.clips import Clip
from flow3r_ros.training.scenes.renderer import SceneClip, render_clip


def scene(
    seed: int = 1, frames: int = 4, width: int = 168, height: int = 126, speed: float = 0.06
) -> SceneClip:
    return render_clip(
        seed,
        frames,
        width,
        height,
        layout="room",
        motion="sideways",
        movers=0,
        noise=0.3,
        speed=speed,
        turn=0.02,
        field_of_view=60,
    )


def clip_of(made: SceneClip, key: str = "a") -> Clip:
    stamps = np.arange(len(made.rgb), dtype=np.int64) * 100_000_000
    return Clip(key, "synthetic", made.rgb, stamps, made.camera, made.depth, made.poses)


def write_images(folder: Path, made: SceneClip, repeats: int = 1) -> Path:
    """A scene as an image folder with its camera.json; each frame `repeats` times."""
    folder.mkdir(parents=True)
    for index, rgb in enumerate(np.repeat(made.rgb, repeats, axis=0)):
        cv2.imwrite(str(folder / f"{index:04d}.png"), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    save_camera(made.camera, folder / "camera.json")
    return folder
