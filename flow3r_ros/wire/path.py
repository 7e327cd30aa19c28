"""`nav_msgs/Path` straight as CDR bytes: a pose is packed once, when it joins the path.

As message objects, a path of a thousand poses costs several milliseconds of attribute access for
every image; joining packed poses costs some microseconds. rclpy publishes such bytes as they are,
and a bag stores them.
"""

from __future__ import annotations

import struct
from collections import deque
from itertools import islice

from flow3r_ros.geometry.lie import quaternion_from_matrix
from flow3r_ros.types import Float64
from flow3r_ros.wire.transforms import NANOSECONDS

_LITTLE_ENDIAN = b"\0\1\0\0"
"""encapsulation header of CDR (OMG DDSI-RTPS 10.2); alignment counts from behind it"""
_POSE_BYTES = 7 * 8


class PathBytes:
    """The last `longest` poses in `frame_id`.

    A pose is its header (stamp and frame), a gap up to a multiple of 8, position and quaternion as
    float64. The gap depends on where the pose begins: every pose ends on a multiple of 8, so only
    the first one has another.
    """

    def __init__(self, frame_id: str, longest: int) -> None:
        name = frame_id.encode("utf-8") + b"\0"
        self._frame = struct.pack("<I", len(name)) + name
        self._poses: deque[bytes] = deque(maxlen=longest)

    def __len__(self) -> int:
        return len(self._poses)

    def append(self, ns: int, T: Float64) -> None:
        """Add the rigid `[4, 4]` of the stamp `ns`."""
        header = self._header(ns)
        pose = struct.pack("<7d", *T[:3, 3], *quaternion_from_matrix(T[:3, :3]))
        self._poses.append(header + _gap(len(header), 8) + pose)

    def message(self, ns: int) -> bytes:
        """The path as of stamp `ns`."""
        header = self._header(ns)
        start = header + _gap(len(header), 4) + struct.pack("<I", len(self._poses))
        if not self._poses:
            return _LITTLE_ENDIAN + start
        first = self._poses[0]
        start += first[: len(header)]
        return b"".join(
            (
                _LITTLE_ENDIAN,
                start,
                _gap(len(start), 8),
                first[-_POSE_BYTES:],
                *islice(self._poses, 1, None),
            )
        )

    def _header(self, ns: int) -> bytes:
        return struct.pack("<iI", ns // NANOSECONDS, ns % NANOSECONDS) + self._frame


def _gap(length: int, alignment: int) -> bytes:
    return bytes(-length % alignment)
