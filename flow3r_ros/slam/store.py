"""The keyframes of a map in the order they came, each with its neighbours in its segment."""

from __future__ import annotations

from collections.abc import Iterator

from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.types import Float64


class KeyframeStore:
    """Owns the keyframes of a map and how many steps of the odometry lie between neighbours."""

    def __init__(self) -> None:
        self._keyframes: dict[int, MapKeyframe] = {}
        self._before: dict[int, int] = {}
        self._after: dict[int, int] = {}
        self._steps: dict[int, int] = {}
        self._last: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._keyframes)

    def __iter__(self) -> Iterator[MapKeyframe]:
        return iter(self._keyframes.values())

    def __contains__(self, key: int) -> bool:
        return key in self._keyframes

    def __getitem__(self, key: int) -> MapKeyframe:
        return self._keyframes[key]

    def add(self, keyframe: MapKeyframe, steps: int = 1) -> None:
        """Take in a keyframe after the last one of its segment, `steps` of the odometry on."""
        key = keyframe.key
        before = self._last.get(keyframe.segment)
        self._keyframes[key], self._steps[key] = keyframe, steps
        self._last[keyframe.segment] = key
        if before is not None:
            self._before[key], self._after[before] = before, key

    def move(self, key: int, T_odom_cam: Float64) -> None:
        """The odometry has adjusted a keyframe's pose `[4, 4]`."""
        self._keyframes[key] = self._keyframes[key].at(T_odom_cam)

    def remove(self, key: int) -> None:
        """Let a keyframe go; its neighbours become neighbours of each other."""
        gone = self._keyframes.pop(key)
        before, after = self._before.pop(key, None), self._after.pop(key, None)
        steps = self._steps.pop(key)
        if after is not None:
            self._steps[after] += steps
            del self._before[after]
        if before is not None:
            del self._after[before]
        if before is not None and after is not None:
            self._before[after], self._after[before] = before, after
        if self._last[gone.segment] == key:
            if before is None:
                del self._last[gone.segment]
            else:
                self._last[gone.segment] = before

    def before(self, key: int) -> MapKeyframe | None:
        """The keyframe before one, in its segment."""
        other = self._before.get(key)
        return None if other is None else self._keyframes[other]

    def after(self, key: int) -> MapKeyframe | None:
        """The keyframe after one, in its segment."""
        other = self._after.get(key)
        return None if other is None else self._keyframes[other]

    def steps(self, key: int) -> int:
        """Keyframes of the odometry from the one before to this one: more than one where some were
        let go."""
        return self._steps[key]

    def age(self, key: int, most: int) -> int:
        """Keyframes that its segment had when it came, itself included, counted up to `most`."""
        age, at = 0, self[key]
        while age < most:
            age += self._steps[at.key]
            before = self.before(at.key)
            if before is None:
                break
            at = before
        return min(age, most)
