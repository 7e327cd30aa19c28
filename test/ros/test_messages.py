"""Both ways of filling a sequence give the same message."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message

from flow3r_ros.ros import messages
from flow3r_ros.ros.messages import class_of, fill_field, fill_slot, slots_work

SEQUENCES = {
    "sensor_msgs/msg/Image": ("data", np.uint8),
    "flow3r_ros/msg/FactoredFlow": ("flow", np.float32),
    "flow3r_ros/msg/TrackingStatus": ("window", np.uint64),
    "sensor_msgs/msg/CameraInfo": ("d", np.float64),
}


@pytest.mark.parametrize("type_name", SEQUENCES)
def test_the_slot_and_the_setter_give_the_same_message(type_name: str) -> None:
    name, dtype = SEQUENCES[type_name]
    built = []
    for fill in (fill_slot, fill_field):
        built.append(class_of(type_name)())
        fill(built[-1], name, np.arange(200).astype(dtype)[::2])
    assert slots_work(), "the fast path of Jazzy"
    read = [deserialize_message(serialize_message(message), type(message)) for message in built]
    assert list(getattr(read[0], name)) == list(np.arange(200)[::2])
    assert read[0] == read[1]


def test_where_the_slot_does_not_work_messages_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a distribution whose `uint8[]` is a class that takes no buffer (Lyrical)."""
    fields = dict(height=2, width=5, encoding="mono8", step=5, data=np.arange(10, dtype=np.uint8))
    fast = messages.make("sensor_msgs/msg/Image", **fields)

    def refused(message: Any, name: str, value: Any) -> None:
        raise TypeError(f"{name} is no buffer")

    monkeypatch.setattr(messages, "fill_slot", refused)
    slots_work.cache_clear()
    try:
        assert not slots_work(), "found out by trying, once"
        slow = messages.make("sensor_msgs/msg/Image", **fields)
    finally:
        monkeypatch.undo()
        slots_work.cache_clear()
    assert serialize_message(slow) == serialize_message(fast)
