"""The map, at leisure: takes the odometry's keyframes in a thread of its own, looks for loops, and
says where the newest keyframe lies in the map.

`odom` never learns of it: what loops correct is `map -> odom` alone. Keyframes are taken in the
order they came, one after the other, so that the map is the same whenever the frames are.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Semaphore
from time import thread_time
from typing import Any

import numpy as np

from flow3r_ros.config import SlamSettings
from flow3r_ros.errors import InputError
from flow3r_ros.geometry.lie import rigid, sim3_parts
from flow3r_ros.odometry.finished import Finished
from flow3r_ros.slam.disk import load_map
from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.slam.loops import Loop
from flow3r_ros.slam.map import Search, SlamMap
from flow3r_ros.slam.saved import SavedMap
from flow3r_ros.types import Float64

log = logging.getLogger(__name__)

REST_AFTER_LOOP = 1
"""keyframes after one that closed a loop which look for none: they would say the same, where the
map grows and the odometry is settled"""
MAX_WAITING = 16
"""keyframes that wait for the map; a caller with more waits, or leaves them out (`live`)"""
LOCAL = 40
"""keyframes of its own that a run keeps which only localises in a saved map"""
KEPT = (
    "map", "_saved", "_of_saved", "_first_segment", "_cuts", "_keys", "_rest", "_left_out",
    "_changed_ns", "busy_s",
)  # fmt: skip
"""what a run that is gone on with needs to know again"""


@dataclass(frozen=True)
class Located:
    """Where a keyframe lies: `S_map_cam` Sim(3) `[4, 4]` of its frame in the map; `T_odom_cam`
    `[4, 4]` in `odom`, odometry units; `island` number of the connected part of the map;
    `in_saved` whether that is the map that was loaded, whose unit is its own."""

    S_map_cam: Float64
    T_odom_cam: Float64
    island: int
    in_saved: bool = False

    def in_run_units(self, factor: float) -> Float64:
        """`S_map_cam` for a map whose unit is the odometry's, `factor` output units each."""
        if not self.in_saved:
            return self.S_map_cam
        return np.asarray(np.diag([1.0 / factor] * 3 + [1.0]) @ self.S_map_cam)


@dataclass(frozen=True)
class MapState:
    """What is known of the map: where each keyframe of this run lies, by frame id, in their order;
    `closed` the number of loops, `refused` why others were not, `keyframes` their number,
    `left_out` those that came too fast for it; `changed_ns` the stamp at which `map -> odom`
    changed last; `loops` the frame ids of those that still hold between keyframes of this run;
    `localises` whether it lies in the map only where it was found in the one that was loaded."""

    located: dict[int, Located] = field(default_factory=dict)
    closed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    keyframes: int = 0
    left_out: int = 0
    changed_ns: int | None = None
    loops: tuple[tuple[int, int], ...] = ()
    localises: bool = False

    def map_to_odom(self, factor: float, offset: Float64, centre: Float64) -> Float64 | None:
        """Pose `[4, 4]` of the optical world of `odom` in the map, output units, by the newest
        keyframe; None without one, and while a run that only localises is not found.

        The way since that keyframe counts in the unit that the map gives it: where that differs
        from the unit of `odom`, the edge moves with the camera, which lies right in the map.

        Args:
            factor: output units per odometry unit.
            offset: `[3]` output units, where the origin of the odometry's unit lies in `odom`.
            centre: `[3]` output units, where the camera is in `odom`.
        """
        newest = next(reversed(self.located.values()), None)
        if newest is None or (self.localises and not newest.in_saved):
            return None
        scale, R, t = sim3_parts(newest.in_run_units(factor))
        R = R @ newest.T_odom_cam[:3, :3].T
        way = centre - offset - factor * newest.T_odom_cam[:3, 3]
        return rigid(R, factor * t + scale * R @ way - R @ centre)

    def largest_part(self, factor: float = 1.0) -> dict[int, Float64]:
        """Sim(3) poses `[4, 4]` in the map, by frame id, of the keyframes of its largest connected
        part, or of the one that was loaded; `factor` output units per odometry unit."""
        sizes = Counter(each.island for each in self.located.values())
        islands = {each.island for each in self.located.values() if each.in_saved} or set(sizes)
        island = min(islands, key=lambda each: (-sizes[each], each), default=None)
        return {
            id_: each.in_run_units(factor)
            for id_, each in self.located.items()
            if each.island == island
        }


class Mapper:
    """Owns the map and the thread that changes it; a context manager that ends it. `busy_s` is the
    CPU time that thread has taken.

    Args:
        settings: `slam`. Raises InputError for a `slam.map` that cannot be loaded, ConfigError
            where GTSAM is missing.
        live: leave keyframes out that come faster than they can be taken in, instead of waiting.
    """

    def __init__(self, settings: SlamSettings, live: bool = False) -> None:
        self._settings = settings
        self._live = live
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="map")
        self._room = Semaphore(MAX_WAITING)
        self._epoch = 0
        self._begin(load_map(Path(settings.map).expanduser()) if settings.map else None)

    def _begin(self, saved: SavedMap | None) -> None:
        """An empty map, or a saved one."""
        self._saved = saved
        self.map = SlamMap(self._settings.enabled)
        self._of_saved: set[int] = set()
        if saved is not None and self._settings.enabled:
            self._of_saved = set(self.map.restore(saved, self._localises))
        self._first_segment = self.map.next_segment
        self._keys: dict[int, int] = {}
        self._rest = self._left_out = self._cuts = 0
        self.busy_s = 0.0
        self._changed_ns: int | None = None
        self._tell()

    @property
    def _localises(self) -> bool:
        return self._settings.mode == "localisation"

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
        self._thread.submit(self._take, finished, self._epoch)

    def finish(self) -> MapState:
        """Wait until every keyframe is taken in; what is known then."""
        return self._thread.submit(lambda: self.state).result()

    def reset(self) -> None:
        """Begin anew, with the saved map where one was loaded; keyframes that wait are left out."""
        self._restart(self._saved)

    def load(self) -> int:
        """Begin anew with the map that `slam.map` names, and say how many keyframes it has. Raises
        InputError where it cannot be loaded; then the map stays as it is."""
        if not self._settings.map:
            raise InputError("slam.map names no map", "set it to the folder of one")
        saved = load_map(Path(self._settings.map).expanduser())
        self._restart(saved)
        return len(saved.keyframes)

    def _restart(self, saved: SavedMap | None) -> None:
        self._epoch += 1
        self._thread.submit(self._begin, saved).result()

    def own_keyframes(self) -> list[MapKeyframe]:
        """The keyframes of this run, in order, once all are taken in."""
        keys = self._thread.submit(lambda: list(self._keys.values())).result()
        return [self.map.store[key] for key in keys]

    def evidence(self) -> list[tuple[int, int, Loop]]:
        """The loops that hold between keyframes of this run, once all are taken in: frame ids and
        what speaks for each."""
        known, frame = self._thread.submit(self._known_loops).result()
        return [(frame[loop.first], frame[loop.second], loop) for loop in known]

    def snapshot(self, factor: float, metric: bool) -> SavedMap:
        """The map to put on disk, once every keyframe is taken in; while localising the one that
        was loaded. `factor` output units per odometry unit, metres when `metric`.

        Raises InputError for an empty map.
        """
        return self._thread.submit(self._snapshot, factor, metric).result()

    def remembered(self) -> dict[str, Any]:
        """Everything there is to `restore` once every keyframe is taken in, as objects that pickle:
        the mapper's own, so write them before the next keyframe comes."""
        return self._thread.submit(lambda: {name: vars(self)[name] for name in KEPT}).result()

    def restore(self, remembered: Mapping[str, Any]) -> None:
        """Go on from what `remembered` gave."""
        self._thread.submit(self._restore, remembered).result()

    # --- in its thread ----------------------------------------------------------------------------

    def _restore(self, remembered: Mapping[str, Any]) -> None:
        vars(self).update({name: remembered[name] for name in KEPT})
        self._tell()

    def _snapshot(self, factor: float, metric: bool) -> SavedMap:
        if self._saved is not None and self._localises:
            return self._saved
        if not len(self.map.store):
            raise InputError("there is no map yet", "wait until frames are tracked")
        if self._saved is None:
            return self.map.saved(factor, metric)
        return self.map.saved(1.0, self._saved.metric)  # in the unit of the map that was loaded

    def _take(self, finished: Finished, epoch: int) -> None:
        begun = thread_time()
        try:
            if epoch != self._epoch:  # of before a restart
                return
            segment = self._first_segment + finished.segment + self._cuts
            keyframe = MapKeyframe.of(finished, self.map.next_key, segment)
            self._keys[keyframe.frame_id] = keyframe.key
            self._changed_ns = self._changed_ns or keyframe.stamp_ns
            adjusted = {
                self._keys[id_]: pose
                for id_, pose in finished.adjusted.items()
                if id_ in self._keys
            }
            self.map.add(keyframe, adjusted)
            self._rest = max(self._rest - 1, 0)
            found = Search.NOTHING if self._rest else self.map.close_loop(keyframe.key)
            if found is Search.CLOSED:
                self._changed_ns = keyframe.stamp_ns
                self._rest = REST_AFTER_LOOP + 1 if self._may_rest(keyframe.key) else 0
            elif found is Search.CONTRADICTED and self._localises:
                self._cut_off(keyframe)
            self._stay_within()
            self._tell()
        except Exception:
            log.exception("the map could not take in keyframe %d", finished.reference.view.id)
        finally:
            self.busy_s += thread_time() - begun
            self._room.release()

    def _cut_off(self, keyframe: MapKeyframe) -> None:
        """A keyframe that the saved map contradicts: where it lies is not known until it, or one
        after it, is recognised anew. Its odometry may turn wrong by half a degree a frame while
        every corner agrees, as with the first, guessed depth of a run."""
        log.info("frame %d: the saved map contradicts where it lies", keyframe.frame_id)
        self._cuts += 1
        self._forget(keyframe.key)
        apart = keyframe.renumbered(self.map.next_key, keyframe.segment + 1)
        self._keys[apart.frame_id] = apart.key
        self._changed_ns = apart.stamp_ns
        self.map.add(apart, {})
        self.map.close_loop(apart.key)

    def _may_rest(self, key: int) -> bool:
        """Whether the odometry carries what the loop of a keyframe said to the next one as well as
        another loop would."""
        graph = self.map.graph
        return not self._localises and graph is not None and graph.is_settled(key)

    def _stay_within(self) -> None:
        """Thin the map to its bound; while localising, forget old keyframes of this run."""
        while self._localises and len(self._keys) > LOCAL:
            self._forget(next(iter(self._keys.values())))
        while self.map.graph is not None and len(self.map.store) > self._settings.max_keyframes:
            self._forget(self.map.most_redundant())

    def _forget(self, key: int) -> None:
        self._keys = {id_: other for id_, other in self._keys.items() if other != key}
        self._of_saved.discard(key)
        self.map.remove(key)

    def _tell(self) -> None:
        saved_islands = {self.map.island(key) for key in self._of_saved}
        located = {}
        for id_, key in self._keys.items():
            island, pose = self.map.island(key), self.map.pose(key)
            located[id_] = Located(
                pose, self.map.store[key].T_odom_cam, island, island in saved_islands
            )
        known, frame = self._known_loops()
        loops = tuple((frame[loop.first], frame[loop.second]) for loop in known)
        self.state = MapState(
            located, self.map.closed, self.map.refused.copy(), len(self.map.store),
            self._left_out, self._changed_ns, loops, self._localises,
        )  # fmt: skip

    def _known_loops(self) -> tuple[list[Loop], dict[int, int]]:
        """The loops between keyframes of this run, and the frame id of each key."""
        frame = {key: id_ for id_, key in self._keys.items()}
        loops = [] if self.map.graph is None else self.map.graph.loops
        return [each for each in loops if each.first in frame and each.second in frame], frame
