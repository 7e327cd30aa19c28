"""`make("sensor_msgs/msg/Image", **fields)`: rclpy messages for the conversions in `wire`, filled
without copying large arrays.

The setters of generated Python messages check or copy every element of a sequence (22-59 ms for an
image given as ndarray); a contiguous buffer stored in the private slot is serialized by one memcpy.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np


def make(type_name: str, **fields: Any) -> Any:
    """A message of `package/msg/Name`; 1-D arrays for unbounded sequences are kept as the buffers
    they are, and an octet is given as an int."""
    message, sequences, octets = class_of(type_name)(), *_special_fields(type_name)
    for name, value in fields.items():
        if isinstance(value, np.ndarray) and name in sequences:
            setattr(message, f"_{name}", np.ascontiguousarray(value))
        elif name in octets:
            setattr(message, name, bytes([value]))
        else:
            setattr(message, name, value.item() if isinstance(value, np.generic) else value)
    return message


@lru_cache(maxsize=64)
def class_of(type_name: str) -> Any:
    """The rclpy class of `package/msg/Name` or `package/srv/Name`."""
    package, kind, name = type_name.split("/")
    return getattr(import_module(f"{package}.{kind}"), name)


@lru_cache(maxsize=64)
def _special_fields(type_name: str) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the unbounded sequences, and of the octets."""
    fields = class_of(type_name).get_fields_and_field_types().items()
    return (
        frozenset(field for field, text in fields if text.startswith("sequence<")),
        frozenset(field for field, text in fields if text == "octet"),
    )
