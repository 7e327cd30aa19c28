"""Small patches of one picture found to sub-pixel in another: Lucas-Kanade (Bouguet 2001) from a
template that a homography has brought to the other camera's attitude and distance."""

from __future__ import annotations

import cv2
import numpy as np

from flow3r_ros.geometry.lie import invert
from flow3r_ros.types import Bool, Camera, Float32, Float64, UInt8

WINDOW = 15
"""pixels of a patch's side"""
MAX_ERROR = 18.0
"""gray levels by which a patch may differ from its template on average"""
MAX_RETURN_PX = 1.0
"""pixels from where it started that a patch may end when it is searched back"""
FOLLOW_WINDOW, FOLLOW_LEVELS = 21, 4
"""pixels of a patch's side and pyramid levels for following from frame to frame: a tenth of the
picture's width is bridged"""
WHITE, SATURATED = 250, 0.05
"""grey level from which on a pixel is taken for saturated, and the share of a picture by which more
are than of another one from which on tones are matched: gain and offset would be those of what is
left. Not without that: pictures of two places differ in their tones, too (visslam_handheld_desk:
5 % of clean frames refused instead of none)"""
_FOLLOW_TERM = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.05)
_TERM = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.02)


def plane_homography(T_a_b: Float64, inverse_depth: float, lens: Camera) -> Float64:
    """Homography `[3, 3]` from pixels of a to pixels of b, of a plane that faces a at the given
    inverse depth; `T_a_b` is the pose of b in a, both have the pinhole `lens`."""
    T = invert(T_a_b)
    normal = np.array([[0.0, 0.0, inverse_depth]])
    H = lens.matrix @ (T[:3, :3] + T[:3, 3:] @ normal) @ np.linalg.inv(lens.matrix)
    return np.asarray(H / H[2, 2])


def find_patches(
    source: UInt8,
    target: UInt8,
    homography: Float64,
    pixels: Float32,
    expected: Float32,
    levels: int = 1,
    back: bool = False,
) -> tuple[Float32, Bool]:
    """Where patches of `source` are in `target`, gray `[H, W]` each.

    Args:
        homography: from source to target, approximately.
        pixels: `[N, 2]` their centres in the source.
        expected: `[N, 2]` where the search starts in the target.
        levels: pyramid levels above the full picture; one bridges some 10 pixels, each further one
            twice as many.
        back: search back as well, and refuse what does not come home.

    Returns positions `[N, 2]` and whether each was found.
    """
    if not len(pixels):
        return np.empty((0, 2), np.float32), np.zeros(0, np.bool_)
    height, width = target.shape
    size = (width, height)
    homography = _tangent(homography, width / 2, height / 2)
    turned = cv2.warpAffine(source, homography[:2], size, borderMode=cv2.BORDER_REPLICATE)
    template = like(np.asarray(turned, np.uint8), target)
    there = cv2.perspectiveTransform(pixels[:, None].astype(np.float64), homography)
    start = np.ascontiguousarray(there[:, 0], np.float32)
    found_at, found = _search(template, target, start, expected, levels)
    edge = WINDOW / 2.0
    for place in (found_at, start):
        found &= ((place > edge) & (place < np.array(size) - edge)).all(axis=1)
    if back and found.any():
        home, returned = _search(target, template, found_at, start, levels)
        found &= returned & (np.linalg.norm(home - start, axis=1) < MAX_RETURN_PX)
    return found_at, found


def _tangent(homography: Float64, x: float, y: float) -> Float64:
    """The affine map `[3, 3]` that a homography is at a pixel."""
    u, v, w = homography @ np.array([x, y, 1.0])
    rows = (homography[:2, :2] - np.outer([u / w, v / w], homography[2, :2])) / w
    affine = np.eye(3)
    affine[:2, :2] = rows
    affine[:2, 2] = np.array([u / w, v / w]) - rows @ np.array([x, y])
    return affine


def follow_patches(
    before: UInt8, after: UInt8, pixels: Float32, expected: Float32 | None = None
) -> tuple[Float32, Bool]:
    """Where patches at `pixels` `[N, 2]` of one picture are in the next, coarse to fine from where
    they are `expected` `[N, 2]` (where they were, if nothing is), and whether each was found;
    another exposure is no hindrance."""
    start = np.array((pixels if expected is None else expected)[:, None], np.float32)
    moved, status, _ = cv2.calcOpticalFlowPyrLK(
        like(before, after), after, pixels[:, None], start, winSize=(FOLLOW_WINDOW, FOLLOW_WINDOW),
        maxLevel=FOLLOW_LEVELS, criteria=_FOLLOW_TERM, flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    return np.asarray(moved, np.float32)[:, 0], np.asarray(status)[:, 0] > 0


def _search(
    a: UInt8, b: UInt8, pixels: Float32, expected: Float32, levels: int
) -> tuple[Float32, Bool]:
    moved, status, error = cv2.calcOpticalFlowPyrLK(
        a, b, pixels[:, None], np.ascontiguousarray(expected[:, None], np.float32).copy(),
        winSize=(WINDOW, WINDOW), maxLevel=levels, criteria=_TERM,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    found = (np.asarray(status)[:, 0] > 0) & (np.asarray(error)[:, 0] < MAX_ERROR)
    return np.asarray(moved, np.float32)[:, 0], found


def _tones(ours: UInt8, theirs: UInt8) -> UInt8:
    """Grey level `[256]` of another picture that as many of its pixels are below as of ours."""
    below = [
        np.cumsum(np.bincount(each.ravel(), minlength=256)) / each.size for each in (ours, theirs)
    ]
    return np.searchsorted(below[1], below[0] - 1e-9).clip(0, 255).astype(np.uint8)


def like(template: UInt8, picture: UInt8) -> UInt8:
    """The template with the brightness and contrast of the picture: another exposure is no other
    place."""
    (mean_a, dev_a), (mean_b, dev_b) = (
        cv2.meanStdDev(image[::4, ::4]) for image in (template, picture)
    )
    gain = float(np.clip(dev_b[0, 0] / max(float(dev_a[0, 0]), 1.0), 0.2, 5.0))
    shift = float(mean_b[0, 0]) - gain * float(mean_a[0, 0])
    if abs(gain - 1.0) < 0.03 and abs(shift) < 2.0:
        return template
    few, many = (float(np.mean(image[::4, ::4] >= WHITE)) for image in (template, picture))
    if many - few > SATURATED:
        return np.asarray(cv2.LUT(template, _tones(template[::4, ::4], picture[::4, ::4])))
    return np.asarray(cv2.convertScaleAbs(template, alpha=gain, beta=shift), np.uint8)
