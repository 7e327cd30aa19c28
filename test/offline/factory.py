"""Small inputs made to order: videos, folders, clips of the scene factory as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from flow3r_ros.config import Config, load_config
from flow3r_ros.geometry.camera_file import save_camera
from flow3r_ros.offline import resume
from flow3r_ros.report.record import RunRecord
from flow3r_ros.training.scenes.renderer import SceneClip
from flow3r_ros.types import Estimate
from test.bags.factory import picture
from test.odometry.oracle import clip_of

FPS = 10.0
STOP, PERIOD = 14, 6
"""the frame at which something happens to a run; frames from one kept state to the next"""
TIMED = ("summary.json", "report.html", "record.npz", "run.yaml")
"""files that hold milliseconds, or the command"""


def write_video(path: Path, frames: int = 12, width: int = 64, height: int = 48) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (width, height))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.ascontiguousarray(picture(index, width, height)[..., ::-1]))
    writer.release()
    return path


def write_pictures(folder: Path, images: list[np.ndarray], stamps: list[str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, rgb in enumerate(images):
        cv2.imwrite(str(folder / f"frame_{index}.png"), rgb[..., ::-1])
    if stamps is not None:
        (folder / "timestamps.txt").write_text("".join(f"{stamp}\n" for stamp in stamps))
    return folder


def small_clip(frames: int = 8) -> SceneClip:
    return clip_of(11, frames, 168, 126, movers=0, speed=0.03, turn=0.01, textures="photographs")


def clip_folder(folder: Path, clip: SceneClip) -> Path:
    """The clip as `flow3r run` takes it: lossless pictures, stamps, camera.json."""
    write_pictures(
        folder / "frames",
        list(clip.rgb),
        [f"{100 + index / 10:.6f}" for index in range(len(clip.rgb))],
    )
    save_camera(clip.camera, folder / "camera.json")
    return folder


def small_config() -> Config:
    return load_config(None, {"tracking.depth_width": 168})


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in TIMED
    }


def at_stop(monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    """Do something when frame STOP is estimated; a state is kept every PERIOD frames."""
    add, frames = RunRecord.add, [0]

    def adding(self: RunRecord, estimate: Estimate) -> None:
        add(self, estimate)
        frames[0] = estimate.frame_id
        if estimate.frame_id == STOP:
            monkeypatch.setattr(RunRecord, "add", add)
            do()

    monkeypatch.setattr(RunRecord, "add", adding)
    monkeypatch.setattr(resume, "monotonic", lambda: float(frames[0]))
    monkeypatch.setattr(resume, "PERIOD_S", float(PERIOD))
