"""The keyframe graph: poses of the map as Sim(3) between what the odometry says of neighbours and
what loops say of places (Strasdat et al., "Scale Drift-Aware Large Scale Monocular SLAM", RSS 2010;
solved by GTSAM).

A monocular odometry drifts in its unit as well, so that every factor is a similarity; a metric
scale is a factor on the output, not on the odometry. Pieces of trajectory (segments) that nothing
connects lie side by side until a loop between them holds.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flow3r_ros.errors import ConfigError
from flow3r_ros.geometry.lie import invert, rigid, sim3, sim3_parts
from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.slam.loops import Loop
from flow3r_ros.types import Float64

STEP_TURN, STEP_SHIFT, STEP_SCALE = 0.012, 0.012, 0.02
"""1-sigma a keyframe of the odometry's rotation (rad, each axis), translation (of the median depth)
and log unit: on RedKitchen 10 keyframes turn wrong by 3.8 degrees in the median and go wrong by 5 %
of the depth, on kitti_curve_51 by .8 degrees and 3 %"""
LOOP_TURN, LOOP_SHIFT, LOOP_SCALE = 0.015, 0.02, 0.05
"""1-sigma of a loop, likewise"""
GATE = 24.3
"""chi square of seven degrees of freedom that a right loop exceeds once in a thousand times"""
BEND = 3.0
"""chi square a degree of freedom that the odometry's factors may reach: beyond it a loop bends
the map"""
APART = 1e3
"""units and rad: 1-sigma of where a segment lies that nothing connects yet"""
CAUCHY = 2.0
"""sigmas from which on a loop loses weight"""


@dataclass(frozen=True)
class Optimised:
    """Sim(3) poses `[4, 4]` of the keyframes in the map, by key, and the chi square a degree of
    freedom of the odometry's factors."""

    poses: dict[int, Float64]
    strain: float


class KeyframeGraph:
    """Owns the poses of keyframes in the map (`poses`, Sim(3) `[4, 4]` by key: they map points of a
    keyframe's optical frame, in its odometry unit, to the map) and the `loops`.

    Raises ConfigError where GTSAM is not installed.
    """

    def __init__(self) -> None:
        self._gtsam = require_gtsam()
        self.poses: dict[int, Float64] = {}
        self.loops: list[Loop] = []
        self._keyframes: dict[int, MapKeyframe] = {}
        self._steps: dict[int, int] = {}
        self._island: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._keyframes)

    @property
    def keyframes(self) -> list[MapKeyframe]:
        """In the order they came."""
        return list(self._keyframes.values())

    def keyframe(self, key: int) -> MapKeyframe:
        """The keyframe of a key."""
        return self._keyframes[key]

    def island(self, key: int) -> int:
        """Number of the connected part of the map that a keyframe lies in, that of its oldest
        segment."""
        return self._island[self._keyframes[key].segment]

    def add(self, keyframe: MapKeyframe) -> None:
        """Take in a keyframe after the last one; that of a new segment lies where `odom` says."""
        last = next(reversed(self._keyframes.values()), None)
        self._island.setdefault(keyframe.segment, keyframe.segment)
        self._keyframes[keyframe.key], self._steps[keyframe.key] = keyframe, 1
        if last is not None and last.segment == keyframe.segment:
            step = invert(last.T_odom_cam) @ keyframe.T_odom_cam
            self.poses[keyframe.key] = self.poses[last.key] @ step
        else:
            self.poses[keyframe.key] = keyframe.T_odom_cam.copy()

    def move(self, key: int, T_odom_cam: Float64) -> None:
        """The odometry has adjusted a keyframe's pose `[4, 4]`; its place in the map follows the
        keyframe before it."""
        moved = self._keyframes[key].at(T_odom_cam)
        before = self.before(key)
        self._keyframes[key] = moved
        if before is not None:
            self.poses[key] = self.poses[before.key] @ invert(before.T_odom_cam) @ T_odom_cam

    def before(self, key: int) -> MapKeyframe | None:
        """The keyframe before one, in its segment."""
        return self._beside(key, -1)

    def after(self, key: int) -> MapKeyframe | None:
        """The keyframe after one, in its segment."""
        return self._beside(key, 1)

    def _beside(self, key: int, step: int) -> MapKeyframe | None:
        keys = list(self._keyframes)
        at = keys.index(key) + step
        other = self._keyframes[keys[at]] if 0 <= at < len(keys) else None
        same = other is not None and other.segment == self._keyframes[key].segment
        return other if same else None

    def remove(self, key: int) -> None:
        """Let a keyframe go: its neighbours are linked over it; its loops go with it."""
        after = self.after(key)
        if after is not None:
            self._steps[after.key] += self._steps[key]
        self.loops = [loop for loop in self.loops if key not in (loop.first, loop.second)]
        del self._keyframes[key], self.poses[key], self._steps[key]

    # --- loops ------------------------------------------------------------------------------------

    def disagreement(self, loop: Loop) -> float:
        """Chi square of a loop against what the map says of its keyframes, with the uncertainty of
        both; loops between islands contradict nothing: 0."""
        if self.island(loop.first) != self.island(loop.second):
            return 0.0
        values = self._values(self.poses)
        marginals = self._gtsam.Marginals(self._factors(self.loops), values)
        keys = self._gtsam.KeyVector([loop.first, loop.second])
        joint = marginals.jointMarginalCovariance(keys).fullMatrix()
        if loop.first > loop.second:  # GTSAM sorts them
            joint = np.roll(np.roll(joint, 7, axis=0), 7, axis=1)
        unit = self._gtsam.noiseModel.Unit.Create(7)
        factor = self._between(loop.first, loop.second, loop.S_first_second, unit)
        jacobian, error = factor.linearize(values).jacobian()
        if loop.first > loop.second:
            jacobian = np.roll(jacobian, 7, axis=1)
        sigma = self._loop_sigma(loop)
        covariance = jacobian @ joint @ jacobian.T + np.diag(sigma**2)
        return float(error @ np.linalg.solve(covariance, error))

    def with_loop(self, loop: Loop) -> Optimised:
        """The map with one more loop, which is not yet taken in."""
        poses = dict(self.poses)
        here, there = self.island(loop.first), self.island(loop.second)
        if here != there:
            fixed, moved = (here, there) if here < there else (there, here)
            pose = (
                poses[loop.first] @ loop.S_first_second @ invert(poses[loop.second])
                if moved == there
                else poses[loop.second] @ invert(poses[loop.first] @ loop.S_first_second)
            )
            for key in poses:
                if self.island(key) == moved:
                    poses[key] = pose @ poses[key]
        return self._optimised(poses, [*self.loops, loop])

    def take(self, loop: Loop, result: Optimised) -> None:
        """Take in a loop with the outcome of `with_loop`."""
        here, there = self.island(loop.first), self.island(loop.second)
        oldest, other = min(here, there), max(here, there)
        for segment, island in self._island.items():
            if island == other:
                self._island[segment] = oldest
        self.loops.append(loop)
        self.poses = result.poses

    def replace_poses(self, poses: dict[int, Float64]) -> None:
        """Poses that something better has found, for instance refinement, by key."""
        self.poses = {key: poses.get(key, pose) for key, pose in self.poses.items()}

    def _optimised(self, poses: dict[int, Float64], loops: list[Loop]) -> Optimised:
        gtsam = self._gtsam
        parameters = gtsam.LevenbergMarquardtParams()
        parameters.setMaxIterations(30)
        factors = self._factors(loops)
        solver = gtsam.LevenbergMarquardtOptimizer(factors, self._values(poses), parameters)
        values = solver.optimize()
        chain = self._factors([])
        freedom = max(7 * (chain.size() - len(self._islands())), 1)
        found = {key: _from_gtsam(values.atSimilarity3(key)) for key in poses}
        return Optimised(found, 2.0 * chain.error(values) / freedom)

    # --- in GTSAM's words -------------------------------------------------------------------------

    def _islands(self) -> set[int]:
        return {self._island[each.segment] for each in self._keyframes.values()}

    def _values(self, poses: dict[int, Float64]) -> Any:
        values = self._gtsam.Values()
        for key, pose in poses.items():
            values.insert(key, self._similarity(pose))
        return values

    def _factors(self, loops: Iterable[Loop]) -> Any:
        """The odometry's factors, one for where each segment begins, and loops."""
        gtsam = self._gtsam
        graph, begun = gtsam.NonlinearFactorGraph(), set[int]()
        for key, keyframe in self._keyframes.items():
            before = self.before(key)
            if before is not None:
                step = invert(before.T_odom_cam) @ keyframe.T_odom_cam
                sigma = _sigma(STEP_TURN, STEP_SHIFT * before.median_depth, STEP_SCALE)
                noise = gtsam.noiseModel.Diagonal.Sigmas(np.sqrt(self._steps[key]) * sigma)
                graph.add(self._between(before.key, key, step, noise))
            elif self.island(key) == keyframe.segment and keyframe.segment not in begun:
                held = gtsam.noiseModel.Isotropic.Sigma(7, 1e-6)
                here = self._similarity(self.poses[key])
                graph.add(gtsam.PriorFactorSimilarity3(key, here, held))
                begun.add(keyframe.segment)
            else:
                loose = gtsam.noiseModel.Isotropic.Sigma(7, APART)
                here = self._similarity(self.poses[key])
                graph.add(gtsam.PriorFactorSimilarity3(key, here, loose))
        for loop in loops:
            noise = gtsam.noiseModel.Robust.Create(
                gtsam.noiseModel.mEstimator.Cauchy.Create(CAUCHY),
                gtsam.noiseModel.Diagonal.Sigmas(self._loop_sigma(loop)),
            )
            graph.add(self._between(loop.first, loop.second, loop.S_first_second, noise))
        return graph

    def _loop_sigma(self, loop: Loop) -> Float64:
        depth = self._keyframes[loop.first].median_depth
        return _sigma(LOOP_TURN, LOOP_SHIFT * depth, LOOP_SCALE)

    def _between(self, first: int, second: int, S: Float64, noise: Any) -> Any:
        return self._gtsam.BetweenFactorSimilarity3(first, second, self._similarity(S), noise)

    def _similarity(self, S: Float64) -> Any:
        """GTSAM's x -> s (R x + t)."""
        scale, R, t = sim3_parts(S)
        return self._gtsam.Similarity3(self._gtsam.Rot3(R), t / scale, scale)


def _from_gtsam(similarity: Any) -> Float64:
    scale = float(similarity.scale())
    rotation = np.asarray(similarity.rotation().matrix(), np.float64)
    return sim3(scale, rotation, scale * np.asarray(similarity.translation(), np.float64))


def _sigma(turn: float, shift: float, scale: float) -> Float64:
    """1-sigmas in the order of GTSAM's tangent: rotation, translation, log scale."""
    return np.array([turn] * 3 + [shift] * 3 + [scale])


def rigid_part(S: Float64) -> Float64:
    """The pose `[4, 4]` of a camera whose Sim(3) pose is `S`: where it stands and looks."""
    _, R, t = sim3_parts(S)
    return rigid(R, t)


def require_gtsam() -> Any:
    """The GTSAM module. Raises ConfigError where it is not installed."""
    try:
        return importlib.import_module("gtsam")
    except ImportError as error:
        raise ConfigError(
            "slam.enabled needs GTSAM, which is not installed",
            "pip install 'flow3r_ros[slam]' (Python 3.11 or newer), or leave slam.enabled off",
        ) from error
