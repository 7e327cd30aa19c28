"""What is done with maps that rest: two are joined, one is refined."""

from __future__ import annotations

from collections.abc import Callable

from flow3r_ros.errors import InputError
from flow3r_ros.geometry.lie import rigid_part
from flow3r_ros.slam.map import Search, SlamMap
from flow3r_ros.slam.pictures import RefineView
from flow3r_ros.slam.refine import Refined, refine
from flow3r_ros.slam.saved import SavedMap

MIN_LOOPS = 2
"""loops that two maps must have in common to be joined: nothing else can contradict the first"""


def merged(first: SavedMap, second: SavedMap) -> SavedMap:
    """Two maps as one, in the frame and unit of the first.

    Raises InputError where too few loops between them hold, ConfigError without GTSAM.
    """
    both = SlamMap(with_loops=True)
    here = set(both.restore(first))
    there = both.restore(second)
    home, found = both.island(min(here)), 0
    for key in there:
        found += both.close_loop(key, among=here) is Search.CLOSED
    if found < MIN_LOOPS:
        raise InputError(
            f"the maps have {found} places in common, {MIN_LOOPS} are needed ("
            f"{dict(both.refused) or 'nothing looks alike'})",
            "record a way through both",
        )
    joined = {key for key in here | set(there) if both.island(key) == home}
    return both.saved(1.0, first.metric, joined)


def refined(saved: SavedMap, say: Callable[[str], None]) -> tuple[SavedMap, Refined]:
    """A map whose keyframes are adjusted together, those of its largest connected part.

    Raises InputError where they have too little in common or cannot be made better, ConfigError
    without pycolmap.
    """
    keyframes = saved.largest_part()
    views = [
        RefineView(each.key, each.picture, each.camera, rigid_part(saved.poses[each.key]))
        for each in keyframes
    ]
    names = {each.key for each in keyframes}
    loops = [(loop.first, loop.second) for loop in saved.loops if loop.first in names]
    result = refine(views, loops, say)
    if not result.poses and result.points:
        raise InputError(
            "the map explains matches as well as its refinement", "it stays as it is: use it so"
        )
    if not result.poses:
        raise InputError("too few points are seen by several keyframes", "the map stays as it is")
    return saved.moved(result.poses, result.units({each.key: each for each in keyframes})), result
