"""Flow, depth, poses and intrinsics tell the same story after every augmentation."""

from __future__ import annotations

import numpy as np
import pytest

from flow3r_ros.geometry.flow import geometric_flow
from flow3r_ros.geometry.lie import invert
from flow3r_ros.training.augmentation import Example, fitting_window, mirror, reverse, to_sample
from flow3r_ros.training.labels.teachers import GeometricTeacher
from flow3r_ros.training.sample import Sample
from test.training.clip_factory import clip_of, scene

PAIRS = ((0, 1), (2, 0))


def example() -> Example:
    clip = clip_of(scene(seed=3, frames=3, width=336, height=252))
    return Example(clip, PAIRS, tuple(GeometricTeacher().flow(clip, i, j) for i, j in PAIRS))


def disagreement(sample: Sample) -> float:
    """90th percentile, over covisible pixels, between the stored flow and flow from the sample's
    own depth, poses and camera (px)."""
    assert sample.depth is not None
    assert sample.poses is not None
    wrong = []
    for (i, j), flow, seen in zip(sample.pairs, sample.flow, sample.covisibility, strict=True):
        T_i_j = invert(sample.poses[i]) @ sample.poses[j]
        truth, covisible = geometric_flow(sample.depth[i], T_i_j, sample.camera, sample.camera)
        used = covisible & (seen > 0.9)
        assert used.mean() > 0.3
        wrong.append(np.linalg.norm(flow - truth, axis=-1)[used])
    return float(np.percentile(np.concatenate(wrong), 90))


@pytest.mark.parametrize(
    "change",
    [lambda e: e, mirror, reverse, lambda e: mirror(reverse(e))],
    ids=["none", "mirror", "reverse", "both"],
)
@pytest.mark.parametrize("zoom", [1.0, 1.4])
def test_flow_follows_geometry_through_augmentation(change, zoom) -> None:
    changed = change(example())
    window = fitting_window(336, 252, (140, 112), zoom, 0.2, 0.8)
    sample = to_sample(changed, window, (140, 112))
    assert np.linalg.norm(sample.flow, axis=-1).mean() > 1.0
    assert disagreement(sample) < 0.15


def test_the_check_above_can_fail() -> None:
    wrong = mirror(example())
    wrong = Example(wrong.clip, wrong.pairs, example().labels)
    assert (
        disagreement(
            to_sample(wrong, fitting_window(336, 252, (140, 112), 1.0, 0.5, 0.5), (140, 112))
        )
        > 1.0
    )


def test_a_target_outside_the_crop_is_not_covisible() -> None:
    sample = to_sample(example(), fitting_window(336, 252, (140, 112), 2.0, 0.0, 0.0), (140, 112))
    columns, rows = np.meshgrid(np.arange(140), np.arange(112))
    target = np.stack([columns, rows], -1) + sample.flow[0]
    outside = (target < -0.01).any(-1) | (target[..., 0] > 139.01) | (target[..., 1] > 111.01)
    assert outside.any()
    assert sample.covisibility[0][outside].max() == 0


def test_the_window_keeps_the_aspect_ratio() -> None:
    window = fitting_window(640, 360, (140, 112), 1.0, 0.5, 0.5)
    assert window.height == 360
    assert window.width / window.height == pytest.approx(140 / 112, rel=0.01)
