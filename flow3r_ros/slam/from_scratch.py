"""Poses of pictures from their matches alone, by COLMAP's incremental mapping (Schonberger and
Frahm, CVPR 2016): for pictures whose poses the odometry told wrong, or not at all.

An adjustment bends a chain of poses until it fits; it does not mend one that is broken, as by a
jump that was told far too short: then either side keeps points of its own, each fits, and nothing
pulls them together. What is found here begins with the pair that fixes depth best, and takes in
picture after picture.
"""

from __future__ import annotations

import numpy as np

from flow3r_ros.geometry.lie import invert
from flow3r_ros.slam.picture_matches import PictureMatches, require_pycolmap
from flow3r_ros.types import Float64

GROWTH = 1.3
"""growth of the model, pictures and points, after which all of it is adjusted again: that is most
of the time it takes, and all is adjusted once more afterwards"""
MIN_PICTURES = 3
"""pictures below which a model says nothing"""


def poses_from_scratch(matches: PictureMatches) -> dict[int, Float64]:
    """Poses `[4, 4]` camera-to-world by picture, of the largest model that is found, in its own
    frame and unit; none where there is no model."""
    colmap = require_pycolmap()
    if not matches.pairs:
        return {}
    with colmap.Database.open(":memory:") as database:
        for camera in {each.camera_id: each for each in matches.cameras}.values():
            database.write_camera(camera, True)
            rig = colmap.Rig(rig_id=camera.camera_id)
            rig.add_ref_sensor(camera.sensor_id)
            database.write_rig(rig, True)
        for at, camera in enumerate(matches.cameras):
            image = colmap.Image(name=str(at), camera_id=camera.camera_id, image_id=at + 1)
            image.frame_id = at + 1
            frame = colmap.Frame(frame_id=at + 1, rig_id=camera.camera_id)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, True)
            database.write_image(image, True)
            database.write_keypoints(at + 1, matches.pixels[at].astype(np.float32))
        for first, second, found in matches.pairs:
            database.write_two_view_geometry(first + 1, second + 1, found)
        models = colmap.ReconstructionManager()
        options = colmap.IncrementalPipelineOptions(
            extract_colors=False, num_threads=1, random_seed=0, min_model_size=MIN_PICTURES,
            ba_refine_focal_length=False, ba_refine_extra_params=False,
            ba_global_frames_ratio=GROWTH, ba_global_points_ratio=GROWTH,
        )  # fmt: skip
        colmap.IncrementalPipeline(options, database, models).run()
    largest = max(
        (models.get(at) for at in range(models.size())),
        key=lambda model: model.num_reg_images(),
        default=None,
    )
    if largest is None or largest.num_reg_images() < MIN_PICTURES:
        return {}
    return {
        id_ - 1: invert(np.vstack([_motion(largest, id_), [0.0, 0.0, 0.0, 1.0]]))
        for id_ in sorted(largest.reg_image_ids())
    }


def _motion(model: object, id_: int) -> Float64:
    return np.asarray(model.image(id_).cam_from_world().matrix(), np.float64)  # type: ignore[attr-defined]
