"""The bundled clip is complete, small, and what its generator makes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from demo import make_clip as demo_clip
from flow3r_ros.geometry.camera_file import load_camera
from flow3r_ros.wire.tum import read_tum

CLIP = Path(__file__).resolve().parents[1] / "demo" / "clip"


def test_the_bundled_clip_is_small_and_consistent():
    assert sum(path.stat().st_size for path in CLIP.iterdir()) < 3_000_000
    stamps = np.loadtxt(CLIP / "timestamps.txt")
    trajectory = read_tum(CLIP / "groundtruth.tum")
    camera = load_camera(CLIP / "camera.json")
    assert camera is not None
    assert (camera.width, camera.height) == (640, 480)
    assert len(stamps) == len(trajectory.poses) == demo_clip.FRAMES
    np.testing.assert_allclose(trajectory.stamps_ns / 1e9, stamps, atol=1e-6)


def test_the_bundled_clip_is_what_the_generator_makes(tmp_path):
    rendered = demo_clip.render(2)
    demo_clip.write(rendered, tmp_path / "clip")
    for clip in (CLIP, tmp_path / "clip"):
        video = cv2.VideoCapture(str(clip / "frames.mp4"))
        read, picture = video.read()
        assert read
        assert picture.shape == (480, 640, 3)
        assert (
            np.corrcoef(picture[:, :, ::-1].ravel(), rendered.rgb[0].ravel())[0, 1] > 0.98
        )  # exposure depends on the clip's length
    poses = read_tum(CLIP / "groundtruth.tum").poses
    np.testing.assert_allclose(poses[1], rendered.poses[1], atol=1e-6)
