"""The map itself: keyframes, their graph and places, and the search for loops between them."""

from __future__ import annotations

import logging
from collections import Counter
from enum import Enum

import numpy as np

from flow3r_ros.geometry.lie import invert, rotation_angle, sim3_parts
from flow3r_ros.slam.graph import BEND, GATE, KeyframeGraph
from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.slam.loops import Loop, verify
from flow3r_ros.slam.places import Places
from flow3r_ros.slam.saved import SavedMap
from flow3r_ros.slam.store import KeyframeStore
from flow3r_ros.slam.thinning import most_redundant
from flow3r_ros.slam.turned import NO_TURN, verify_turned
from flow3r_ros.types import Float64

log = logging.getLogger(__name__)

RECENT_NS = 20_000_000_000
"""keyframes of the last 20 s are no loops: the odometry itself links them"""
CANDIDATES = 4
"""keyframes that are compared with a new one, those whose places are most alike"""
CONTRADICTIONS = frozenset({"directions disagree", "units differ"})
"""reasons that a keyframe gives which shows what the map shows, by a pose that the map's depth
explains, and has other depth: the way it came by is as doubtful"""

NEAR_TURN, NEAR_SHIFT = 0.5, 0.5
"""rad, and share of the median depth, within which a loop that contradicts the map is about the
same place: farther away it is another one that looks alike"""


class Search(Enum):
    """What the search for a loop of a keyframe came to: nothing, a loop, or that the part of the
    map which it is said to lie in knows its place and contradicts it."""

    NOTHING = 0
    CLOSED = 1
    CONTRADICTED = 2


class SlamMap:
    """Owns store, graph (None where loops are not wanted) and places; `closed` counts the loops,
    `refused` why candidates were none.

    Args:
        with_loops: keep a graph and look for loops. Raises ConfigError where GTSAM is missing.
    """

    def __init__(self, with_loops: bool) -> None:
        self.store = KeyframeStore()
        self.graph = KeyframeGraph(self.store) if with_loops else None
        self._places = Places()
        self.closed = 0
        self.refused: Counter[str] = Counter()
        self.next_key = self.next_segment = 0

    def add(self, keyframe: MapKeyframe, adjusted: dict[int, Float64]) -> None:
        """Take in a keyframe with the key `next_key`, and what the odometry has `adjusted`: poses
        `[4, 4]` by key."""
        self.next_key = keyframe.key + 1
        self.next_segment = max(self.next_segment, keyframe.segment + 1)
        self.store.add(keyframe)
        if self.graph is not None:
            self.graph.add(keyframe.key)
            self.graph.adjust(adjusted)
            self._places.add(keyframe.key, keyframe.descriptors)
            return
        for key, pose in adjusted.items():
            self.store.move(key, pose)

    def remove(self, key: int) -> None:
        """Let a keyframe go."""
        if self.graph is not None:
            self.graph.remove(key)
        self._places.remove(key)
        self.store.remove(key)

    def island(self, key: int) -> int:
        """Number of the connected part of the map that a keyframe lies in."""
        return self.store[key].segment if self.graph is None else self.graph.island(key)

    def pose(self, key: int) -> Float64:
        """Sim(3) `[4, 4]` of a keyframe in the map."""
        return self.store[key].T_odom_cam if self.graph is None else self.graph.poses[key]

    def close_loop(self, key: int, among: set[int] | None = None) -> Search:
        """Close one loop at most of a keyframe, with the candidate that is most alike and passes
        every gate; `among` are the keys that are asked, by default all that are not recent."""
        graph, keyframe, outcome = self.graph, self.store[key], Search.NOTHING
        if graph is None:
            return outcome
        old = {
            each.key
            for each in self.store
            if each.segment != keyframe.segment or keyframe.stamp_ns - each.stamp_ns > RECENT_NS
        }
        old = old if among is None else old & among
        for other in self._places.alike(keyframe.descriptors, old, CANDIDATES):
            beside = [self.store.before(other), self.store.after(other)]
            neighbours = [
                (each, invert(graph.poses[other]) @ graph.poses[each.key])
                for each in beside
                if each is not None
            ]
            loop = self._verified(other, key, neighbours)
            reason = loop if isinstance(loop, str) else self._taken(loop, graph)
            if not reason:
                self.closed += 1
                return Search.CLOSED
            self.refused[reason] += 1
            if graph.island(other) == graph.island(key) and (
                reason in CONTRADICTIONS
                or (not isinstance(loop, str) and self._is_near(loop, graph))
            ):
                outcome = Search.CONTRADICTED
        return outcome

    def _verified(
        self, other: int, key: int, neighbours: list[tuple[MapKeyframe, Float64]]
    ) -> Loop | str:
        """The loop between two keyframes, or why there is none. Two parts of a map that were taken
        through a guessed lens may have been taken through two."""
        first, second = self.store[other], self.store[key]
        loop = verify(first, second, neighbours)
        guessed = first.lens.estimated and second.lens.estimated
        if isinstance(loop, str) and guessed and self.island(other) != self.island(key):
            turned = verify_turned(first, second, neighbours)
            return loop if turned == NO_TURN else turned
        return loop

    def _taken(self, loop: Loop, graph: KeyframeGraph) -> str:
        """Take a loop into the graph; else why the map contradicts it."""
        if graph.disagreement(loop) > GATE:
            return "contradicts the map"
        result = graph.with_loop(loop)
        if not np.isfinite(result.strain) or result.strain > BEND:
            return "bends the map"
        graph.take(loop, result)
        log.info(
            "loop: keyframes of frames %d and %d, %d of %d matches, likeness %.2f",
            self.store[loop.first].frame_id, self.store[loop.second].frame_id, loop.inliers,
            loop.matches, loop.likeness,
        )  # fmt: skip
        return ""

    def _is_near(self, loop: Loop, graph: KeyframeGraph) -> bool:
        """Whether a loop puts its second keyframe about where the map has it."""
        off = invert(graph.poses[loop.first] @ loop.S_first_second) @ graph.poses[loop.second]
        _, R, t = sim3_parts(off)
        depth = self.store[loop.second].median_depth
        return rotation_angle(R) < NEAR_TURN and float(np.linalg.norm(t)) < NEAR_SHIFT * depth

    def most_redundant(self) -> int:
        """Key of the keyframe that the map can do without."""
        return most_redundant(self.store, self.pose, self.island, self._looped())

    def _looped(self) -> set[int]:
        loops = [] if self.graph is None else self.graph.loops
        return {key for loop in loops for key in (loop.first, loop.second)}

    # --- on disk ----------------------------------------------------------------------------------

    def restore(self, saved: SavedMap, held: bool = False) -> list[int]:
        """Take in a saved map beside what is there, with new keys, which are returned in the order
        of its keyframes; `held`: nothing moves it."""
        graph = self.graph
        assert graph is not None
        first_key, first_segment = self.next_key, self.next_segment
        for keyframe in saved.keyframes:
            here = keyframe.renumbered(first_key + keyframe.key, first_segment + keyframe.segment)
            self.store.add(here, saved.steps[keyframe.key])
            graph.place(here.key, saved.poses[keyframe.key], held)
            self._places.add(here.key, here.descriptors)
            self.next_key = max(self.next_key, here.key + 1)
            self.next_segment = max(self.next_segment, here.segment + 1)
        graph.join({first_segment + a: first_segment + b for a, b in saved.islands.items()})
        graph.loops += [
            loop.renumbered(first_key + loop.first, first_key + loop.second) for loop in saved.loops
        ]
        return [first_key + keyframe.key for keyframe in saved.keyframes]

    def saved(self, factor: float, metric: bool, keys: set[int] | None = None) -> SavedMap:
        """The map as it is put on disk, in output units.

        Args:
            factor: output units per unit of the map.
            metric: whether output units are metres.
            keys: keyframes that are kept; by default all.
        """
        kept = [each for each in self.store if keys is None or each.key in keys]
        names = {each.key for each in kept}
        loops = [] if self.graph is None else self.graph.loops
        grow = np.diag([factor, factor, factor, 1.0])
        return SavedMap(
            keyframes=kept,
            poses={each.key: grow @ self.pose(each.key) for each in kept},
            steps={each.key: self.store.steps(each.key) for each in kept},
            islands={each.segment: self.island(each.key) for each in kept},
            loops=[loop for loop in loops if loop.first in names and loop.second in names],
            metric=metric,
        )
