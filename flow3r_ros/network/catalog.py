"""Model folders on disk: where they lie, what their manifest says, and whether their files are what
the manifest promises.

A folder `models/NAME/` holds `config.json` (architecture), `manifest.yaml` and `model.safetensors`
(or the official `flow3r.bin`; an exported one ONNX graphs). Bundled folders lie in the repository
or under `share/flow3r_ros/models` of an install prefix, fetched, imported and exported ones in the
user's data folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flow3r_ros.errors import ModelError, cause_of
from flow3r_ros.mappings import first_fault, read_mapping
from flow3r_ros.network.calibration import Calibration
from flow3r_ros.network.config import Flow3rConfig, load_architecture
from flow3r_ros.paths import shared_files

logger = logging.getLogger(__name__)

WEIGHTS = ("model.safetensors", "flow3r.bin")
ENCODER, DECODER, FLOW = GRAPHS = ("encoder.onnx", "decoder.onnx", "flow.onnx")
"""graphs of an exported model; the last only where its flow head was exported"""
MODEL_FILES = {
    "config.json",
    "manifest.yaml",
    *WEIGHTS,
    *GRAPHS,
    *(f"{graph}.data" for graph in GRAPHS),
}
"""what a model folder of ours holds, and nothing else"""
MAX_PIXELS = 1 << 22
"""most pixels a manifest may ask for as the network's input, sixteen times the official one's"""
Side = Annotated[int, Field(ge=14, le=2048)]
CHECK_THE_LICENCE = "check the licence at the source before use"


class InputSpec(BaseModel):
    """What images a model expects.

    `resolution` is the (width, height) a 4:3 image is given; `pixels` the most pixels an input may
    have (default: the product), at whatever aspect ratio; `window` the frames it was trained on;
    `resample` the filter it was trained with.
    """

    model_config = ConfigDict(extra="forbid")
    resolution: tuple[Side, Side]
    pixels: int = Field(0, ge=0, le=MAX_PIXELS)
    window: int = Field(4, ge=1, le=64)
    resample: Literal["area", "lanczos"] = "area"

    def pixel_limit(self) -> int:
        """The most pixels of an input image."""
        return self.pixels or self.resolution[0] * self.resolution[1]


class Graphs(BaseModel):
    """What is known of exported ONNX graphs: the one input `size` (width, height) that they take,
    and the sha256 of every file (weights of a large graph lie in `.onnx.data` beside it)."""

    model_config = ConfigDict(extra="forbid")
    size: tuple[Side, Side]
    sha256: dict[str, str]

    @model_validator(mode="after")
    def _names_graphs(self) -> Graphs:
        if not {ENCODER, DECODER} <= self.sha256.keys() <= MODEL_FILES:
            raise ValueError(f"sha256 must name {ENCODER}, {DECODER} and files beside them")
        return self


class Manifest(BaseModel):
    """`manifest.yaml`: what is known about the weights, and nothing more; `sha256` is empty until
    the weights have been seen."""

    model_config = ConfigDict(extra="allow")
    name: str
    source: str
    license: str = CHECK_THE_LICENCE
    sha256: str = ""
    parameters: int
    input: InputSpec
    trained_on: str = ""
    metrics: dict[str, Any] = {}
    calibration: Calibration | None = None
    graphs: Graphs | None = None


@dataclass(frozen=True)
class ModelFolder:
    """One model folder; `weights` is None where they have not been fetched or imported yet, and the
    decoder's graph where graphs were exported."""

    path: Path
    manifest: Manifest
    weights: Path | None

    def architecture(self) -> Flow3rConfig:
        """The network's configuration. Raises ModelError naming `config.json`."""
        return load_architecture(self.path / "config.json")


def user_models() -> Path:
    """Where fetched and imported models are kept."""
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "flow3r" / "models"


def model_directories() -> list[Path]:
    """Existing folders that hold model folders, the user's own first."""
    return [path for path in (user_models(), *shared_files("models")) if path.is_dir()]


def model_name(name: str) -> str:
    """`name`, where it may name a folder below a models folder: letters, digits, `_ . -`, up to
    100, the first no dot. Raises ModelError for any other."""
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", name) is None:
        raise ModelError(
            f"{name[:100]!r} cannot name a model",
            "give --name with letters, digits, _ . and - only, not starting with a dot",
        )
    return name


def why_kept(path: Path) -> str:
    """Why an existing folder may not be replaced by a model folder; empty for one of ours."""
    try:
        read_folder(path)
        other = sorted({entry.name for entry in path.iterdir()} - MODEL_FILES)
    except (ModelError, OSError):
        return "is not a model folder of ours (it holds no manifest.yaml)"
    return f"holds files that are not ours ({other[0]}, {len(other)} in all)" if other else ""


def find_model(name_or_path: str | Path) -> ModelFolder:
    """The model folder of a name or path; one that has its weights is preferred. Raises ModelError
    saying what exists."""
    try:
        path = Path(name_or_path).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{str(name_or_path)[:100]}: cannot be looked up ({error!s:.80})", "give another name"
        ) from error
    if is_folder:
        return read_folder(path)
    if is_file:
        raise ModelError(
            f"{path}: is a file, not a model folder",
            f"make one of it with: flow3r models import {path}",
        )
    if len(path.parts) == 1:
        named = [read_folder(folder) for folder in _folders() if folder.name == path.name]
        if named:
            return next((folder for folder in named if folder.weights), named[0])
    known = ", ".join(sorted({folder.name for folder in _folders()})) or "none"
    raise ModelError(
        f"{name_or_path}: no such model (known: {known})",
        "see flow3r models list, or give the path of a model folder",
    )


def list_models() -> list[ModelFolder]:
    """Every readable model folder, by name; of several with one name, the one that would be
    used."""
    found = []
    for name in sorted({folder.name for folder in _folders()}):
        try:
            found.append(find_model(name))
        except ModelError as error:
            logger.warning("left out: %s", error)
    return found


def read_folder(path: Path) -> ModelFolder:
    """Read the manifest of a model folder. Raises ModelError naming the file and the first bad
    key."""
    manifest_path = path / "manifest.yaml"
    cure = "restore the manifest from the model's source, or import the weights again"
    try:
        manifest = Manifest.model_validate(read_mapping(manifest_path, ModelError, cure))
    except ValidationError as error:
        raise ModelError(f"{manifest_path}: {first_fault(error)}", cure) from error
    names = WEIGHTS if manifest.graphs is None else (DECODER,)
    weights = next((path / name for name in names if (path / name).is_file()), None)
    return ModelFolder(path, manifest, weights)


def describe(folder: ModelFolder) -> dict[str, Any]:
    """Everything `flow3r models info` shows, ready for JSON."""
    return {
        **folder.manifest.model_dump(mode="json"),
        "path": str(folder.path),
        "weights": str(folder.weights) if folder.weights else None,
        "license_note": licence_note(folder.manifest),
    }


def licence_note(manifest: Manifest) -> str:
    """One line about the licence of the weights, never claiming more than the manifest knows."""
    known = manifest.license not in ("", CHECK_THE_LICENCE)
    return (
        f"licence of the weights: {manifest.license}"
        if known
        else f"licence of the weights: not known for sure, {CHECK_THE_LICENCE}"
    )


def verify(folder: ModelFolder) -> str:
    """Check the weights file against the manifest and return its sha256. Raises ModelError naming
    the file and the cure."""
    if folder.weights is None:
        cure = "fetch them with: flow3r models fetch, or: flow3r models import FILE"
        raise ModelError(f"{folder.path}: holds no weights ({' or '.join(WEIGHTS)})", cure)
    graphs = folder.manifest.graphs
    for name, expected in (graphs.sha256 if graphs else {}).items():
        _check_digest(folder.path / name, expected, "export it again: flow3r models export")
    return _check_digest(folder.weights, folder.manifest.sha256, "fetch or import it again")


def _check_digest(path: Path, expected: str, again: str) -> str:
    digest = file_sha256(path)
    if expected and digest != expected:
        what = f"{path}: sha256 {digest[:12]}... differs from the manifest's {expected[:12]}..."
        raise ModelError(what, f"the file is damaged or was replaced: {again}")
    return digest


def file_sha256(path: Path) -> str:
    """sha256 of a file in hexadecimal. Raises ModelError where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return (
                hashlib.file_digest(stream, "sha256").hexdigest()
                if sys.version_info >= (3, 11)
                else _digest(stream)
            )
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({cause_of(error)})", "check the path and its permissions"
        ) from error


def _digest(stream: Any) -> str:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _folders() -> Iterator[Path]:
    for directory in model_directories():
        yield from (
            path
            for path in sorted(directory.iterdir())
            if (path / "manifest.yaml").is_file() and not path.name.startswith(".")
        )
