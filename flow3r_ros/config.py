"""One tree of validated settings: the YAML files, the ROS parameters and the command line all come
from here.

Every field carries its description, unit and range once; documentation and ROS parameter
descriptors are rendered from it. Fields marked `runtime=True` may change while the node runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from flow3r_ros.errors import ConfigError
from flow3r_ros.mappings import first_fault, read_mapping, set_dotted, unwrap_ros
from flow3r_ros.setting_checks import contradiction, zero_or_from

RUNTIME: dict[str, Any] = {"runtime": True}


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
        0, ge=0, le=256, description="CPU threads of the network; 0 = half of the cores"
    )
    compile: bool = Field(False, description="torch.compile for static shapes (CUDA)")
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto", description="onnxruntime's, for an exported model; auto = cuda where it has it"
    )


class EngineSettings(Settings):
    """Keyframes and the network's windows."""

    network: Literal["keyframes", "every_frame"] = Field(
        "keyframes",
        description="how often the network is asked: keyframes for a CPU; every_frame where a GPU "
        "answers within the time of a frame, for denser depth",
    )
    window: Annotated[int, zero_or_from(2)] = Field(
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


class TrackingSettings(Settings):
    """The front end."""

    corners: int = Field(320, ge=80, le=2000, description="corners followed at a time")
    imu: bool = Field(
        True,
        description="let a sensor_msgs/Imu whose frame /tf_static knows help with turns and level",
    )
    depth_width: Annotated[int, zero_or_from(112)] = Field(
        0,
        ge=0,
        le=1280,
        description="width in pixels (of a 4:3 image) that depth is estimated at, at least 112; "
        "the height follows the aspect ratio; 0 = 336, or the width of the model's input where "
        "that is larger",
    )


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


class DepthSettings(Settings):
    """The depth of a frame."""

    min_confidence: float = Field(
        0.2,
        ge=0,
        le=1,
        description="depth below this confidence (the probability that it is right within 10 %) is "
        "NaN, in the depth image, clouds and map alike; 0 = keep all",
        json_schema_extra=RUNTIME,
    )


class CloudSettings(Settings):
    """Clouds and the voxel map."""

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


class SlamSettings(Settings):
    """The map beyond the window."""

    enabled: bool = Field(
        False,
        description="keep a keyframe graph, close loops, publish map -> odom; needs the extra "
        "`slam` (GTSAM)",
    )
    map: str = Field(
        "",
        description="folder of a saved map to be found in; empty = none; ~/load_map reads it anew",
        json_schema_extra=RUNTIME,
    )
    mode: Literal["mapping", "localisation"] = Field(
        "mapping",
        description="mapping: the map grows; localisation: the one of slam.map stays as it is",
    )
    max_keyframes: int = Field(
        500,
        ge=50,
        le=5000,
        description="keyframes of the map (0.4 MB each); beyond it those go that see what others "
        "see",
    )


class NodeSettings(Settings):
    """The ROS 2 node: frames, topics, quality of service."""

    image_transport: Literal["raw", "compressed"] = Field(
        "raw",
        description="raw: sensor_msgs/Image on `image`; compressed: CompressedImage on "
        "`image/compressed`, below what `image` is remapped to",
    )
    odom_frame: str = Field("odom", min_length=1, description="parent of the published tf edge")
    map_frame: str = Field("map", min_length=1, description="parent of odom_frame (slam.enabled)")
    base_frame: str = Field(
        "",
        description="child of the published tf edge; empty = the camera itself; otherwise static "
        "extrinsics are read from /tf_static",
    )
    camera_frame: str = Field(
        "", description="optical frame name; empty = header.frame_id of the images"
    )
    publish_tf: bool = Field(True, description="publish the tf edge", json_schema_extra=RUNTIME)
    publish_map_tf: bool = Field(
        True,
        description="publish map_frame -> odom_frame when slam.enabled",
        json_schema_extra=RUNTIME,
    )
    invert_tf: bool = Field(
        False, description="publish the edge the other way round, to sit beside another odometry"
    )
    tf_predict: float = Field(
        0.0,
        ge=0,
        le=0.2,
        description="seconds that the tf edge is carried ahead by the measured velocity, and "
        "stamped so, for planners that ask for the present; 0: the edge of the image",
        json_schema_extra=RUNTIME,
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
    idle_rate: float = Field(
        5.0,
        ge=0,
        le=1000,
        description="images a second that are estimated while nobody subscribes to anything (tf "
        "counts while it is published); 0: all of them",
        json_schema_extra=RUNTIME,
    )
    drop_share_warn: float = Field(
        0.3,
        ge=0,
        le=1,
        description="share of the last images not estimated from which diagnostics warn",
        json_schema_extra=RUNTIME,
    )
    drop_share_error: float = Field(
        0.8,
        ge=0,
        le=1,
        description="share of the last images not estimated from which diagnostics call it an "
        "error",
        json_schema_extra=RUNTIME,
    )
    age_warn: float = Field(
        0.5,
        gt=0,
        description="seconds from an image's stamp to its result from which diagnostics warn",
        json_schema_extra=RUNTIME,
    )
    age_error: float = Field(
        2.0,
        gt=0,
        description="seconds from an image's stamp to its result from which diagnostics call it an "
        "error",
        json_schema_extra=RUNTIME,
    )
    image_qos: Literal["auto", "reliable", "best_effort"] = Field(
        "auto", description="reliability of the image subscription; auto follows the publisher"
    )
    output_qos: Literal["reliable", "best_effort"] = Field(
        "reliable", description="reliability of the outputs (REP-2003)"
    )
    save_dir: str = Field("~/.ros/flow3r", description="folder ~/save_map writes to")


class ObstacleSettings(Settings):
    """`~/obstacles`, in metres of `node.base_frame`."""

    min_height: float = Field(
        0.1, description="lowest point that is an obstacle, above it", json_schema_extra=RUNTIME
    )
    max_height: float = Field(
        2.0, description="highest point that is an obstacle", json_schema_extra=RUNTIME
    )
    max_range: float = Field(
        5.0,
        gt=0,
        description="horizontal distance up to which points are obstacles",
        json_schema_extra=RUNTIME,
    )
    min_confidence: float = Field(
        0.3,
        ge=0,
        le=1,
        description="points below this confidence are no obstacles",
        json_schema_extra=RUNTIME,
    )


class Config(Settings):
    """Everything that can be set."""

    model: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    tracking: TrackingSettings = TrackingSettings()
    scale: ScaleSettings = ScaleSettings()
    depth: DepthSettings = DepthSettings()
    cloud: CloudSettings = CloudSettings()
    slam: SlamSettings = SlamSettings()
    node: NodeSettings = NodeSettings()
    obstacles: ObstacleSettings = ObstacleSettings()

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Config:
        if fault := contradiction(self):
            raise ValueError(fault)
        return self


def load_config(path: Path | None = None, overrides: dict[str, Any] | None = None) -> Config:
    """Read a YAML file (or the defaults) and apply dotted overrides such as `{"model.device":
    "cpu"}`.

    A ROS parameter file (`node_name: {ros__parameters: {...}}`) is accepted as well. Raises
    ConfigError naming the file and key.
    """
    tree: dict[str, Any] = {}
    where = str(path) if path else "settings"
    if path is not None:
        tree = unwrap_ros(read_mapping(path, ConfigError, "start from config/node.yaml"))
    for dotted, value in (overrides or {}).items():
        set_dotted(tree, dotted, value)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(
            f"{where}: {first_fault(error)}", "see docs/parameters.md for names and ranges"
        ) from error


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
