"""Windows of a clip in the layout of `../shared/video` that has true poses and depth, as labelled
samples: real pictures to judge a network on, and to fit its confidence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import TrainingError
from flow3r_ros.evaluation.clip_depth import FAR_M, NEAR_M, true_depth, true_poses
from flow3r_ros.geometry.camera_file import load_camera
from flow3r_ros.training.augmentation import Example, fitting_window, to_sample
from flow3r_ros.training.dataset import window_evidence
from flow3r_ros.training.labels.clips import Clip
from flow3r_ros.training.sample import Sample

MATCH_NS = 1_000_000
"""largest stamp difference of a picture and its true pose"""


def posed_windows(
    clip: Path, grid: tuple[int, int], length: int = 4, first: int = 0, last: int | None = None
) -> Iterator[list[Sample]]:
    """Windows of `length` neighbouring frames that have a true depth, one after the other, each a
    batch of one, with evidence from the pictures alone.

    Args:
        clip: its folder.
        grid: (w, h) of the network's input.
        first, last: frames of the clip that are looked at: from `first` up to before `last`.

    Raises:
        TrainingError: the clip has no depth, no poses or no calibration.
    """
    known = clip / "camera.json"
    camera = load_camera(known) if known.exists() else None
    truths = None if camera is None else true_depth(clip, camera)
    truth = true_poses(clip)
    if camera is None or truths is None or truth is None:
        raise TrainingError(
            f"{clip}: no camera.json, groundtruth.tum or depth.txt", "give a clip that has all"
        )
    if camera.distortion_model != "none":
        raise TrainingError(f"{clip}: its lens bends lines", "give a rectified clip")
    with open_source(clip) as source:
        evidence, kept = window_evidence(), []
        for frame in source:
            if frame.id < first or frame.id not in truths or (last and frame.id >= last):
                continue
            place = int(np.abs(truth.stamps_ns - frame.stamp_ns).argmin())
            if abs(int(truth.stamps_ns[place]) - frame.stamp_ns) > MATCH_NS:
                continue
            depth = truths[frame.id]()
            seen = np.where((depth >= NEAR_M) & (depth <= FAR_M), depth, np.float32(np.nan))
            kept.append((frame.rgb, seen, truth.poses[place], frame.stamp_ns))
            if len(kept) == length:
                rgb, depths, poses, stamps = (np.stack(part) for part in zip(*kept, strict=True))
                kept = []
                window = Clip(clip.name, clip.name, rgb, stamps, camera, depths, poses)
                whole = fitting_window(camera.width, camera.height, grid, 1.0, 0.5, 0.5)
                yield [to_sample(Example(window, (), ()), whole, grid, evidence)]
