"""Still images with wide steps, made by the scene factory: `flow3r run --refine` beside COLMAP
(pycolmap's own features, matches and incremental mapping) with the same intrinsics."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np

from flow3r_ros.geometry.camera_file import load_camera
from flow3r_ros.geometry.lie import invert
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.slam.picture_matches import require_pycolmap
from flow3r_ros.training.scenes.layouts import Layout
from flow3r_ros.training.scenes.paths import Motion
from flow3r_ros.training.scenes.renderer import render_clip
from flow3r_ros.wire.tum import write_tum

PERIOD_NS = 1_000_000_000
"""stamps of still images say nothing of time: one a second"""


@dataclass(frozen=True)
class StillSet:
    """One set: a seed of the factory, `step` of the camera in scene sizes and `turn` in radians
    from one picture to the next."""

    name: str
    seed: int
    layout: Layout
    motion: Motion
    pictures: int
    step: float
    turn: float

    def write(self, folder: Path) -> Path:
        """Render it into a folder that does not exist: `frames/`, `camera.json`,
        `timestamps.txt`, `groundtruth.tum`; returns the folder."""
        clip = render_clip(
            self.seed, self.pictures, 640, 480, layout=self.layout, motion=self.motion,
            textures="held_out", movers=0, noise=0.5, speed=self.step, turn=self.turn,
            field_of_view=62.0,
        )  # fmt: skip
        (folder / "frames").mkdir(parents=True)
        for at, rgb in enumerate(clip.rgb):
            cv2.imwrite(str(folder / "frames" / f"{at:03d}.png"), rgb[..., ::-1])
        camera = clip.camera
        names = ("width", "height", "fx", "fy", "cx", "cy")
        intrinsics = {name: getattr(camera, name) for name in names}
        (folder / "camera.json").write_text(json.dumps(intrinsics), encoding="ascii")
        stamps = PERIOD_NS * np.arange(self.pictures, dtype=np.int64)
        seconds = "".join(f"{at}.0\n" for at in range(self.pictures))
        (folder / "timestamps.txt").write_text(seconds, encoding="ascii")
        write_tum(folder / "groundtruth.tum", Trajectory(stamps, clip.poses, self.name))
        return folder


SETS = (
    StillSet("around a room", 990_111, "room", "orbit", 24, 0.12, 0.0),
    StillSet("around a table", 990_120, "clutter", "orbit", 24, 0.12, 0.0),
    StillSet("along a street", 990_202, "street", "sideways", 20, 0.1, 0.06),
)
"""seeds beyond those of training"""


def colmap_poses(folder: Path, work: Path) -> tuple[Trajectory | None, float]:
    """The way of the largest model that COLMAP finds of a set's pictures, None where it finds none,
    and the seconds it took, one thread. `work` is an empty folder.

    Raises ConfigError where pycolmap is not installed.
    """
    colmap, begun = require_pycolmap(), perf_counter()
    camera = load_camera(folder / "camera.json")
    assert camera is not None
    database = work / "database.db"
    numbers = (camera.fx, camera.fy, camera.cx + 0.5, camera.cy + 0.5)
    colmap.extract_features(
        database, folder / "frames", camera_mode=colmap.CameraMode.SINGLE,
        reader_options=colmap.ImageReaderOptions(
            camera_model="PINHOLE", camera_params=",".join(f"{value:.9g}" for value in numbers)
        ),
        extraction_options=colmap.FeatureExtractionOptions(num_threads=1),
    )  # fmt: skip
    colmap.match_exhaustive(database, matching_options=colmap.FeatureMatchingOptions(num_threads=1))
    options = colmap.IncrementalPipelineOptions(
        num_threads=1, random_seed=0, min_model_size=3, extract_colors=False,
        ba_refine_focal_length=False, ba_refine_extra_params=False,
    )  # fmt: skip
    models = colmap.incremental_mapping(database, folder / "frames", work, options)
    took = perf_counter() - begun
    if not models:
        return None, took
    largest = max(models.values(), key=lambda model: model.num_reg_images())
    found = {}
    for id_ in largest.reg_image_ids():
        image = largest.image(id_)
        motion = np.asarray(image.cam_from_world().matrix(), np.float64)
        found[int(Path(image.name).stem)] = invert(np.vstack([motion, [0.0, 0.0, 0.0, 1.0]]))
    rows = sorted(found)
    stamps = PERIOD_NS * np.array(rows, np.int64)
    return Trajectory(stamps, np.stack([found[row] for row in rows]), "COLMAP"), took
