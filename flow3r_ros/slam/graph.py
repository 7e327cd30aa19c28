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

from flow3r_ros.errors import ConfigError, install_extra
from flow3r_ros.geometry.lie import invert, nearest_rotation, sim3, sim3_parts
from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.slam.loops import Loop
from flow3r_ros.slam.store import KeyframeStore
from flow3r_ros.types import Float64

STEP_TURN, STEP_SHIFT, STEP_SCALE = 0.012, 0.012, 0.02
"""1-sigma a keyframe of the odometry's rotation (rad, each axis), translation (of the median depth)
and log unit: on RedKitchen 10 keyframes turn wrong by 3.8 degrees in the median and go wrong by 5 %
of the depth, on kitti_curve_51 by .8 degrees and 3 %"""
SETTLED = 6
"""keyframes of a segment after which its unit is settled: the first has its depth from the network
alone, and those after it mend the unit as they go"""
UNSETTLED = 0.4
"""1-sigma of the logarithm of the unit of a step before: on kitti_curve_51 it changes by a factor
of 1.2 to 1.5 with each of the first keyframes. What is taken for nearer or farther than it is moves
too much or too little, or turns instead"""
LOOP_TURN, LOOP_SHIFT, LOOP_SCALE = 0.02, 0.03, 0.1
"""1-sigma of a loop, likewise: those of RedKitchen turn wrong by 1.5 degrees and their unit is off
by 8 % in the median"""
GATE = 24.3
"""chi square of seven degrees of freedom that a right loop exceeds once in a thousand times"""
BEND = 3.0
"""chi square a degree of freedom that the odometry's factors may reach: beyond it a loop bends
the map"""
HELD, APART = 1e-4, 30.0
"""units and rad: 1-sigma of where the first keyframe of the map lies, which holds it, and of where
a later segment begins, which loops alone know"""
CAUCHY = 2.0
"""sigmas from which on a loop loses weight"""


@dataclass(frozen=True)
class Optimised:
    """Sim(3) poses `[4, 4]` of the keyframes in the map, by key, and the chi square a degree of
    freedom of the odometry's factors."""

    poses: dict[int, Float64]
    strain: float


class KeyframeGraph:
    """Owns the poses of the keyframes of a store in the map (`poses`, Sim(3) `[4, 4]` by key: they
    map points of a keyframe's optical frame, in its odometry unit, to the map) and the `loops`.

    Raises ConfigError where GTSAM is not installed.
    """

    def __init__(self, store: KeyframeStore) -> None:
        require_gtsam()
        self._store = store
        self.poses: dict[int, Float64] = {}
        self.loops: list[Loop] = []
        self._island: dict[int, int] = {}
        self._held: set[int] = set()
        self._links: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """GTSAM's objects do not pickle, and the graph of an interrupted run does
        (`offline.resume`)."""
        return vars(self) | {"_links": None}

    @property
    def _gtsam(self) -> Any:
        """Asked for and not held: modules do not pickle, and the graph of an interrupted run does
        (`offline.resume`)."""
        return require_gtsam()

    def island(self, key: int) -> int:
        """Number of the connected part of the map that a keyframe lies in: its oldest segment."""
        return self._island[self._store[key].segment]

    def is_settled(self, key: int) -> bool:
        """Whether the odometry knew its unit at a keyframe: its segment is the one that gives its
        island the unit, or was no longer young."""
        own = self._store[key].segment
        return self._island[own] == own or self._store.age(key, SETTLED + 1) > SETTLED

    def add(self, key: int) -> None:
        """A keyframe has come into the store; that of a new segment lies where `odom` says."""
        keyframe, before = self._store[key], self._store.before(key)
        self._links = None
        self._island.setdefault(keyframe.segment, keyframe.segment)
        if before is None:
            self.poses[key] = keyframe.T_odom_cam.copy()
        else:
            step = invert(before.T_odom_cam) @ keyframe.T_odom_cam
            self.poses[key] = _similar(self.poses[before.key] @ step)

    def adjust(self, adjusted: dict[int, Float64]) -> None:
        """The odometry has adjusted keyframes: the store gets their new poses `[4, 4]`, and the map
        changes by as much as the steps between neighbours do; what loops have corrected stays."""
        old = {}
        for key in sorted(adjusted):
            before = self._store.before(key)
            if before is not None:
                step = invert(before.T_odom_cam) @ self._store[key].T_odom_cam
                old[key] = invert(self.poses[before.key]) @ self.poses[key] @ invert(step)
        for key, pose in adjusted.items():
            self._links = None
            self._store.move(key, pose)
        for key, correction in old.items():
            before = self._store.before(key)
            assert before is not None
            step = invert(before.T_odom_cam) @ self._store[key].T_odom_cam
            self.poses[key] = _similar(self.poses[before.key] @ correction @ step)

    def place(self, key: int, S_map_cam: Float64, held: bool) -> None:
        """A keyframe of another map has come into the store, and lies at a Sim(3) `[4, 4]`; `held`:
        nothing moves it."""
        self._island.setdefault(self._store[key].segment, self._store[key].segment)
        self.poses[key] = S_map_cam
        self._links = None
        if held:
            self._held.add(key)

    def join(self, islands: dict[int, int]) -> None:
        """Segments are connected: number of the connected part by segment."""
        self._island |= islands

    def remove(self, key: int) -> None:
        """A keyframe leaves the store: its loops go with it."""
        self._links = None
        self._held.discard(key)
        self.loops = [loop for loop in self.loops if key not in (loop.first, loop.second)]
        del self.poses[key]

    # --- loops ------------------------------------------------------------------------------------

    def disagreement(self, loop: Loop) -> float:
        """Chi square of a loop against what the map says of its keyframes, with the uncertainty of
        both; loops between islands contradict nothing: 0."""
        if self.island(loop.first) != self.island(loop.second):
            return 0.0
        values = self._values(self.poses)
        marginals = self._gtsam.Marginals(self._factors(self.poses, self.loops), values)
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
            moved = max(here, there)
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
        if oldest != other:
            self._links = None  # which segment gives the unit has changed
        for segment, island in self._island.items():
            if island == other:
                self._island[segment] = oldest
        self.loops.append(loop)
        self.poses = result.poses

    def _optimised(self, poses: dict[int, Float64], loops: list[Loop]) -> Optimised:
        gtsam = self._gtsam
        parameters = gtsam.LevenbergMarquardtParams()
        parameters.setMaxIterations(30)
        factors = self._factors(poses, loops)
        solver = gtsam.LevenbergMarquardtOptimizer(factors, self._values(poses), parameters)
        values = solver.optimize()
        found = {key: _from_gtsam(values.atSimilarity3(key)) for key in poses}
        chain = self._chain()
        return Optimised(found, 2.0 * chain.error(values) / max(7 * chain.size(), 1))

    # --- in GTSAM's words -------------------------------------------------------------------------

    def _values(self, poses: dict[int, Float64]) -> Any:
        values = self._gtsam.Values()
        for key, pose in poses.items():
            values.insert(key, self._similarity(pose))
        return values

    def _factors(self, poses: dict[int, Float64], loops: Iterable[Loop]) -> Any:
        """The odometry's factors, one for where each segment begins in `poses`, and loops."""
        gtsam = self._gtsam
        graph = gtsam.NonlinearFactorGraph()
        graph.push_back(self._chain())
        for keyframe in self._store:
            key = keyframe.key
            if self._store.before(key) is None:
                first = self.island(key) == keyframe.segment
                graph.add(self._prior(key, poses[key], HELD if first else APART))
        for key in self._held:
            graph.add(self._prior(key, self.poses[key], HELD))
        for loop in loops:
            noise = gtsam.noiseModel.Robust.Create(
                gtsam.noiseModel.mEstimator.Cauchy.Create(CAUCHY),
                gtsam.noiseModel.Diagonal.Sigmas(self._loop_sigma(loop)),
            )
            graph.add(self._between(loop.first, loop.second, loop.S_first_second, noise))
        return graph

    def _chain(self) -> Any:
        """The odometry's factors alone, made anew when a keyframe came, moved or went."""
        if self._links is None:
            gtsam = self._gtsam
            self._links = gtsam.NonlinearFactorGraph()
            for keyframe in self._store:
                key, before = keyframe.key, self._store.before(keyframe.key)
                if before is None:
                    continue
                step = invert(before.T_odom_cam) @ keyframe.T_odom_cam
                noise = gtsam.noiseModel.Diagonal.Sigmas(self._step_sigma(before, keyframe, step))
                self._links.add(self._between(before.key, key, step, noise))
        return self._links

    def _step_sigma(self, before: MapKeyframe, keyframe: MapKeyframe, step: Float64) -> Float64:
        """1-sigma of what the odometry says of two neighbours, larger before it `is_settled`."""
        sigma = _sigma(STEP_TURN, STEP_SHIFT * before.median_depth, STEP_SCALE)
        sigma *= np.sqrt(self._store.steps(keyframe.key))
        if not self.is_settled(keyframe.key):
            shift = UNSETTLED * float(np.linalg.norm(step[:3, 3]))
            sigma = np.hypot(sigma, _sigma(shift / before.median_depth, shift, UNSETTLED))
        return sigma

    def _loop_sigma(self, loop: Loop) -> Float64:
        depth = self._store[loop.first].median_depth
        return _sigma(LOOP_TURN, LOOP_SHIFT * depth, LOOP_SCALE)

    def _prior(self, key: int, pose: Float64, sigma: float) -> Any:
        noise = self._gtsam.noiseModel.Isotropic.Sigma(7, sigma)
        return self._gtsam.PriorFactorSimilarity3(key, self._similarity(pose), noise)

    def _between(self, first: int, second: int, S: Float64, noise: Any) -> Any:
        return self._gtsam.BetweenFactorSimilarity3(first, second, self._similarity(S), noise)

    def _similarity(self, S: Float64) -> Any:
        """GTSAM's x -> s (R x + t)."""
        scale, R, t = sim3_parts(S)
        return self._gtsam.Similarity3(self._gtsam.Rot3(R), t / scale, scale)


def _similar(S: Float64) -> Float64:
    """The Sim(3) nearest to one that has lost its orthonormality by rounding: where poses are
    composed again and again, that loss doubles each time."""
    scale, R, t = sim3_parts(S)
    return sim3(scale, nearest_rotation(R), t)


def _from_gtsam(similarity: Any) -> Float64:
    scale = float(similarity.scale())
    rotation = np.asarray(similarity.rotation().matrix(), np.float64)
    return sim3(scale, rotation, scale * np.asarray(similarity.translation(), np.float64))


def _sigma(turn: float, shift: float, scale: float) -> Float64:
    """1-sigmas in the order of GTSAM's tangent: rotation, translation, log scale."""
    return np.array([turn] * 3 + [shift] * 3 + [scale])


def require_gtsam() -> Any:
    """The GTSAM module. Raises ConfigError where it is not installed."""
    try:
        return importlib.import_module("gtsam")
    except ImportError as error:
        raise ConfigError(
            "slam.enabled needs GTSAM, which is not installed",
            f"{install_extra('slam')} (Python 3.11 or newer), or leave slam.enabled off",
        ) from error
