"""Patches are found to a tenth of a pixel through turns and exposures, and not found where they are
not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from flow3r_ros.odometry.patches import (
    SATURATED,
    find_patches,
    follow_patches,
    like,
    plane_homography,
)
from test.odometry.plane import CAMERA, relative, seen_at

HOMOGRAPHY = np.array([[1.02, 0.03, 6.3], [-0.025, 0.99, -3.4], [1e-5, -2e-5, 1.0]])


def places(count: int = 8) -> np.ndarray:
    grid = np.meshgrid(np.linspace(40, 280, count), np.linspace(40, 200, count))
    return np.stack(grid, axis=-1).reshape(-1, 2).astype(np.float32)


def warped(gray: np.ndarray) -> np.ndarray:
    size = gray.shape[::-1]
    return cv2.warpPerspective(gray, HOMOGRAPHY, size, borderMode=cv2.BORDER_REPLICATE)


def moved(pixels: np.ndarray) -> np.ndarray:
    return cv2.perspectiveTransform(pixels[:, None].astype(np.float64), HOMOGRAPHY)[:, 0]


@pytest.mark.parametrize(("gain", "shift"), [(1.0, 0.0), (0.5, 10.0), (1.4, -30.0)])
def test_a_warp_is_found_to_sub_pixel_whatever_the_exposure(gain: float, shift: float) -> None:
    gray = seen_at(0).tracking
    target = cv2.convertScaleAbs(warped(gray), alpha=gain, beta=shift)
    pixels, truth = places(), moved(places())
    where, found = find_patches(
        gray, target, HOMOGRAPHY, pixels, (truth + 3.0).astype(np.float32), levels=1, back=True
    )
    assert found.mean() > 0.9
    assert np.median(np.linalg.norm(where - truth, axis=1)[found]) < 0.1


def test_what_leaves_the_picture_is_not_found() -> None:
    gray = seen_at(0).tracking
    pixels = np.array([[100, 100], [2, 2], [318, 120]], np.float32)
    _, found = find_patches(gray, gray, np.eye(3), pixels, pixels)
    assert found.tolist() == [True, False, False]
    shift = np.array([[1.0, 0, 300], [0, 1, 0], [0, 0, 1]])
    _, found = find_patches(gray, gray, shift, pixels[:1], pixels[:1] + np.float32([300, 0]))
    assert not found.any()


def test_another_picture_holds_few_of_the_patches() -> None:
    gray = seen_at(0).tracking
    other = np.ascontiguousarray(gray[::-1, ::-1])
    _, found = find_patches(gray, other, np.eye(3), places(), places(), levels=1, back=True)
    assert found.mean() < 0.3


def test_corners_are_followed_from_frame_to_frame() -> None:
    gray = seen_at(0).tracking
    where, found = follow_patches(gray, warped(gray), places())
    assert found.mean() > 0.9
    assert np.median(np.linalg.norm(where - moved(places()), axis=1)[found]) < 0.3


def test_corners_are_followed_through_another_exposure() -> None:
    before = seen_at(0).tracking
    after = cv2.convertScaleAbs(seen_at(1).tracking, alpha=1.7, beta=-20)
    dull, found_dull = follow_patches(before, seen_at(1).tracking, places())
    bright, found = follow_patches(before, after, places())
    assert found.all()
    assert found_dull.all()
    assert np.median(np.linalg.norm(bright - dull, axis=1)) < 0.5


def test_the_homography_of_a_facing_plane_moves_its_points() -> None:
    T = relative(0, 8)
    H = plane_homography(T, 0.5, CAMERA)
    ray = np.array([0.1, -0.2, 1.0])
    there = np.linalg.inv(T) @ np.append(2.0 * ray, 1.0)
    a, b = CAMERA.matrix @ ray, CAMERA.matrix @ there[:3]
    through = H @ a
    np.testing.assert_allclose(through[:2] / through[2], b[:2] / b[2], atol=1e-6)


def test_a_template_takes_the_exposure_of_the_picture() -> None:
    gray = seen_at(0).tracking
    dark = cv2.convertScaleAbs(gray, alpha=0.5)
    assert abs(like(gray, dark).mean() - dark.mean()) < 1.0
    assert like(gray, gray) is gray


def test_a_template_takes_on_the_tones_of_a_picture_that_saturates() -> None:
    seen = seen_at(3).tracking
    brighter = cv2.convertScaleAbs(seen, alpha=2.5)
    assert np.mean(brighter == 255) > np.mean(seen == 255) + SATURATED
    error = np.abs(like(seen, brighter).astype(int) - brighter)
    assert np.percentile(error, 95) <= 3
