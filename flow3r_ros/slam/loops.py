"""Do two keyframes show the same place, and how do they lie to each other? Several answers that
must agree.

Features are matched; the first keyframe's depth gives the pose of the second in it, the second's
depth that of the first, and their agreement the ratio of units. A neighbour of one of them,
matched by its own features and depth, is asked the same; the whole pictures are laid over each
other. Whatever disagrees refuses the loop and is counted by its name: a wrong loop is worse than
none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.camera_pose import (
    fit_camera_pose,
    judge_camera_pose,
    pose_without_depth,
)
from flow3r_ros.geometry.lie import invert, rigid_part, rotation_angle, sim3, sim3_parts
from flow3r_ros.geometry.robust import weighted_median
from flow3r_ros.odometry.corners import HELD_BACK
from flow3r_ros.odometry.depth import carry
from flow3r_ros.odometry.verification import confirmed, picture_likeness
from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.types import Bool, Camera, Float64, UInt8

RATIO = 0.8
"""distance to the best match over that to the second best (Lowe 2004)"""
MIN_MATCHES = 24
"""mutual matches below which two pictures are not compared further"""
MIN_INLIERS = 18
"""matches that each pose must explain"""
MIN_SHARE = 0.4
"""share of the matches that each pose must explain"""
MATCH_SIGMA = 1.5
"""pixels: 1-sigma of a matched feature"""
SAME_ANGLE = 0.06
"""rad within which two answers about one rotation agree"""
SAME_SHIFT = 0.12
"""of the median depth: the same for translations"""
MAX_SCALE = 3.0
"""largest ratio of units: two segments took theirs from two answers of the network"""
UNKNOWN = 1.9
"""relative sigma of an inverse depth from which on nothing is known of it (`points_at` gives 2).
The first keyframe of a run has a sigma of 1 everywhere: the median over its features still tells
the unit"""
LIKENESS = 0.15
"""correlation of the pictures laid over each other that a loop needs (`verification.LIKENESS` is
for pictures taken one after the other)"""


@dataclass(frozen=True)
class Loop:
    """Two keyframes of the same place.

    `S_first_second` Sim(3) `[4, 4]` maps points of the second one's optical frame, in its unit, to
    the first one's; `matches` features that were matched and `inliers` of them; `likeness` of the
    pictures; `disagreement` rad between the two neighbours' answers.
    """

    first: int
    second: int
    S_first_second: Float64
    matches: int
    inliers: int
    likeness: float
    disagreement: float

    def renumbered(self, first: int, second: int) -> Loop:
        """The same between other keys."""
        return replace(self, first=first, second=second)


@dataclass(frozen=True)
class _Relative:
    """Answer of one pair: Sim(3) as in `Loop`, matches, inliers."""

    S: Float64
    matches: int
    inliers: int


def verify(
    first: MapKeyframe,
    second: MapKeyframe,
    neighbours: Sequence[tuple[MapKeyframe, Float64]],
    start: Float64 | None = None,
) -> Loop | str:
    """The loop between two keyframes, or in a word why there is none.

    Args:
        neighbours: keyframes beside the first one, each with its Sim(3) pose `[4, 4]` in the first
            one; one of them must confirm the loop.
        start: pose `[4, 4]` of the second one in the first near which theirs is looked for; by
            default anywhere.
    """
    found = _relative(first, second, start)
    if isinstance(found, str):
        return found
    disagreement = _confirmed(first, second, found.S, neighbours, start is not None)
    if isinstance(disagreement, str):
        return disagreement
    likeness = _likeness(first, second, found.S)
    if not likeness >= LIKENESS:
        return "pictures differ"
    return Loop(
        first.key, second.key, found.S, found.matches, found.inliers, likeness, disagreement
    )


def _relative(
    first: MapKeyframe, second: MapKeyframe, start: Float64 | None = None
) -> _Relative | str:
    """How two keyframes lie to each other by both of their depths."""
    if not (first.knows_depth and second.knows_depth):
        return "no depth"
    one, two = match(first.descriptors, second.descriptors)
    if len(one) < MIN_MATCHES:
        return "few matches"
    there = _pose(first, second, one, two, start)
    back = _pose(second, first, two, one, None if start is None else invert(start))
    if there is None or back is None:
        return "no pose"
    T_first_second, inliers = there
    T_second_first, others = back
    both = inliers & others
    scale = _ratio_of_units(first, second, one[both], two[both], T_first_second)
    if scale is None or not 1.0 / MAX_SCALE < scale < MAX_SCALE:
        return "units differ"
    S = sim3(scale, T_first_second[:3, :3], T_first_second[:3, 3])
    other = sim3(scale, np.eye(3), np.zeros(3)) @ T_second_first
    if not _agree(S, _rescaled(invert(other), scale), first.median_depth):
        return "directions disagree"
    return _Relative(S, len(one), int(np.count_nonzero(inliers)))


def _rescaled(S: Float64, scale: float) -> Float64:
    """The Sim(3) with that scale, rotation and translation kept."""
    _, R, t = sim3_parts(S)
    return sim3(scale, R, t)


def match(first: UInt8, second: UInt8) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of descriptors `[N, 128]` and `[M, 128]` that are each other's best match, clearly."""
    if min(len(first), len(second)) < 2:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    a, b = first.astype(np.float32), second.astype(np.float32)
    back = {pair[0].queryIdx: pair[0].trainIdx for pair in matcher.knnMatch(b, a, k=1)}
    kept = [
        (best.queryIdx, best.trainIdx)
        for best, other in matcher.knnMatch(a, b, k=2)
        if best.distance < RATIO * other.distance and back[best.trainIdx] == best.queryIdx
    ]
    rows = np.array(kept, np.intp).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def _pose(
    reference: MapKeyframe,
    other: MapKeyframe,
    there: NDArray[np.intp],
    here: NDArray[np.intp],
    start: Float64 | None,
) -> tuple[Float64, NDArray[np.bool_]] | None:
    """Pose `[4, 4]` of `other` in `reference` by the depth of the latter, and the matches it
    explains; None where it explains too few, or the matches held back from it speak against it."""
    points, observed = reference.points_at(there), other.pixels[here].astype(np.float64)
    used = np.arange(len(there)) % HELD_BACK != 0
    known = points.only(used)
    starts = [start]
    if start is None:
        starts = [np.eye(4), pose_without_depth(known, observed[used], other.lens)]
    fits = [
        fit_camera_pose(known, observed[used], other.lens, each, MATCH_SIGMA, 15)
        for each in starts
        if each is not None
    ]
    fit = max(fits, key=lambda each: each.inliers)
    distance = judge_camera_pose(points, observed, other.lens, fit.T, MATCH_SIGMA)
    inliers = distance < 3.0
    count = int(np.count_nonzero(inliers))
    if count < max(MIN_INLIERS, MIN_SHARE * len(there)) or not confirmed(distance[~used]):
        return None
    return fit.T, inliers


def _ratio_of_units(
    first: MapKeyframe,
    second: MapKeyframe,
    one: NDArray[np.intp],
    two: NDArray[np.intp],
    T_first_second: Float64,
) -> float | None:
    """How many units of the first keyframe are one of the second: the ratio of the depths that both
    give to points in the second, near ones above all, since a way is measured by them; None with
    too few."""
    a, b = first.points_at(one), second.points_at(two)
    known = (a.sigma < UNKNOWN * a.inverse) & (b.sigma < UNKNOWN * b.inverse)
    if np.count_nonzero(known) < MIN_INLIERS:
        return None
    points = a.rays[known] / a.inverse[known][:, None] - T_first_second[:3, 3]
    ratio = points @ T_first_second[:3, 2] * b.inverse[known]
    return weighted_median(ratio, np.sqrt(a.inverse[known] * b.inverse[known]))


def _agree(S: Float64, other: Float64, typical: float) -> bool:
    """Whether two Sim(3) say the same; `typical` is the median depth in their unit."""
    return (
        rotation_angle(sim3_parts(S)[1].T @ sim3_parts(other)[1]) < SAME_ANGLE
        and float(np.linalg.norm(S[:3, 3] - other[:3, 3])) < SAME_SHIFT * typical
    )


def _confirmed(
    first: MapKeyframe,
    second: MapKeyframe,
    S: Float64,
    neighbours: Sequence[tuple[MapKeyframe, Float64]],
    near: bool,
) -> float | str:
    """Rad by which the neighbour that agrees best disagrees; else why none confirms the loop.
    `near`: its answer is looked for near what the first one says, and is that of its own depth
    alone: the second keyframe's, through a guessed lens, has spoken already."""
    answers = []
    for neighbour, S_first_neighbour in neighbours:
        if near:
            start = rigid_part(invert(S_first_neighbour) @ S)
            S_neighbour_second = _by_own_depth(neighbour, second, start)
        else:
            found = _relative(neighbour, second)
            S_neighbour_second = None if isinstance(found, str) else found.S
        if S_neighbour_second is not None:
            answers.append(S_first_neighbour @ S_neighbour_second)
    if not answers:
        return "no second witness"
    for answer in answers:
        if not _agree(S, answer, first.median_depth):
            return "witnesses disagree"
    return min(rotation_angle(sim3_parts(S)[1].T @ sim3_parts(each)[1]) for each in answers)


def _by_own_depth(reference: MapKeyframe, other: MapKeyframe, start: Float64) -> Float64 | None:
    """Pose `[4, 4]` of `other` in `reference` by the depth of the latter alone, from `start`; None
    where there is none."""
    one, two = match(reference.descriptors, other.descriptors)
    if not reference.knows_depth or len(one) < MIN_MATCHES:
        return None
    found = _pose(reference, other, one, two, start)
    return None if found is None else found[0]


def _likeness(first: MapKeyframe, second: MapKeyframe, S: Float64) -> float:
    """Correlation of the second picture with the first one laid over it by depth and pose."""
    _, R, t = sim3_parts(S)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, t
    grid = first.grid
    here, _ = _through(grid, first)
    there, inside = _through(grid, second)
    depth, came_from = carry(first.depth, T, grid)
    seen = np.isfinite(depth.inverse) & inside
    return picture_likeness(there, here, came_from[::2, ::2], seen[::2, ::2])


def _through(grid: Camera, keyframe: MapKeyframe) -> tuple[UInt8, Bool]:
    """A keyframe's picture as the pinhole `grid` would have taken it from there, and which of its
    pixels the keyframe saw."""
    own = keyframe.grid
    small = cv2.resize(keyframe.gray(), (own.width, own.height), interpolation=cv2.INTER_AREA)
    if own == grid:
        return np.asarray(small, np.uint8), np.ones(small.shape, np.bool_)
    size, H = (grid.width, grid.height), grid.matrix @ np.linalg.inv(own.matrix)
    inside = cv2.warpPerspective(np.ones_like(small), H, size, flags=cv2.INTER_NEAREST)
    return np.asarray(cv2.warpPerspective(small, H, size), np.uint8), inside > 0
