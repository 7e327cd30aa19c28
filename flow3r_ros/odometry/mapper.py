"""Keyframes and what is known between them: remembered, adjusted, triangulated again.

Poses that the network won at the gate are left alone by the adjustment too.
"""

from __future__ import annotations

from flow3r_ros.odometry.assist import Assist, Track
from flow3r_ros.odometry.bundle import Bundle
from flow3r_ros.odometry.completion import refresh_depth
from flow3r_ros.odometry.views import View, ViewBuffer
from flow3r_ros.types import PoseSource

BUNDLE = 6
"""keyframes whose links count in an adjustment"""
ADJUSTED = 3
"""newest keyframes whose poses an adjustment may move"""
REFRESHED = 2
"""newest keyframes whose depth is triangulated anew afterwards"""


class Mapper:
    """Adds keyframes to the buffer and keeps the bundle of links between them."""

    def __init__(self, buffer: ViewBuffer, assist: Assist) -> None:
        self.bundle = Bundle()
        self._buffer = buffer
        self._assist = assist
        self._left_alone: set[int] = set()

    def clear(self) -> None:
        """Forget all links."""
        self.bundle.clear()
        self._left_alone.clear()

    def remember(self, view: View, track: Track | None, source: PoseSource) -> None:
        """Take in a new keyframe; with links, adjust the newest poses and triangulate again.
        Changes poses and depth in place."""
        forgotten = self._buffer.add_keyframe(view)
        keyframes = self._buffer.keyframes
        if not self._assist.settings.enabled:
            return
        if forgotten is not None:
            self.bundle.remember(forgotten, keyframes[:-1])
        links = () if track is None else track.links
        self._assist.remember(view, links)
        self.bundle.add(view, {link.reference.id: link.correspondence for link in links}, keyframes)
        if source is PoseSource.NETWORK:
            self._left_alone.add(view.id)
        self._left_alone &= {keyframe.id for keyframe in keyframes}
        settled = {keyframe.id for keyframe in keyframes[: max(len(keyframes) - ADJUSTED, 1)]}
        if self.bundle.adjust(keyframes, settled | self._left_alone):
            for keyframe in keyframes[-REFRESHED:]:
                refresh_depth(
                    keyframe, self.bundle.links_of(keyframe.id), keyframes[-REFRESHED - 1 :]
                )
