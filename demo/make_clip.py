"""Render the bundled demo clip: `python -m demo.make_clip demo/clip`.

A hand-held walk through a furnished room with photographic textures and a moving object, 640 x 480,
with its camera, its stamps and its true trajectory, in the layout of every clip folder
(`frames.mp4`, `timestamps.txt`, `camera.json`, `groundtruth.tum`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from flow3r_ros.errors import OutputError
from flow3r_ros.geometry.camera_file import save_camera
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.training.scenes.renderer import SceneClip, render_clip
from flow3r_ros.types import UInt8
from flow3r_ros.wire.tum import write_tum

SEED = 107
FRAMES = 100
RATE = 15
_README = """# Demo clip

Rendered, not filmed: `python -m demo.make_clip demo/clip` made it (seed {seed}, {frames} frames
at {rate} Hz). A hand-held camera in a furnished room; one thing in it moves by itself. Textures
are photographs that scikit-image ships (public domain or CC0). `groundtruth.tum` is exact:
camera-to-world of the optical frame, the first frame at the origin, scene units.
"""


def render(frames: int = FRAMES, seed: int = SEED) -> SceneClip:
    """The scene of the clip at full size."""
    return render_clip(
        seed,
        frames,
        640,
        480,
        layout="room",
        motion="handheld",
        textures="photographs",
        movers=1,
        noise=0.1,
        speed=0.14,
        turn=np.deg2rad(6.0),
        times=np.arange(frames, dtype=np.float64) * (6.0 / FRAMES),
        field_of_view=72.0,
    )


def write(clip: SceneClip, folder: Path) -> None:
    """Write the clip folder. Raises OutputError where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_video(clip.rgb, folder / "frames.mp4")
        stamps = np.arange(len(clip.rgb), dtype=np.int64) * 1_000_000_000 // RATE
        (folder / "timestamps.txt").write_text(
            "".join(f"{ns // 10**9}.{ns % 10**9:09d}\n" for ns in stamps.tolist()), encoding="utf-8"
        )
        save_camera(clip.camera, folder / "camera.json")
        write_tum(folder / "groundtruth.tum", Trajectory(stamps, clip.poses))
        text = _README.format(seed=SEED, frames=len(clip.rgb), rate=RATE)
        (folder / "README.md").write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error})", "choose another folder"
        ) from error


def _write_video(rgb: UInt8, path: Path) -> None:
    height, width = rgb.shape[1:3]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (width, height))
    if not video.isOpened():
        raise OutputError(
            f"{path}: OpenCV cannot encode mp4v here",
            "install opencv-python-headless from the constraints file",
        )
    for image in rgb:
        video.write(np.ascontiguousarray(image[:, :, ::-1]))
    video.release()


def main() -> None:
    """Render and write the clip."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    write(render(), parser.parse_args().folder)


if __name__ == "__main__":
    main()
