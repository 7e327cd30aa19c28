"""The map, at leisure: takes the odometry's keyframes in a thread of its own, looks for loops, and
says where the newest keyframe lies in the map.

`odom` never learns of it: what loops correct is `map -> odom` alone. Keyframes are taken in the
order they came, one after the other, so that the map is the same whenever the frames are.
"""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Semaphore

import numpy as np

from flow3r_ros.config import SlamSettings
from flow3r_ros.geometry.lie import invert, rigid, rigid_part
from flow3r_ros.odometry.finished import Finished
from flow3r_ros.slam.graph import BEND, GATE, KeyframeGraph
from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.slam.loops import Loop, verify
from flow3r_ros.slam.places import Places
from flow3r_ros.slam.store import KeyframeStore
from flow3r_ros.slam.thinning import most_redundant
from flow3r_ros.types import Float64

log = logging.getLogger(__name__)

RECENT_NS = 20_000_000_000
"""keyframes of the last 20 s are no loops: the odometry itself links them"""
CANDIDATES = 4
"""keyframes that are compared with a new one, those whose places are most alike"""
REST_AFTER_LOOP = 1
"""keyframes after one that closed a loop which look for none: they would say the same"""
MAX_WAITING = 16
"""keyframes that wait for the map; a caller with more waits, or leaves them out (`live`)"""


@dataclass(frozen=True)
class Located:
    """Where a keyframe lies: `S_map_cam` Sim(3) `[4, 4]` of its frame in the map; `T_odom_cam`
    `[4, 4]` in `odom`, odometry units; `island` number of the connected part of the map."""

    S_map_cam: Float64
    T_odom_cam: Float64
    island: int


@dataclass(frozen=True)
class MapState:
    """What is known of the map: where each keyframe of this run lies, by frame id, in their order;
    `closed` the number of loops, `refused` why others were not, `keyframes` their number,
    `left_out` those that came too fast for it; `changed_ns` the stamp at which `map -> odom`
    changed last."""

    located: dict[int, Located] = field(default_factory=dict)
    closed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    keyframes: int = 0
    left_out: int = 0
    changed_ns: int | None = None

    def map_to_odom(self, factor: float, offset: Float64) -> Float64 | None:
        """Pose `[4, 4]` of the optical world of `odom` in the map, output units, by the newest
        keyframe; None without one.

        Args:
            factor: output units per odometry unit.
            offset: `[3]` output units, where the origin of the odometry's unit lies in `odom`.
        """
        newest = next(reversed(self.located.values()), None)
        if newest is None:
            return None
        T = rigid_part(newest.S_map_cam)
        R = T[:3, :3] @ newest.T_odom_cam[:3, :3].T
        here = factor * newest.T_odom_cam[:3, 3] + offset
        return rigid(R, factor * T[:3, 3] - R @ here)

    def largest_part(self) -> dict[int, Float64]:
        """Sim(3) poses `[4, 4]` in the map, by frame id, of the keyframes of its largest connected
        part."""
        sizes = Counter(each.island for each in self.located.values())
        island = min(sizes, key=lambda each: (-sizes[each], each), default=None)
        return {id_: each.S_map_cam for id_, each in self.located.items() if each.island == island}


class Mapper:
    """Owns the keyframe store, the places, the graph (None where loops are not wanted) and the
    thread; a context manager that ends it. Between `take` and `finish` its thread alone touches
    them.

    Args:
        settings: `slam`.
        live: leave keyframes out that come faster than they can be taken in, instead of waiting.
    """

    def __init__(self, settings: SlamSettings, live: bool = False) -> None:
        self._settings = settings
        self._live = live
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="map")
        self._room = Semaphore(MAX_WAITING)
        self._waiting: list[Future[None]] = []
        self._begin()

    def _begin(self) -> None:
        self.store = KeyframeStore()
        self.graph = KeyframeGraph(self.store) if self._settings.enabled else None
        self._places = Places()
        self._keys: dict[int, int] = {}
        self._next_key = self._rest = self._closed = self._left_out = 0
        self._refused: Counter[str] = Counter()
        self._changed_ns: int | None = None
        self.state = MapState()

    def __enter__(self) -> Mapper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take in what waits and end the thread."""
        self._thread.shutdown(wait=True)

    def take(self, finished: Finished) -> None:
        """A keyframe of the odometry (its listener); returns at once while few wait."""
        if not self._room.acquire(blocking=not self._live):
            self._left_out += 1
            return
        self._waiting = [each for each in self._waiting if not each.done()]
        self._waiting.append(self._thread.submit(self._take, finished))

    def finish(self) -> MapState:
        """Wait until every keyframe is taken in; what is known then."""
        wait(self._waiting)
        self._waiting = []
        return self.state

    def reset(self) -> None:
        """Forget the map, and the keyframes that wait for it."""
        for future in self._waiting:
            if future.cancel():
                self._room.release()
        self.finish()
        self._begin()

    # --- in its thread ----------------------------------------------------------------------------

    def _take(self, finished: Finished) -> None:
        try:
            keyframe = MapKeyframe.of(finished, self._next_key, finished.segment)
            self._next_key += 1
            self._keys[keyframe.frame_id] = keyframe.key
            self._changed_ns = self._changed_ns or keyframe.stamp_ns
            self.store.add(keyframe)
            adjusted = {
                self._keys[id_]: pose for id_, pose in finished.adjusted.items()
                if id_ in self._keys
            }  # fmt: skip
            if self.graph is None:
                for key, pose in adjusted.items():
                    self.store.move(key, pose)
            else:
                self.graph.add(keyframe.key)
                self.graph.adjust(adjusted)
                self._look_for_loop(keyframe, self.graph)
                self._places.add(keyframe.key, keyframe.descriptors)
                self._stay_within(self.graph)
            self._tell()
        except Exception:
            log.exception("the map could not take in keyframe %d", finished.reference.view.id)
        finally:
            self._room.release()

    def _look_for_loop(self, keyframe: MapKeyframe, graph: KeyframeGraph) -> None:
        """Close one loop at most, with the candidate that is most alike and passes every gate."""
        self._rest = max(self._rest - 1, 0)
        if self._rest:
            return
        old = {
            each.key for each in self.store
            if each.segment != keyframe.segment or keyframe.stamp_ns - each.stamp_ns > RECENT_NS
        }  # fmt: skip
        for key in self._places.alike(keyframe.descriptors, old, CANDIDATES):
            beside = [self.store.before(key), self.store.after(key)]
            neighbours = [
                (each, invert(graph.poses[key]) @ graph.poses[each.key])
                for each in beside if each is not None
            ]  # fmt: skip
            loop = verify(self.store[key], keyframe, neighbours)
            reason = loop if isinstance(loop, str) else self._taken(loop, graph)
            if not reason:
                self._closed += 1
                self._changed_ns = keyframe.stamp_ns
                self._rest = REST_AFTER_LOOP + 1
                return
            self._refused[reason] += 1

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

    def _stay_within(self, graph: KeyframeGraph) -> None:
        """Thin the map to its bound."""
        while len(self.store) > self._settings.max_keyframes:
            key = most_redundant(self.store, graph)
            del self._keys[self.store[key].frame_id]
            graph.remove(key)
            self._places.remove(key)
            self.store.remove(key)

    def _tell(self) -> None:
        located = {
            each.frame_id: Located(
                each.T_odom_cam if self.graph is None else self.graph.poses[each.key],
                each.T_odom_cam,
                each.segment if self.graph is None else self.graph.island(each.key),
            )
            for each in self.store
        }
        self.state = MapState(
            located, self._closed, self._refused.copy(), len(self.store), self._left_out,
            self._changed_ns,
        )  # fmt: skip
