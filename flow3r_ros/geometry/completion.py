"""Depth smoothed and completed along the surfaces that the image shows, edges kept.

A guided filter (He et al. 2010) on log depth in which every pixel counts by its certainty: in each
window log depth is a line in the guide's grey value, fitted by weighted least squares, and every
pixel takes the mean of the lines of the windows it lies in. Windows that hold too little known
depth leave their pixels to larger ones; where even the largest know nothing, depth stays unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.types import Bool, Float32, UInt8

WINDOWS = ((2, 2), (4, 3), (8, 4))
"""(reduction, half side in reduced pixels) of the windows, from fine to coarse: 10, 28 and 72
pixels of a 336-pixel image. Lines are fitted on reduced sums and read at full size (He and Sun
2015)"""
EDGE = 8.0
"""grey levels; a smaller step of the guide is no edge (the square is the filter's epsilon)"""
FLOOR = 0.02
"""relative sigma below which a depth counts no more than at it"""
GUESSED, UNSURE, PER_PIXEL = 0.1, 2.3, 0.02
"""relative sigma of a depth that only its surroundings tell: at least, times the scatter of what
they say, and more for each pixel to the next known one (of a 336-pixel image); the first two
fitted by maximum likelihood of "within 10 %" on six held-out factory clips, through the engine at
every fourth frame, the last chosen on those (.007 to .04): at .02 what is still published (`depth
.min_confidence`) is wrong by .19 instead of .20, over .81 instead of .84 of the picture"""
SUPPORT = 4.0
"""pixels of certainty 1 (relative sigma at `FLOOR`) that a window must hold to be believed"""
REACHED = 1e-9
"""trust above which a line is one"""


def fill_depth(
    inverse: Float32, sigma: Float32, guide: UInt8, leave: Bool | None = None
) -> tuple[Float32, Float32]:
    """Inverse depth and its 1-sigma, smoothed and completed; float32 `[h, w]` each.

    Args:
        inverse: inverse depth `[h, w]`, NaN or not positive = unknown.
        sigma: its 1-sigma `[h, w]`, not finite = unknown.
        guide: the image, uint8 `[h, w]` or `[h, w, 3]`.
        leave: pixels that neither give nor take (things that move), bool `[h, w]`; they return as
            they came.

    A known pixel is averaged with what its surroundings say, both by their sigmas, and keeps its
    own sigma: neighbours share their errors. An unknown one is what they say, the less surely the
    farther they are. NaN and inf where nothing is known within the largest window.
    """
    colour = guide.ndim == 3
    gray = np.asarray(cv2.cvtColor(guide, cv2.COLOR_RGB2GRAY), np.uint8) if colour else guide
    log, relative, _ = _completed(inverse, sigma, gray, leave, sampled=1)
    result = np.exp(-log)
    error = np.where(np.isfinite(log), result * relative, np.float32(np.inf))
    if leave is not None:
        result, error = np.where(leave, inverse, result), np.where(leave, sigma, error)
    return result.astype(np.float32, copy=False), error.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Completed:
    """Depth of every second pixel of an image, completed as by `fill_depth`: `log` of the depth
    (NaN: unknown) and its `relative` sigma, `[h, w]`; `finer` gives that of every pixel, along the
    `lines` `[h, w, 4]` (`_lines`) that surfaces follow."""

    log: Float32
    relative: Float32
    lines: Float32

    def finer(self, log: Float32, guide: UInt8) -> Float32:
        """Log depth `[H, W]` of all pixels of the `guide`, gray `[H, W]`, from that of every second
        one, `log` `[h, w]`: between those it follows the surfaces that the guide shows."""
        total, slope, offset, _ = cv2.split(between(self.lines, guide.shape))
        norm = 1 / np.maximum(total, np.float32(1e-12))
        grey = guide.astype(np.float32) - np.float32(128)
        said = np.asarray((slope * grey + offset) * norm, np.float32)
        return np.asarray(said + between(log - said[::2, ::2], guide.shape), np.float32)


def fill_every_second(
    inverse: Float32, sigma: Float32, guide: UInt8, leave: Bool | None = None
) -> Completed:
    """As `fill_depth`, of every second pixel alone: `guide` and `leave`, too, are `[h, w]`."""
    log, relative, lines = _completed(inverse, sigma, guide, leave, sampled=2)
    if leave is not None:
        known = np.isfinite(inverse) & np.isfinite(sigma) & (inverse > 0)
        own = leave & known
        log = np.where(leave, np.float32(np.nan), log)
        log[own], relative[own] = -np.log(inverse[own]), sigma[own] / inverse[own]
    return Completed(log, relative, lines)


def between(maps: Float32, shape: tuple[int, ...]) -> Float32:
    """Maps `[h, w(, C)]` of every second pixel, read at all pixels of `shape` (H, W): linearly
    between, NaN beside what is not known."""
    take = np.array([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (shape[1], shape[0])
    read = cv2.warpAffine(maps, take, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(read, np.float32)


def _completed(
    inverse: Float32, sigma: Float32, gray: UInt8, leave: Bool | None, sampled: int
) -> tuple[Float32, Float32, Float32]:
    """Log depth (NaN unknown) and its relative sigma `[h, w]` of every `sampled`-th pixel, and the
    finest lines."""
    known = np.isfinite(inverse) & np.isfinite(sigma) & (inverse > 0)
    if leave is not None:
        known &= ~leave
    safe = np.where(known, inverse, np.float32(1))
    log = -np.log(safe)
    own = np.where(known, sigma, np.float32(1)) / safe
    weight = np.where(known, 1 / np.maximum(own, np.float32(FLOOR)) ** 2, np.float32(0))
    guide = gray.astype(np.float32)
    lines = _around(log, weight * np.float32(FLOOR**2), guide, sampled)
    smooth, spread = _read(lines, guide)
    theirs = 1 / (spread * spread)
    total = weight + theirs
    reached = total > 0
    mean = (log * weight + smooth * theirs) / np.where(reached, total, np.float32(1))
    relative = np.where(known, own, _of_guesses(known, spread, sampled))
    return np.where(reached, mean, np.float32(np.nan)), relative, lines


def _of_guesses(known: Bool, spread: Float32, sampled: int) -> Float32:
    """Relative sigma of depths guessed from surroundings that scatter by `spread`, `[h, w]`."""
    if known.all() or not known.any():
        return spread
    away = cv2.distanceTransform((~known).view(np.uint8), cv2.DIST_L2, 3)
    variance = np.float32(GUESSED**2) + np.float32(UNSURE**2) * spread * spread
    per_step = np.float32((sampled * PER_PIXEL) ** 2)
    return np.asarray(np.sqrt(variance + per_step * away * away), np.float32)


def _around(log: Float32, weight: Float32, gray: Float32, sampled: int) -> Float32:
    """The lines of the windows around each pixel (`_lines`), from the finest windows that know
    enough; the maps are of every `sampled`-th pixel."""
    reduced = WINDOWS[0][0]
    moments = _moments(log, weight, gray, reduced // sampled)
    lines: Float32 | None = None
    for reduction, radius in WINDOWS:
        moments, reduced = _reduced(moments, reduction / reduced), reduction
        found = _lines(moments, reduction, radius)
        if lines is None:
            lines = found
        else:
            found = _enlarged(found, lines.shape[:2])
            np.copyto(lines, found, where=lines[..., :1] <= REACHED)
        if lines[..., 0].min() > REACHED:
            break
    assert lines is not None
    return lines


def guided(
    values: Float32, weight: Float32, guide: Float32, reduction: int, radius: int
) -> tuple[Float32, Float32]:
    """The weighted guided filter of `values [h, w]` (anything where `weight` is 0) with windows of
    `2 radius + 1` pixels of the `reduction` times smaller image, and the 1-sigma of its answer: the
    weighted scatter about the lines.

    Sigma is inf where no window of a pixel holds `SUPPORT` weight.
    """
    return _read(_lines(_moments(values, weight, guide, reduction), reduction, radius), guide)


def _moments(
    values: Float32, weight: Float32, guide: Float32, reduction: int
) -> tuple[Float32, Float32]:
    """(w, wx, wy) and (wxx, wxy, wyy) of the reduced image, x the guide about 128 and y the values,
    `[h, w, 3]` each; a reduced pixel has one x."""
    wy = weight * values
    maps: cv2.typing.MatLike = _stacked(weight, weight * (guide - np.float32(128)), wy, wy * values)
    height, width = values.shape
    if reduction > 1:
        small = (-(-width // reduction), -(-height // reduction))
        maps = cv2.resize(maps, small, interpolation=cv2.INTER_AREA)
    weight, wx, wy, wyy = (np.asarray(part, np.float32) for part in cv2.split(maps))
    x = wx / np.maximum(weight, np.float32(1e-12))
    return _stacked(weight, wx, wy), _stacked(wx * x, wy * x, wyy)


def _stacked(*maps: NDArray[np.floating[Any]]) -> Float32:
    return np.asarray(cv2.merge(list(maps)), np.float32)


def _reduced(moments: tuple[Float32, Float32], times: float) -> tuple[Float32, Float32]:
    height, width = moments[0].shape[:2]
    small = (int(np.ceil(width / times)), int(np.ceil(height / times)))
    if small == (width, height):
        return moments
    first, second = (cv2.resize(maps, small, interpolation=cv2.INTER_AREA) for maps in moments)
    return np.asarray(first, np.float32), np.asarray(second, np.float32)


def _lines(moments: tuple[Float32, Float32], reduction: int, radius: int) -> Float32:
    """The lines through the windows that a reduced pixel lies in, summed by trust: trust, and trust
    times slope, value at grey 128 and scatter, `[h, w, 4]`."""
    window = (2 * radius + 1, 2 * radius + 1)

    def mean(maps: Float32) -> Float32:
        blurred = cv2.blur(maps, window, borderType=cv2.BORDER_REFLECT_101)
        return np.asarray(blurred, np.float32)

    support, x, y = cv2.split(mean(moments[0]))
    xx, xy, yy = cv2.split(mean(moments[1]))
    norm = 1 / np.maximum(support, np.float32(1e-12))
    x, y = x * norm, y * norm
    xx = np.maximum(xx * norm - x * x, 0)
    xy, yy = xy * norm - x * y, yy * norm - y * y
    slope = xy / (xx + np.float32(EDGE**2))
    scatter = np.maximum(yy - 2 * slope * xy + slope * slope * xx, 0)
    enough = support * (window[0] * reduction) ** 2 >= SUPPORT
    trust = np.where(enough, support / (scatter + np.float32(FLOOR**2)), np.float32(0))
    return mean(_stacked(trust, trust * slope, trust * (y - slope * x), trust * scatter))


def _read(lines: Float32, guide: Float32) -> tuple[Float32, Float32]:
    """The value of each pixel of the guide on its line, and the 1-sigma; inf without a line."""
    same = lines.shape[:2] == guide.shape
    total, slope, offset, scatter = cv2.split(lines if same else _enlarged(lines, guide.shape))
    norm = 1 / np.maximum(total, np.float32(1e-12))
    said = (slope * (guide - np.float32(128)) + offset) * norm
    sigma = np.sqrt(scatter * norm + np.float32(FLOOR**2))
    sigma[total <= REACHED] = np.inf
    return np.asarray(said, np.float32), np.asarray(sigma, np.float32)


def _enlarged(maps: Float32, shape: tuple[int, ...]) -> Float32:
    return np.asarray(
        cv2.resize(maps, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32
    )
