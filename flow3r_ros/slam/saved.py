"""A map that rests: what is put on disk and taken from there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flow3r_ros.geometry.lie import sim3, sim3_parts
from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.slam.loops import Loop
from flow3r_ros.types import Float64


@dataclass(frozen=True)
class SavedMap:
    """A map as it lies on disk: `keyframes` in order; Sim(3) `poses` `[4, 4]` in the map and
    `steps` of the odometry from the one before, by key; `islands` the connected part by segment;
    `loops`; `metric` whether its unit is the metre."""

    keyframes: list[MapKeyframe]
    poses: dict[int, Float64]
    steps: dict[int, int]
    islands: dict[int, int]
    loops: list[Loop]
    metric: bool

    def moved(self, poses: Mapping[int, Float64], units: Mapping[int, float]) -> SavedMap:
        """The same with keyframes at other rigid poses `[4, 4]`, by key; `units` is what their
        depth is multiplied by, as before where it does not say."""
        new = dict(self.poses)
        for key, pose in poses.items():
            scale, _, _ = sim3_parts(new[key])
            new[key] = sim3(units.get(key, scale), pose[:3, :3], pose[:3, 3])
        return replace(self, poses=new)

    def largest_part(self) -> list[MapKeyframe]:
        """Keyframes of its largest connected part."""
        sizes = Counter(self.islands[each.segment] for each in self.keyframes)
        island = min(sizes, key=lambda each: (-sizes[each], each))
        return [each for each in self.keyframes if self.islands[each.segment] == island]
