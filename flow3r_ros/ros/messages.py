"""`make("sensor_msgs/msg/Image", **fields)`: rclpy messages for the conversions in `wire`, filled
without copying large arrays.

The setters of generated Python messages check or copy every element of a sequence (22-59 ms for an
image given as ndarray); a contiguous buffer stored in the private slot is serialized by one memcpy.
That slot is undocumented, so it is tried once at start; where the bytes do not come out right (a
distribution whose `uint8[]` is another class) arrays go through the setters as `array.array`, which
every one takes (0.8 ms for an image of 640x480).
"""

from __future__ import annotations

from array import array
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray


def make(type_name: str, **fields: Any) -> Any:
    """A message of `package/msg/Name`; 1-D arrays for unbounded sequences are kept as the buffers
    they are, and an octet is given as an int."""
    message, sequences, octets = class_of(type_name)(), *_special_fields(type_name)
    for name, value in fields.items():
        if isinstance(value, np.ndarray) and name in sequences:
            (fill_slot if slots_work() else fill_field)(message, name, value)
        elif name in octets:
            setattr(message, name, bytes([value]))
        else:
            setattr(message, name, value.item() if isinstance(value, np.generic) else value)
    return message


def fill_slot(message: Any, name: str, value: NDArray[Any]) -> None:
    """Put an array into the private slot of an unbounded sequence, as the buffer it is."""
    setattr(message, f"_{name}", np.ascontiguousarray(value))


def fill_field(message: Any, name: str, value: NDArray[Any]) -> None:
    """Give an array to an unbounded sequence through its setter."""
    code = _TYPE_CODES[value.dtype.kind + str(value.dtype.itemsize)]
    setattr(message, name, array(code, np.ascontiguousarray(value).tobytes()))


_TYPE_CODES = {
    "u1": "B", "i1": "b", "u2": "H", "i2": "h", "u4": "I", "i4": "i", "u8": "Q", "i8": "q",
    "f4": "f", "f8": "d",
}  # fmt: skip
"""codes of `array.array`, which the setters insist on, by numpy's kind and size"""


@lru_cache(maxsize=1)
def slots_work() -> bool:
    """Whether arrays in private slots are serialized as through the setters."""
    from rclpy.serialization import deserialize_message, serialize_message

    kind, numbers = class_of("sensor_msgs/msg/Image"), np.arange(7, dtype=np.uint8)
    message = kind()
    try:
        fill_slot(message, "data", numbers)
        return bytes(deserialize_message(serialize_message(message), kind).data) == bytes(numbers)
    except Exception:  # whatever an unknown distribution makes of it
        return False


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
