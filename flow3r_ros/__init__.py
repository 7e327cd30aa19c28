"""Flow3r for robots: poses, dense depth and point clouds from one monocular camera.

As a library (docs/python.md): `Engine`, `load_model`, `Frame`, `Camera`, `open_source`, `run` and a
few types stand here. Each is imported when it is first asked for, so `import flow3r_ros` costs
nothing and torch is loaded by `load_model` and `run` alone.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flow3r_ros.config import Config, load_config
    from flow3r_ros.datasets.sources import open_source
    from flow3r_ros.errors import Flow3rError
    from flow3r_ros.geometry.camera_file import load_camera
    from flow3r_ros.library import load_model, run
    from flow3r_ros.odometry.engine import Engine
    from flow3r_ros.types import Camera, Estimate, Frame, TrackingState, Window

# The messages generated from msg/ may be installed elsewhere (site-packages, a colcon overlay):
# `flow3r_ros.msg` is found there too.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"

__all__ = [
    "Camera",
    "Config",
    "Engine",
    "Estimate",
    "Flow3rError",
    "Frame",
    "TrackingState",
    "Window",
    "load_camera",
    "load_config",
    "load_model",
    "open_source",
    "run",
]

_HOMES = {
    "config": ("Config", "load_config"),
    "datasets.sources": ("open_source",),
    "errors": ("Flow3rError",),
    "geometry.camera_file": ("load_camera",),
    "library": ("load_model", "run"),
    "odometry.engine": ("Engine",),
    "types": ("Camera", "Estimate", "Frame", "TrackingState", "Window"),
}
"""module below this one -> what of it stands here"""


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
