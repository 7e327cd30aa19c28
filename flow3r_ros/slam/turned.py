"""A place seen again through a lens whose focal length is a guess.

Where a run was lost and has begun anew, neither its focal length nor its depth is what it was the
first time, and no two poses agree. Two pictures from about the same spot say how long the lens is:
at the right focal length one is the other, turned (Szeliski and Shum, "Creating full view panoramic
mosaics", SIGGRAPH 1997), and what the turn leaves open is a small way that either depth explains.
With that lens, and from that turn, what `slam.loops` demands is asked as always, but for one
thing: the neighbour that confirms speaks by its own depth alone, not also by that of the second
keyframe, which is worst through a guessed lens and has spoken already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.camera import scaled
from flow3r_ros.geometry.camera_pose import fit_camera_pose
from flow3r_ros.geometry.lie import invert, nearest_rotation, rigid
from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.slam.loops import MATCH_SIGMA, Loop, match, verify
from flow3r_ros.types import Bool, Camera, Float64

LENSES = np.geomspace(0.6, 1.6, 21)
"""focal lengths that are tried, of the mean of what the two keyframes take theirs to be"""
WITHIN = 4.0
"""pixels within which a turn explains a match"""
MIN_TURNED, MIN_SHARE = 24, 0.4
"""matches that a turn must explain, and their share"""
ROUNDS = 6
"""of weighing the matches anew in a turn"""
NO_TURN = "no turn"


def verify_turned(
    first: MapKeyframe, second: MapKeyframe, neighbours: Sequence[tuple[MapKeyframe, Float64]]
) -> Loop | str:
    """`loops.verify` through the focal length that the matches themselves speak for, of the first
    keyframe and of its `neighbours`; in a word why there is no loop."""
    pair = _Pair.of(first, second)
    same_size = first.lens.width == second.lens.width and first.lens.height == second.lens.height
    if pair is None or not same_size:
        return NO_TURN
    lengths = LENSES * float(np.sqrt(first.lens.fx * second.lens.fx))
    turn = min((pair.turn(length) for length in lengths), key=lambda each: each.cost)
    if turn.explained < max(MIN_TURNED, MIN_SHARE * len(pair.first)):
        return NO_TURN
    others = (_Pair.of(each, second) for each, _ in neighbours)
    pairs = [pair, *(other for other in others if other is not None)]
    costs = [sum(each.cost(length) for each in pairs) for length in lengths]
    best = int(np.argmin(costs))
    if best in (0, len(lengths) - 1):
        return NO_TURN
    length = float(lengths[best])
    beside = [(through(each, length), S) for each, S in neighbours]
    start = pair.turn(length).start
    return verify(through(first, length), through(second, length), beside, start)


def through(keyframe: MapKeyframe, focal: float) -> MapKeyframe:
    """The keyframe through a lens of that focal length, pixels of its `lens`."""
    lens = replace(keyframe.lens, fx=focal, fy=focal)
    camera = scaled(lens, keyframe.camera.width, keyframe.camera.height)
    return replace(keyframe, lens=lens, camera=camera)


@dataclass(frozen=True)
class _Turn:
    """The second picture of a pair as the first one, turned: pose `start` `[4, 4]` of the second in
    the first, its mean robust `cost` and the number of matches that it has `explained`."""

    start: Float64
    cost: float
    explained: int


@dataclass(frozen=True)
class _Pair:
    """Two keyframes and the `rows` `[N]` of their features that match, which lie at pixels `first`
    and `second` `[N, 2]`; `seed` `[N]` those that lie on one homography."""

    one: MapKeyframe
    two: MapKeyframe
    rows: tuple[NDArray[np.intp], NDArray[np.intp]]
    first: Float64
    second: Float64
    seed: Bool

    @classmethod
    def of(cls, one: MapKeyframe, two: MapKeyframe) -> _Pair | None:
        """None where too few features match."""
        rows = match(one.descriptors, two.descriptors)
        if len(rows[0]) < MIN_TURNED:
            return None
        first, second = one.pixels[rows[0]], two.pixels[rows[1]]
        _, mask = cv2.findHomography(first, second, cv2.USAC_MAGSAC, 0.75 * WITHIN)
        if mask is None:
            return None
        seed = np.asarray(mask)[:, 0] > 0
        return cls(one, two, rows, first.astype(np.float64), second.astype(np.float64), seed)

    def turn(self, focal: float) -> _Turn:
        """The best turn at a focal length."""
        a, b = _rays(self.one.lens, focal, self.first), _rays(self.two.lens, focal, self.second)
        weight, squared = self.seed.astype(np.float64), np.empty(0)
        R = np.eye(3)
        for _ in range(ROUNDS):
            R = nearest_rotation((a * weight[:, None]).T @ b)
            seen = b @ R.T
            off = focal * (seen[:, :2] / np.maximum(seen[:, 2:], 0.1) - a[:, :2] / a[:, 2:])
            squared = np.sum(off**2, axis=1) / WITHIN**2
            weight = 1.0 / (1.0 + squared) ** 2
        cost = float(np.mean(squared / (1.0 + squared)))
        return _Turn(rigid(R, np.zeros(3)), cost, int(np.count_nonzero(squared < 1.0)))

    def cost(self, focal: float) -> float:
        """Robust cost of both poses, that by the depth of either, which are near the turn."""
        start = self.turn(focal).start
        one, two = through(self.one, focal), through(self.two, focal)
        sides = (
            (one, self.rows[0], two, self.second, start),
            (two, self.rows[1], one, self.first, invert(start)),
        )
        return len(self.first) * sum(
            fit_camera_pose(
                reference.points_at(rows), observed, other.lens, pose, MATCH_SIGMA, 15
            ).cost
            for reference, rows, other, observed, pose in sides
        )


def _rays(lens: Camera, focal: float, pixels: Float64) -> Float64:
    """Unit rays `[N, 3]` of pixels `[N, 2]`."""
    off = (pixels - np.array([lens.cx, lens.cy])) / focal
    rays = np.concatenate([off, np.ones((len(off), 1))], axis=1)
    return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True))
