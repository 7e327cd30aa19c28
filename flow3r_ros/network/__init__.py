"""The Flow3r transformer (torch): configuration, model, weights on disk, and the runner that the
rest of the house sees.

What stands here is imported when it is first asked for: to list models and read their manifests
takes no torch, which needs seconds to load.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flow3r_ros.network.checkpoint import load_model
    from flow3r_ros.network.config import Flow3rConfig
    from flow3r_ros.network.model import Flow3r

__all__ = ["Flow3r", "Flow3rConfig", "load_model"]

_HOMES = {"Flow3r": "model", "Flow3rConfig": "config", "load_model": "checkpoint"}
"""name -> module below this one"""


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
