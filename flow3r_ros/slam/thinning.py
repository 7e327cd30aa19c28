"""Which keyframe can the map do without? The one that sees most nearly what another one sees."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flow3r_ros.geometry.lie import sim3_parts
from flow3r_ros.odometry.mapping import ADJUSTED
from flow3r_ros.slam.store import KeyframeStore
from flow3r_ros.types import Float64

LOOP_WORTH = 2.0
"""factor on the distance of a keyframe that a loop hangs on: loops go last"""


def most_redundant(
    store: KeyframeStore,
    pose: Callable[[int], Float64],
    island_of: Callable[[int], int],
    looped: set[int],
) -> int:
    """Key of the keyframe whose nearest neighbour in the map is nearest, in median depths and rad.

    Those that the odometry still adjusts stay, and the first and last of each segment while there
    are others.

    Args:
        pose: Sim(3) `[4, 4]` of a key in the map; `island_of` the connected part it lies in.
        looped: keys that a loop hangs on.
    """
    keyframes = list(store)
    parts = [sim3_parts(pose(each.key)) for each in keyframes]
    places = np.stack([t for _, _, t in parts])
    facing = np.stack([R[:, 2] for _, R, _ in parts])
    depth = np.array(
        [scale * each.median_depth for (scale, _, _), each in zip(parts, keyframes, strict=True)]
    )
    island = np.array([island_of(each.key) for each in keyframes])
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) / depth[:, None]
    apart += np.arccos(np.clip(facing @ facing.T, -1.0, 1.0))
    apart[island[:, None] != island[None]] = np.inf
    np.fill_diagonal(apart, np.inf)
    nearest = apart.min(axis=1) * [LOOP_WORTH if each.key in looped else 1.0 for each in keyframes]
    settled = keyframes[: max(len(keyframes) - ADJUSTED, 1)]
    inner = [
        at for at, each in enumerate(settled) if store.before(each.key) and store.after(each.key)
    ]
    choice = inner or range(len(settled))
    return keyframes[min(choice, key=lambda at: (nearest[at], at))].key
