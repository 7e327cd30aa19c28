"""One tree of validated settings: the YAML files, the ROS parameters and the command line all come
from here.

Every field carries its description, unit and range once; documentation and ROS parameter
descriptors are rendered from it. Fields marked `runtime=True` may change while the node runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from flow3r_ros.errors import ConfigError, Flow3rError

RUNTIME: dict[str, Any] = {"runtime": True}

MAX_FILE_BYTES = 1 << 18
"""largest settings, manifest or camera file that is read; the largest of ours has 6 kB"""
MAX_NESTING = 50
"""most brackets open at once in such a file; ours have 4"""
MAX_VALUES = 20_000
"""most values in such a file, parts that YAML repeats by reference counted each time (ten lines
of those make a billion)"""


class Settings(BaseModel):
    """Base of every group: unknown keys are refused, assignments are validated."""

    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, protected_namespaces=(), allow_inf_nan=False
    )


class ModelSettings(Settings):
    """Which network runs, and where."""

    name: str = Field("flow3r_nano", description="model folder: a name under models/ or a path")
    device: str = Field(
        "auto", description="auto, cpu, cuda or cuda:N", pattern=r"^(auto|cpu|cuda(:\d+)?)$"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="arithmetic of the transformer; auto = bfloat16 where the device is fast at it",
    )
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="CPU threads of the network; 0 = half of the cores, geometry has the others",
    )
    compile: bool = Field(False, description="torch.compile for static shapes (CUDA)")


class EngineSettings(Settings):
    """Keyframes and the network's windows."""

    network: Literal["keyframes", "every_frame"] = Field(
        "keyframes",
        description="how often the network is asked: keyframes for a CPU; every_frame where a GPU "
        "answers within the time of a frame, for denser depth",
    )
    window: int = Field(
        0,
        ge=0,
        le=64,
        description="keyframes per forward, the newest included, at least 2; 0 = as the model's "
        "manifest says (`input.window`)",
    )
    keyframes: int = Field(
        120, ge=20, le=2000, description="keyframes remembered; the oldest go first"
    )
    keyframe_distance: float = Field(
        0.08, gt=0, le=1, description="way to a new keyframe, as a share of the median depth"
    )
    keyframe_angle: float = Field(6.0, gt=0, le=45, description="degrees of turn to a new keyframe")
    seam_min_inliers: float = Field(
        0.35, ge=0, le=1, description="inlier share below which a seam is refused"
    )
    seam_max_residual: float = Field(
        0.25, gt=0, description="robust residual, relative to depth, above which a seam is refused"
    )
    lost_after: int = Field(
        5, ge=1, description="frames without a trusted pose before the state is LOST"
    )

    @field_validator("window")
    @classmethod
    def _two_frames_at_least(cls, value: int) -> int:
        return _zero_or_from(2, value)


class TrackingSettings(Settings):
    """The front end."""

    corners: int = Field(320, ge=80, le=2000, description="corners followed at a time")
    depth_width: int = Field(
        0,
        ge=0,
        le=1280,
        description="width in pixels (of a 4:3 image) that depth is estimated at, at least 112; "
        "the height follows the aspect ratio; 0 = 336, or the width of the model's input where "
        "that is larger",
    )

    @field_validator("depth_width")
    @classmethod
    def _wide_enough(cls, value: int) -> int:
        return _zero_or_from(112, value)


def _zero_or_from(least: int, value: int) -> int:
    if 0 < value < least:
        raise ValueError(f"must be 0 (the model's own) or at least {least}")
    return value


class ScaleSettings(Settings):
    """What fixes the scale."""

    source: Literal["none", "fixed", "odometry", "camera_height"] = Field(
        "none",
        description="none: relative scale; fixed: multiply by `factor`; odometry: from the odom "
        "input; camera_height: from the ground plane",
    )
    factor: float = Field(
        1.0, gt=0, description="output units per network unit when source is fixed"
    )
    camera_height: float = Field(
        1.0, gt=0, description="metres from the ground to the camera when source is camera_height"
    )


class CloudSettings(Settings):
    """Clouds and the voxel map."""

    min_confidence: float = Field(
        0.08,
        ge=0,
        le=1,
        description="points below this confidence are left out of clouds and map; 0.08 is a "
        "relative sigma of 50 %",
        json_schema_extra=RUNTIME,
    )
    edge_ratio: float = Field(
        0.05,
        gt=0,
        description="relative depth jump in a 3x3 neighbourhood that marks a depth edge",
        json_schema_extra=RUNTIME,
    )
    voxel: float = Field(
        0.02,
        gt=0,
        description="map voxel edge, as a share of the median depth of the first keyframe (metres "
        "when scale is metric)",
    )
    max_voxels: int = Field(
        400_000,
        ge=1000,
        le=20_000_000,
        description="voxels kept; the least recently seen are evicted",
    )


class NodeSettings(Settings):
    """The ROS 2 node: frames, topics, quality of service."""

    image_transport: Literal["raw", "compressed"] = Field(
        "raw",
        description="raw: sensor_msgs/Image on `image`; compressed: CompressedImage on "
        "`image/compressed`, below what `image` is remapped to",
    )
    odom_frame: str = Field("odom", description="parent of the published tf edge")
    base_frame: str = Field(
        "",
        description="child of the published tf edge; empty = the camera itself; otherwise static "
        "extrinsics are read from /tf_static",
    )
    camera_frame: str = Field(
        "", description="optical frame name; empty = header.frame_id of the images"
    )
    publish_tf: bool = Field(True, description="publish the tf edge", json_schema_extra=RUNTIME)
    invert_tf: bool = Field(
        False, description="publish the edge the other way round, to sit beside another odometry"
    )
    points_frame: Literal["camera", "odom"] = Field("camera", description="frame of ~/points")
    max_path: int = Field(1000, ge=2, le=100_000, description="poses kept in ~/path")
    map_period: float = Field(2.0, gt=0, description="seconds between two ~/map messages")
    silence_timeout: float = Field(
        2.0,
        gt=0,
        description="seconds without images before diagnostics warn",
        json_schema_extra=RUNTIME,
    )
    image_qos: Literal["auto", "reliable", "best_effort"] = Field(
        "auto", description="reliability of the image subscription; auto follows the publisher"
    )
    output_qos: Literal["reliable", "best_effort"] = Field(
        "reliable", description="reliability of the outputs (REP-2003)"
    )
    save_dir: str = Field("~/.ros/flow3r", description="folder ~/save_map writes to")


class Config(Settings):
    """Everything that can be set."""

    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    tracking: TrackingSettings = TrackingSettings()
    scale: ScaleSettings = ScaleSettings()
    cloud: CloudSettings = CloudSettings()
    node: NodeSettings = NodeSettings()


def load_config(path: Path | None = None, overrides: dict[str, Any] | None = None) -> Config:
    """Read a YAML file (or the defaults) and apply dotted overrides such as `{"model.device":
    "cpu"}`.

    A ROS parameter file (`node_name: {ros__parameters: {...}}`) is accepted as well. Raises
    ConfigError naming the file and key.
    """
    tree: dict[str, Any] = {}
    where = str(path) if path else "settings"
    if path is not None:
        tree = _unwrap_ros(read_mapping(path, ConfigError, "start from config/node.yaml"))
    for dotted, value in (overrides or {}).items():
        _set_dotted(tree, dotted, value)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(
            f"{where}: {first_fault(error)}", "see docs/parameters.md for names and ranges"
        ) from error


def read_mapping(path: Path, refuse: type[Flow3rError], cure: str) -> dict[str, Any]:
    """The mapping at the top of a JSON (`.json`) or YAML file; an empty YAML file is an empty one.

    Not more than MAX_FILE_BYTES are read, not more than MAX_VALUES accepted. Raises `refuse`,
    naming the file, with `cure`, whatever is wrong with it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES >> 10} kB")
        text = data.decode("utf-8-sig")
        if _nesting(text) > MAX_NESTING:
            raise RecursionError
        tree = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text) or {}
        if _values(tree, {}) > MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES} values")
    except UnicodeDecodeError as error:
        raise refuse(f"{path}: is not UTF-8 text", cure) from error
    except RecursionError as error:
        raise refuse(f"{path}: is nested too deeply", cure) from error
    except OSError as error:
        raise refuse(f"{path}: cannot be read ({error.strerror})", cure) from error
    except (ValueError, OverflowError, yaml.YAMLError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        reason = " ".join(str(error).split())[:200]
        raise refuse(f"{path}: cannot be read as {kind} ({reason})", cure) from error
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise refuse(f"{path}: the top level is not a mapping of names", cure)
    return tree


def _nesting(text: str) -> int:
    """Most brackets open at once; asked before parsing, which takes seconds for thousands."""
    opened = most = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        opened += 1 if bracket in "[{" else -1
        most = max(most, opened)
    return most


def _values(tree: Any, known: dict[int, int]) -> int:
    """Values in a tree; a part that contains itself raises RecursionError."""
    if not isinstance(tree, (dict, list, tuple, set)):
        return 1
    if id(tree) not in known:
        parts = [*tree.keys(), *tree.values()] if isinstance(tree, dict) else list(tree)
        known[id(tree)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(tree)]


def first_fault(error: ValidationError) -> str:
    """The first thing pydantic found wrong, in one line: `group.name: what is wrong, got value`."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    given = first["input"]
    plain = isinstance(given, (bool, int, float, str)) and first["type"] != "extra_forbidden"
    got = repr(given if not isinstance(given, str) else given[:80]) if plain else ""
    return f"{key}: " * bool(key) + first["msg"] + f", got {got[:100]}" * plain


def _unwrap_ros(tree: dict[str, Any]) -> dict[str, Any]:
    """Return what stands under `ros__parameters`, if the file is a ROS parameter file; ROS-only
    keys are left to the node."""
    for value in tree.values():
        if isinstance(value, dict) and isinstance(value.get("ros__parameters"), dict):
            inner = dict(value["ros__parameters"])
            for ros_only in ("autostart", "use_sim_time"):
                inner.pop(ros_only, None)
            return inner
    return tree


def _set_dotted(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *groups, leaf = dotted.split(".")
    for group in groups:
        inner = tree.setdefault(group, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"{group}: is {inner!r:.80}, not a group of settings", f"write {dotted}: ..."
            )
        tree = inner
    tree[leaf] = value


def walk(settings: type[Settings] | None = None) -> Iterator[tuple[str, str, FieldInfo]]:
    """Yield (group, name, field) of every leaf in the order of declaration."""
    for group, field in (settings or Config).model_fields.items():
        annotation = field.annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, Settings)
        for name, leaf in annotation.model_fields.items():
            yield group, name, leaf


def is_runtime(field: FieldInfo) -> bool:
    """Whether the field may change while the node runs."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("runtime"))
