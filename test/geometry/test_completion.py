"""Completed depth keeps to the surfaces of the image, is nearer to the truth than what went in, and
says where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest

from flow3r_ros.geometry.completion import FLOOR, fill_depth, fill_every_second, guided

HEIGHT, WIDTH = 84, 112


def two_surfaces() -> tuple[np.ndarray, np.ndarray]:
    """True inverse depth, and a picture whose only edge is where depth jumps."""
    left = np.arange(WIDTH)[None, :].repeat(HEIGHT, 0) < 50
    truth = np.where(left, 1.0, 0.4) + 0.001 * np.arange(HEIGHT)[:, None]
    rng = np.random.default_rng(0)
    gray = np.where(left, 90, 150) + rng.normal(0, 1.5, truth.shape)
    return truth.astype(np.float32), gray.astype(np.uint8)


def noisy(
    truth: np.ndarray, share: float, relative: float, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    known = rng.random(truth.shape) < share
    value = truth * (1 + relative * rng.normal(size=truth.shape))
    inverse = np.where(known, value, np.nan).astype(np.float32)
    return inverse, np.where(known, relative * truth, np.inf).astype(np.float32)


def test_noise_falls_and_holes_close_without_crossing_the_edge() -> None:
    truth, gray = two_surfaces()
    inverse, sigma = noisy(truth, 0.3, 0.1)
    completed, error = fill_depth(inverse, sigma, gray)
    assert np.isfinite(completed).all()
    relative = np.abs(completed / truth - 1)
    before = np.abs(inverse / truth - 1)
    assert np.median(relative) < 0.5 * np.nanmedian(before)
    beside = relative[:, 47:53]
    assert np.median(beside) < 0.06, "a window across the edge would be off by up to 60 %"
    assert (relative < 3 * error / completed).mean() > 0.9, "its sigma covers its error"


def test_a_guess_is_less_sure_than_what_is_known_and_the_less_the_farther_it_is() -> None:
    truth, gray = two_surfaces()
    inverse, sigma = noisy(truth, 1.0, 0.03)
    inverse[:, :20], sigma[:, :20] = np.nan, np.inf
    completed, error = fill_depth(inverse, sigma, gray)
    relative = error / completed
    np.testing.assert_allclose(relative[:, 20:], 0.03, atol=0.01)
    assert (relative[:, 19] > 0.1).all()
    assert (relative[:, 5] > relative[:, 18]).all()


def test_sure_pixels_hardly_move() -> None:
    truth, gray = two_surfaces()
    inverse, sigma = noisy(truth, 0.5, 0.2)
    inverse[10:20, 10:20], sigma[10:20, 10:20] = 2.0, 2.0 * 0.001
    completed, _ = fill_depth(inverse, sigma, gray)
    assert np.abs(completed[12:18, 12:18] / 2.0 - 1).max() < 0.02


def test_nothing_known_stays_unknown() -> None:
    truth, gray = two_surfaces()
    nothing = np.full_like(truth, np.nan)
    completed, error = fill_depth(nothing, np.full_like(truth, np.inf), gray)
    assert np.isnan(completed).all()
    assert np.isinf(error).all()
    inverse, sigma = noisy(truth, 1.0, 0.05)
    inverse[:, 20:], sigma[:, 20:] = np.nan, np.inf
    completed, error = fill_depth(inverse, sigma, gray)
    assert np.isnan(completed[:, -16:]).all(), "farther than the largest windows reach"
    assert np.isfinite(completed[:, :24]).all()


def test_moving_pixels_neither_give_nor_take() -> None:
    truth, gray = two_surfaces()
    inverse, sigma = noisy(truth, 1.0, 0.05)
    leave = np.zeros(truth.shape, bool)
    leave[30:50, 60:80] = True
    inverse[leave], sigma[leave] = 5.0, 0.01
    completed, error = fill_depth(inverse, sigma, gray, leave)
    assert (completed[leave] == 5.0).all()
    assert (error[leave] == np.float32(0.01)).all()
    around = np.zeros_like(leave)
    around[26:54, 56:84] = True
    assert np.abs(completed / truth - 1)[around & ~leave].max() < 0.2


def test_a_constant_is_kept_and_a_colour_image_is_understood() -> None:
    _, gray = two_surfaces()
    inverse = np.full(gray.shape, 0.5, np.float32)
    completed, _ = fill_depth(inverse, 0.1 * inverse, np.dstack([gray] * 3))
    np.testing.assert_allclose(completed, 0.5, rtol=1e-3)


def test_the_filter_equals_the_slow_weighted_fit() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(15, 17)).astype(np.float32)
    guide = (128 + 40 * rng.normal(size=(15, 17))).astype(np.float32)
    weight = rng.random((15, 17)).astype(np.float32)
    said, _ = guided(values, weight, guide, 1, 1)

    def line(row: int, column: int) -> tuple[float, float, float]:
        window = (slice(row - 1, row + 2), slice(column - 1, column + 2))
        w, x, y = (a[window].astype(np.float64).ravel() for a in (weight, guide - 128, values))
        mx, my = w @ x / w.sum(), w @ y / w.sum()
        xx, xy = w @ (x - mx) ** 2 / w.sum(), w @ ((x - mx) * (y - my)) / w.sum()
        a = xy / (xx + 64.0)
        scatter = w @ (y - my - a * (x - mx)) ** 2 / w.sum()
        trust = w.mean() / (scatter + FLOOR**2) if w.sum() >= 4.0 else 0.0
        return a, my - a * mx, trust

    for row, column in ((5, 6), (8, 9), (7, 3)):
        lines = [line(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        total = sum(trust for *_, trust in lines)
        expected = sum(t * (a * (guide[row, column] - 128) + b) for a, b, t in lines) / total
        assert said[row, column] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_every_second_pixel_is_enough_where_the_picture_shows_the_edge() -> None:
    truth, gray = two_surfaces()
    inverse, sigma = noisy(truth, 0.5, 0.1)
    half = fill_every_second(inverse[::2, ::2], sigma[::2, ::2], gray[::2, ::2])
    log = half.finer(half.log, gray)
    np.testing.assert_allclose(log[::2, ::2], half.log, atol=1e-4)
    off = np.abs(np.exp(-log) / truth - 1)
    whole, _ = fill_depth(inverse, sigma, gray)
    known = np.isfinite(inverse)
    assert np.median(off[~known]) < 1.5 * np.median(np.abs(whole / truth - 1)[~known])
    assert np.median(off[:, 49:51]) < 0.15, "linearly between, half of the jump would stand here"


def test_what_is_left_alone_stays_as_it_came_in_every_second_pixel_too() -> None:
    truth, gray = two_surfaces()
    inverse, sigma = (each[::2, ::2] for each in noisy(truth, 1.0, 0.05))
    leave = np.zeros(inverse.shape, np.bool_)
    leave[5:15, 5:15] = True
    inverse[8:10, 8:10] = np.nan
    half = fill_every_second(inverse, sigma, gray[::2, ::2], leave)
    np.testing.assert_allclose(half.log[5:15, 5:15], -np.log(inverse[5:15, 5:15]), rtol=1e-5)
    np.testing.assert_allclose(half.relative[5:8, 5:15], (sigma / inverse)[5:8, 5:15], rtol=1e-5)
