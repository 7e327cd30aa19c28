"""What must hold of settings beyond the type and range of each one: which values a field leaves
out, and which settings contradict each other though each is allowed by itself.

`config` asks here whenever a tree of settings is made: from a file, the command line, or ROS.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from pydantic import AfterValidator

BELOW = (
    ("node.drop_share_warn", "node.drop_share_error"),
    ("node.age_warn", "node.age_error"),
    ("obstacles.min_height", "obstacles.max_height"),
)
"""pairs of which the first must be less than the second"""
AT_MOST = (("engine.window", "engine.keyframes"),)
"""pairs of which the first may not be more than the second"""


def zero_or_from(least: int) -> AfterValidator:
    """Allow 0, which stands for the model's own, and everything from `least` on."""

    def check(value: int) -> int:
        if 0 < value < least:
            raise ValueError(f"must be 0 (the model's own) or at least {least}")
        return value

    return AfterValidator(check)


def contradiction(config: object) -> str:
    """The first contradiction in a tree of settings, in one line: both names, their values and the
    cure; empty where there is none."""
    return next(_contradictions(config), "")


def _contradictions(config: object) -> Iterator[str]:
    def value(dotted: str) -> Any:
        return attrgetter(dotted)(config)

    for low, high in BELOW:
        if value(low) >= value(high):
            yield _out_of_order(low, "must be less than", high, value(low), value(high))
    for low, high in AT_MOST:
        if value(low) > value(high):
            yield _out_of_order(low, "may not be more than", high, value(low), value(high))
    with_map = value("slam.enabled")
    if value("slam.map") and not with_map:
        yield "slam.map is set, slam.enabled is not: set slam.enabled, or leave slam.map empty"
    if value("slam.mode") == "localisation" and not value("slam.map"):
        yield "slam.mode is localisation, slam.map is empty: name a map in slam.map"
    yield from _frames(value("node"), with_map)


def _out_of_order(low: str, rule: str, high: str, first: Any, second: Any) -> str:
    return f"{low} ({first}) {rule} {high} ({second}): lower the first or raise the second"


def _frames(node: Any, with_map: bool) -> Iterator[str]:
    """Edges of tf that no tree can have: from a frame to itself, or two to one frame."""
    names = {"node.odom_frame": node.odom_frame}
    if with_map:
        names["node.map_frame"] = node.map_frame
    child = "node.base_frame" if node.base_frame else "node.camera_frame"
    names[child] = node.base_frame or node.camera_frame
    known: dict[str, str] = {}
    for key, frame in names.items():
        if frame in known:
            yield f"{known[frame]} and {key} are both '{frame}': give one of them another name"
        known[frame] = key
    if with_map and node.invert_tf and node.publish_tf and node.publish_map_tf:
        yield (
            "node.invert_tf and slam.enabled each give node.odom_frame a parent in tf, which has "
            "one: switch off node.publish_map_tf, or node.invert_tf"
        )
