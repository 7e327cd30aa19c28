from itertools import pairwise

import numpy as np
import pytest

from flow3r_ros.geometry import lie
from flow3r_ros.geometry.camera import rays, scaled
from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.evidence import (
    CHANNELS,
    build_evidence,
    chain_two_view,
    evidence_from_images,
)
from test.geometry.views import CAMERA, exact_correspondence, render, rotation_error_deg

GRID = (224, 168)
POSES = np.stack(
    [lie.se3_exp(np.array([0.08, -0.02, 0.12, 0.01, 0.02, -0.01]) * k) for k in range(4)]
)


@pytest.fixture(scope="module")
def exact():
    steps = [exact_correspondence(lie.invert(a) @ b, a)[0] for a, b in pairwise(POSES)]
    return [render(T) for T in POSES], steps


def build(views, steps, poses=POSES, unit=1.0, depths=True):
    inverses = [1.0 / (view.depth * np.float32(unit)) for view in views]
    maps = [DepthMap(rho, np.float32(1e-3) * rho) if depths else None for rho in inverses]
    moved = poses.copy()
    moved[:, :3, 3] *= unit
    return build_evidence(
        CAMERA, moved, maps, [None, *[s.reversed() for s in steps]], [*steps, None], GRID
    )


def test_layout(exact):
    views, steps = exact
    evidence = build(views, steps)
    assert evidence.planes.shape == (4, CHANNELS, 84, 112)
    assert evidence.planes.dtype == np.float32
    np.testing.assert_allclose(
        evidence.planes[2, :2].transpose(1, 2, 0), rays(scaled(CAMERA, 112, 84)), atol=1e-6
    )
    assert not evidence.planes[0, 4:7].any()
    assert not evidence.planes[3, 7:10].any()
    np.testing.assert_allclose(evidence.poses[0], np.eye(4), atol=1e-12)
    typical = np.median(np.concatenate([view.depth.ravel() for view in views]))
    assert evidence.scale == pytest.approx(typical, rel=0.05)
    log_depth = np.log(views[1].depth[1::3, 1::3] / evidence.scale)
    assert np.median(np.abs(evidence.planes[1, 2] - log_depth)) < 0.01
    middle = steps[0].flow[1::3, 1::3, 0] / CAMERA.fx
    assert np.median(np.abs(evidence.planes[0, 7] - middle)) < 0.002


def test_the_unit_of_odometry_does_not_matter(exact):
    small, large = build(*exact), build(*exact, unit=7.0)
    np.testing.assert_allclose(small.planes, large.planes, atol=1e-5)
    np.testing.assert_allclose(small.poses, large.poses, atol=1e-6)
    assert large.scale == pytest.approx(7 * small.scale, rel=1e-5)


def test_without_depth_the_scale_is_one(exact):
    evidence = build(*exact, depths=False)
    assert evidence.scale == 1.0
    assert not evidence.planes[:, 2:4].any()
    np.testing.assert_allclose(evidence.poses, lie.invert(POSES[0]) @ POSES, atol=1e-12)


def test_unknown_pixels_do_not_pull_their_neighbours(exact):
    views, _ = exact
    depth = views[0].depth.copy()
    depth[::2] = np.nan
    maps = [DepthMap(1.0 / depth, np.float32(1e-3) / depth), None, None, None]
    evidence = build_evidence(CAMERA, POSES, maps, [None] * 4, [None] * 4, GRID)
    assert (
        np.median(
            np.abs(
                evidence.planes[0, 2] + np.log(evidence.scale) - np.log(views[0].depth[1::3, 1::3])
            )
        )
        < 0.02
    )
    assert 0.2 < evidence.planes[0, 3].mean() < 0.8


def test_lengths_must_fit():
    with pytest.raises(ValueError, match="do not fit"):
        build_evidence(CAMERA, POSES, [None], [None] * 4, [None] * 4, GRID)


def test_chained_pairs_share_one_scale(exact):
    _, steps = exact
    poses, depths = chain_two_view(steps, CAMERA)
    lengths = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    np.testing.assert_allclose(lengths / lengths[0], 1.0, atol=0.02)
    views, _ = exact
    ratio = depths[2].depth() / views[2].depth
    assert np.nanstd(np.log(ratio)) < 0.05


def test_images_alone_give_poses_and_depth():
    views = [render(T, noise=1.5, seed=i) for i, T in enumerate(POSES)]
    matcher = Matcher()
    evidence = evidence_from_images(
        [matcher.prepare(view.gray) for view in views], CAMERA, matcher, GRID
    )
    assert (
        max(
            rotation_error_deg(found, truth)
            for found, truth in zip(evidence.poses, POSES, strict=True)
        )
        < 0.5
    )
    shift = evidence.poses[3, :3, 3]
    assert shift @ POSES[3, :3, 3] / np.linalg.norm(shift) / np.linalg.norm(
        POSES[3, :3, 3]
    ) > np.cos(np.radians(6))
    known = evidence.planes[:, 3] > 0.3
    assert known.mean() > 0.4
    truth = np.stack([np.log(view.depth[1::3, 1::3]) for view in views])[known]
    error = evidence.planes[:, 2][known] - truth
    assert np.median(np.abs(error - np.median(error))) < 0.1


def test_a_still_window_gives_identity_and_no_depth():
    views = [render(np.eye(4), noise=2, seed=i).gray for i in range(3)]
    evidence = evidence_from_images(views, CAMERA, Matcher(), GRID)
    np.testing.assert_allclose(evidence.poses, np.repeat(np.eye(4)[None], 3, axis=0), atol=1e-12)
    assert not evidence.planes[:, 3].any()
    assert evidence.scale == 1.0
