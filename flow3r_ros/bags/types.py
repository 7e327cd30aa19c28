"""The message types of bags: those of ROS 2 Jazzy plus our own, parsed from `msg/*.msg`, and `make`
for building them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from flow3r_ros.errors import BagError
from flow3r_ros.paths import shared_files


def message_folder() -> Path:
    """Folder of our `.msg` files: beside the package in a checkout, else `share/flow3r_ros/msg` of
    the installation."""
    for definition in shared_files("msg/TrackingStatus.msg"):
        return definition.parent
    raise BagError(
        "the message definitions msg/TrackingStatus.msg are not installed", "reinstall flow3r_ros"
    )


@lru_cache(maxsize=1)
def ros2_types() -> Typestore:
    """Typestore of ROS 2 Jazzy with `flow3r_ros/msg/*` registered."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for path in sorted(message_folder().glob("*.msg")):
        store.register(
            get_types_from_msg(path.read_text(encoding="utf-8"), f"flow3r_ros/msg/{path.stem}")
        )
    return store


@lru_cache(maxsize=1)
def ros1_types() -> Typestore:
    """Typestore of ROS 1 Noetic, for reading `.bag` files."""
    return get_typestore(Stores.ROS1_NOETIC)


def make(type_name: str, **fields: Any) -> Any:
    """A rosbags message object, as `wire.images.Make` describes."""
    return ros2_types().types[type_name](**fields)
