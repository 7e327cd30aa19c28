"""The scene factory's ground truth is exact, and everything follows from the seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flow3r_ros.geometry.camera import rays as rays_of
from flow3r_ros.geometry.flow import geometric_flow, warp
from flow3r_ros.geometry.lie import invert
from flow3r_ros.training.scenes.photometry import Photometry, develop
from flow3r_ros.training.scenes.renderer import render_clip
from flow3r_ros.training.scenes.shadows import shadows
from flow3r_ros.training.scenes.shapes import Shape
from flow3r_ros.training.scenes.textures import texture_atlas


def test_equal_seeds_give_equal_clips_and_other_seeds_others():
    first, again, other = render_clip(5, 3), render_clip(5, 3), render_clip(6, 3)
    np.testing.assert_array_equal(first.rgb, again.rgb)
    np.testing.assert_array_equal(first.depth, again.depth)
    np.testing.assert_array_equal(first.poses, again.poses)
    assert first.camera == again.camera
    assert not np.array_equal(first.rgb, other.rgb)


@pytest.mark.parametrize("layout", ["room", "street", "clutter"])
def test_every_pixel_sees_something_at_finite_depth(layout):
    for seed in range(3):
        clip = render_clip(seed, 2, 112, 84, layout=layout)
        assert np.isfinite(clip.depth).all()
        assert clip.depth.min() > 0
        np.testing.assert_allclose(clip.poses[0], np.eye(4), atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_warping_by_the_flow_reproduces_the_source_on_covisible_pixels(seed):
    clip = render_clip(
        seed, 2, 224, 168, noise=0.0, movers=2, speed=0.05, turn=0.03, textures="photographs"
    )
    flow, covisible = clip.flow(0, 1)
    assert covisible.mean() > 0.5
    error = np.abs(warp(clip.rgb[1], flow).astype(float) - clip.rgb[0]).mean(axis=-1)[covisible]
    off_by_one = np.abs(warp(clip.rgb[1], flow + np.float32(1.0)).astype(float) - clip.rgb[0]).mean(
        axis=-1
    )[covisible]
    assert np.median(error) < 2.5
    assert error.mean() < 0.6 * off_by_one.mean()


def test_flow_of_static_scenes_is_depth_poses_and_intrinsics():
    clip = render_clip(2, 3, 112, 84, noise=0.0, movers=0)
    flow, covisible = clip.flow(0, 2)
    expected, _ = geometric_flow(
        clip.depth[0], invert(clip.poses[0]) @ clip.poses[2], clip.camera, clip.camera
    )
    np.testing.assert_allclose(flow[covisible], expected[covisible], atol=2e-2)


def test_moving_objects_leave_the_flow_of_the_camera():
    for seed in range(40):
        clip = render_clip(seed, 2, 112, 84, layout="clutter", movers=3, noise=0.0)
        if clip.moving[0].mean() > 0.03:
            break
    flow, covisible = clip.flow(0, 1)
    rigid, _ = geometric_flow(
        clip.depth[0], invert(clip.poses[0]) @ clip.poses[1], clip.camera, clip.camera
    )
    apart = np.linalg.norm(flow - rigid, axis=-1)
    assert np.median(apart[clip.moving[0] & covisible]) > 0.3
    assert np.median(apart[~clip.moving[0] & covisible]) < 1e-2


def test_hidden_pixels_are_not_covisible():
    clip = render_clip(
        9, 2, 112, 84, layout="clutter", motion="sideways", speed=0.25, movers=0, noise=0.0
    )
    flow, covisible = clip.flow(0, 1)
    target = np.stack(np.meshgrid(np.arange(112), np.arange(84)), axis=-1) + flow
    inside = (target >= 0).all(axis=-1) & (target[..., 0] <= 111) & (target[..., 1] <= 83)
    assert not covisible[~inside].any()
    assert (inside & ~covisible).any()


def test_resized_ground_truth_is_cast_anew():
    clip = render_clip(3, 2, 224, 168, noise=0.0, movers=0)
    small = clip.resized(112, 84)
    blocks = clip.depth.reshape(2, 84, 2, 112, 2).transpose(0, 1, 3, 2, 4).reshape(2, 84, 112, 4)
    smooth = np.ptp(blocks, axis=-1) < 0.05 * blocks.mean(axis=-1)
    relative = np.abs(small.depth / blocks.mean(axis=-1) - 1)[smooth]
    assert relative.max() < 0.03
    flow, _ = clip.flow(0, 1)
    small_flow, small_covisible = small.flow(0, 1)
    mean_flow = flow.reshape(84, 2, 112, 2, 2).mean(axis=(1, 3)) / 2
    assert np.median(np.abs(mean_flow - small_flow)[small_covisible & smooth[0]]) < 0.02


def test_held_out_textures_are_not_the_training_ones():
    train, held_out = texture_atlas("train"), texture_atlas("held_out")
    assert train.count > 40
    assert held_out.count > 20
    ours = render_clip(1, 1, 56, 42, noise=0.0).rgb
    theirs = render_clip(1, 1, 56, 42, noise=0.0, textures="held_out").rgb
    assert np.abs(ours.astype(float) - theirs).mean() > 5


def test_shadows_lie_on_the_side_away_from_the_lamp_and_only_take_light() -> None:
    plain = render_clip(8, 2, 112, 84, noise=0.0, layout="room")
    shaded = render_clip(8, 2, 112, 84, noise=0.0, layout="room", shadows=0.75)
    ratio = shaded.rgb.astype(float).sum(-1) / np.maximum(plain.rgb.astype(float).sum(-1), 1)
    assert (ratio < 1.001).all()
    assert (ratio < 0.5).any()
    assert 0.01 < (ratio < 0.95).mean() < 0.9
    np.testing.assert_array_equal(plain.depth, shaded.depth)


def test_a_box_between_lamp_and_wall_throws_a_shadow_on_the_wall_alone() -> None:
    clip = render_clip(8, 1, 112, 84, noise=0.0, layout="room")
    hidden = shadows(
        clip.scene, 0, clip.poses[0], clip.camera, clip.depth[0], np.random.default_rng(0)
    )
    assert hidden.shape == (84, 112)
    points = np.concatenate([rays_of(clip.camera), np.ones((84, 112, 1))], -1)
    points = points * clip.depth[0][..., None]
    dark, lit = hidden > 0.95, hidden < 0.05
    boxes = [k for k, shape in enumerate(clip.scene.shape) if shape == Shape.BOX]

    def blocked(point: np.ndarray) -> bool:
        """Slowly: does the straight way to the lamp pass through a box or ellipsoid?"""
        for share in np.linspace(0.02, 0.97, 200):
            place = clip.scene.light + share * (point - clip.scene.light)
            for k, half in enumerate(clip.scene.half):
                local = np.linalg.inv(clip.scene.poses[0, k]) @ np.append(place, 1)
                scaled = local[:3] / half
                inside = np.abs(scaled).max() < 1 if k in boxes else np.linalg.norm(scaled) < 1
                if inside and clip.scene.shape[k] != Shape.ROOM:
                    return True
        return False

    rng = np.random.default_rng(1)
    for mask, expected in ((dark, True), (lit, False)):
        chosen = rng.permutation(np.argwhere(mask))[:12]
        agree = [blocked(points[row, column]) == expected for row, column in chosen]
        assert np.mean(agree) > 0.8


def test_motion_blur_smears_along_one_direction() -> None:
    line = np.zeros((21, 21, 3), np.uint8)
    line[10, 10] = 255
    still = Photometry(np.ones((1, 3), np.float32), 1.0, 0.0, 0.0, 0.0, 0, np.zeros((1, 2)))
    moved = replace(still, smear=np.array([[6.0, 0.0]], np.float32))
    rng = np.random.default_rng(0)
    assert (develop(line, still, 0, rng)[..., 0] > 0).sum() == 1
    blurred = develop(line, moved, 0, rng)[..., 0]
    assert 5 <= (blurred[10] > 0).sum() <= 7
    assert not blurred[:10].any()
    assert not blurred[11:].any()
