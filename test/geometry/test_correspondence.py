from itertools import pairwise

import cv2
import numpy as np
import pytest

from flow3r_ros.geometry import lie
from flow3r_ros.geometry.correspondence import Matcher, along, chain, matching_size, prepare_gray
from flow3r_ros.geometry.flow import geometric_flow
from test.geometry.views import CAMERA, render

MOTION = lie.se3_exp([0.15, -0.05, 0.2, 0.01, -0.04, 0.02])


def end_point_error(found, T, a, b):
    truth, covisible = geometric_flow(a.depth, T, CAMERA, CAMERA, b.depth)
    mask = covisible & (found.covisibility > 0.5)
    return np.linalg.norm(found.flow - truth, axis=-1)[mask], mask.sum() / covisible.sum()


def test_dense_flow_finds_what_geometry_says():
    a, b = render(np.eye(4), noise=2, seed=1), render(MOTION, noise=2, seed=2)
    found = Matcher().flow(a.gray, b.gray)
    error, share = end_point_error(found, MOTION, a, b)
    assert np.median(error) < 0.25
    assert np.mean(error < 1.0) > 0.9
    assert share > 0.85
    assert found.reason == ""


def test_what_b_cannot_see_is_not_covisible():
    T = lie.rigid(np.eye(3), [0.6, 0, 0])
    a, b = render(np.eye(4)), render(T)
    found = Matcher().flow(a.gray, b.gray)
    _, covisible = geometric_flow(a.depth, T, CAMERA, CAMERA, b.depth)
    assert found.covisibility[~covisible].mean() < 0.5 * found.covisibility[covisible].mean()
    assert found.covisibility[:, :15].mean() < 0.2


def test_two_threads_and_repetition_change_nothing():
    a, b = render(np.eye(4)), render(MOTION)
    results = [Matcher(threads=threads).flow(a.gray, b.gray) for threads in (1, 2, 1)]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].flow, other.flow)
        np.testing.assert_array_equal(results[0].backward_covisibility, other.backward_covisibility)


def test_reversed_is_the_other_direction():
    a, b = render(np.eye(4)), render(MOTION)
    found = Matcher().flow(a.gray, b.gray)
    error, _ = end_point_error(found.reversed(), lie.invert(MOTION), b, a)
    assert np.median(error) < 0.25
    assert found.reversed().reversed() == found


def test_a_few_points_lead_over_a_turn_that_dense_flow_cannot_follow():
    T = lie.se3_exp([0.5, 0.0, 0.3, 0.0, 0.0, 0.9])
    a, b = render(np.eye(4)), render(T)
    truth, covisible = geometric_flow(a.depth, T, CAMERA, CAMERA, b.depth)
    rows, columns = (each[::400] for each in np.nonzero(covisible))
    points = np.stack([columns, rows], axis=1).astype(np.float32)
    matches = np.hstack([points, points + truth[rows, columns]])
    height, width = a.gray.shape
    matcher = Matcher(sparse_fallback=False)
    found = matcher.flow(a.gray, b.gray, along(matches, width, height))
    error, share = end_point_error(found, T, a, b)
    assert np.median(error) < 0.5
    assert share > 2 * matcher.flow(a.gray, b.gray).share


def test_features_rescue_a_turn_that_dense_flow_cannot_follow():
    T = lie.se3_exp([0.5, 0.0, 0.3, 0.0, 0.0, 0.9])
    a, b = render(np.eye(4)), render(T)
    without = Matcher(sparse_fallback=False).flow(a.gray, b.gray)
    found = Matcher().flow(a.gray, b.gray)
    assert without.reason == "too_large_motion"
    assert found.share > 2 * without.share
    error, _ = end_point_error(found, T, a, b)
    assert np.median(error) < 0.5


def test_chained_flow_bridges_a_gap_and_starts_the_search():
    steps = [lie.se3_exp(np.array([0.25, 0.0, 0.1, 0.0, 0.02, 0.12]) * k) for k in range(5)]
    views = [render(T) for T in steps]
    matcher = Matcher(sparse_fallback=False)
    chained = matcher.flow(views[0].gray, views[1].gray)
    for left, right in pairwise(views[1:]):
        chained = chain(chained, matcher.flow(left.gray, right.gray))
    found = matcher.flow(views[0].gray, views[4].gray, initial=chained)
    error, share = end_point_error(found, steps[4], views[0], views[4])
    assert np.median(error) < 0.5
    assert share > 0.5
    assert found.share > 1.5 * matcher.flow(views[0].gray, views[4].gray).share


@pytest.mark.parametrize(("gray", "reason"), [(np.full((252, 336), 128, np.uint8), "textureless")])
def test_weak_images_say_why(gray, reason):
    found = Matcher().flow(gray, gray)
    assert found.reason == reason
    assert (found.covisibility * found.texture).mean() < 0.05


def test_noise_is_not_texture():
    rng = np.random.default_rng(0)
    a, b = (np.clip(rng.normal(128, 2, (252, 336)), 0, 255).astype(np.uint8) for _ in range(2))
    assert Matcher().flow(a, b).reason == "textureless"


def test_blur_is_said():
    view = render(np.eye(4)).gray
    smooth = cv2.GaussianBlur(view, (0, 0), 6)
    assert Matcher().flow(smooth, smooth).reason == "blur"


def test_sizes_keep_aspect_and_pixel_count():
    assert matching_size(640, 480, 336) == (336, 252)
    for width, height in ((1241, 376), (540, 960), (752, 480)):
        w, h = matching_size(width, height, 336)
        assert w / h == pytest.approx(width / height, rel=0.01)
        assert w * h == pytest.approx(336 * 252, rel=0.02)
    assert matching_size(160, 120, 336) == (160, 120)
    assert prepare_gray(np.zeros((480, 640, 3), np.uint8)).shape == (252, 336)


def test_images_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        Matcher().flow(np.zeros((100, 120), np.uint8), np.zeros((120, 100), np.uint8))
