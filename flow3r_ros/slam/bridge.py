"""Pictures that nothing places, between others that are: where a smooth motion would have them.

What an occluding wall or a blur hides from three pictures is no reason for a hole in the way, and
is not measured either: whoever uses such poses has to say so.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np

from flow3r_ros.geometry.lie import interpolate
from flow3r_ros.types import Float64

MOST = 3
"""pictures in a row that are bridged at most"""


def bridged(ids: Sequence[int], poses: Mapping[int, Float64]) -> dict[int, Float64]:
    """Poses `[4, 4]`, by frame id, of the pictures among `ids` (increasing) without one in `poses`
    that lie between others: turned evenly, and moved along the cubic through the two before and
    the two after, straight where there are not as many."""
    known = [at for at, id_ in enumerate(ids) if id_ in poses]
    found: dict[int, Float64] = {}
    for at, id_ in enumerate(ids):
        after = bisect_left(known, at)
        if id_ in poses or after in (0, len(known)):
            continue
        if known[after] - known[after - 1] > MOST + 1:
            continue
        near = [ids[each] for each in known[max(after - 2, 0) : after + 2]]
        first, last = ids[known[after - 1]], ids[known[after]]
        pose = interpolate(poses[first], poses[last], (id_ - first) / (last - first))
        if len(near) == 4 and near[-1] - near[0] <= 3 * (last - first):
            pose[:3, 3] = _lagrange(near, np.stack([poses[each][:3, 3] for each in near]), id_)
        found[id_] = pose
    return found


def _lagrange(times: Sequence[int], places: Float64, time: int) -> Float64:
    """The polynomial through `places` `[N, 3]` at `times`, at another time."""
    weights = [
        np.prod([(time - other) / (each - other) for other in times if other != each])
        for each in times
    ]
    return np.asarray(np.array(weights) @ places)
