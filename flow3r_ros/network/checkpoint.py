"""Weights in and out: safetensors, or the official `flow3r.bin` through
`torch.load(weights_only=True)` only.

Every way a file can be wrong (missing, truncated, another shape, a pickle that wants to run code,
not finite) ends in a one-line ModelError that names the file and the cure.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flow3r_ros.errors import ModelError, OutputError, printable
from flow3r_ros.network.catalog import (
    InputSpec,
    Manifest,
    ModelFolder,
    file_sha256,
    find_model,
    licence_note,
    model_name,
    user_models,
    verify,
    why_kept,
)
from flow3r_ros.network.config import Flow3rConfig, load_architecture, preset
from flow3r_ros.network.flow_head import FlowHead
from flow3r_ros.network.licences import concern
from flow3r_ros.network.model import Flow3r
from flow3r_ros.paths import OutputFolder, readable

logger = logging.getLogger(__name__)


def load_model(
    name_or_path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Flow3r:
    """The network of a model folder, ready for inference; name, source and licence of the weights
    are logged.

    Args:
        name_or_path: a name under one of the models folders, or the path of a model folder.
        device: where the weights go.
        dtype: arithmetic of the transformer (float32 or bfloat16); norms, heads, poses and RoPE
            angles stay float32.

    Raises:
        ModelError: naming the file and the cure.
    """
    return load_folder(find_model(name_or_path), device, dtype)


def load_folder(
    folder: ModelFolder, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Flow3r:
    """As `load_model`, for a folder already found; the weights are checked against the manifest's
    sha256 first."""
    verify(folder)
    assert folder.weights is not None
    model = build(folder.architecture(), read_weights(folder.weights), folder.weights)
    if dtype != torch.float32:
        model.lower_precision(dtype)
    logger.log(
        logging.WARNING if concern(folder.manifest.license) else logging.INFO,
        "model %s: %s; source: %s",
        folder.manifest.name,
        licence_note(folder.manifest),
        folder.manifest.source,
    )
    return model.to(device).eval()


def verify_model(name_or_path: str | Path) -> str:
    """Check hash, architecture, keys, shapes and values of a model; one line for people. Raises
    ModelError naming the file."""
    folder = find_model(name_or_path)
    digest = verify(folder)
    assert folder.weights is not None
    build(folder.architecture(), read_weights(folder.weights), folder.weights)
    checked = "sha256 as in the manifest" if folder.manifest.sha256 else "manifest has no sha256"
    return (
        f"{folder.manifest.name}: {checked} ({digest[:12]}...), fits its architecture; "
        f"{licence_note(folder.manifest)}"
    )


def build(config: Flow3rConfig, weights: Mapping[str, Tensor], origin: Path) -> Flow3r:
    """The network of `config` with `weights`; a Pi3 checkpoint (only the flow head missing) is
    accepted with a warning.

    Raises ModelError naming `origin` when keys or shapes differ or values are not finite.
    """
    with torch.device("meta"):
        model = Flow3r(config)
    expected = model.state_dict()
    missing = sorted(expected.keys() - weights.keys())
    unexpected = sorted(weights.keys() - expected.keys())
    wrong = sorted(
        key for key in expected.keys() & weights.keys() if expected[key].shape != weights[key].shape
    )
    without_flow = (
        bool(missing)
        and all(key.startswith("flow_head.") for key in missing)
        and not any("flow_head." in key for key in weights)
    )
    if wrong or unexpected or (missing and not without_flow):
        what = (
            f"{wrong[0]} has shape {list(weights[wrong[0]].shape)}, not "
            f"{list(expected[wrong[0]].shape)}"
            if wrong
            else f"{len(missing)} tensors missing, {len(unexpected)} unexpected (first: "
            f"{(missing or unexpected)[0]})"
        )
        raise ModelError(
            f"{origin}: does not fit the architecture {config.name}: {what}",
            "use the config.json that belongs to these weights",
        )
    broken = next(
        (
            key
            for key, value in weights.items()
            if value.is_floating_point() and not bool(torch.isfinite(value).all())
        ),
        None,
    )
    if broken is not None:
        raise ModelError(
            f"{origin}: {broken} is not finite",
            "the training diverged or the file is damaged: use another checkpoint",
        )
    if without_flow:
        logger.warning(
            "%s: has no flow head (a Pi3 checkpoint); factored flow is untrained until "
            "you train it",
            origin,
        )
        model.flow_head = FlowHead(config.point_decoder.width, config.flow_head)
    model.load_state_dict(
        {key: value.float() for key, value in weights.items()}, strict=False, assign=True
    )
    return model


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a `.safetensors` or `.bin`/`.pt`/`.pth` file on the CPU. Raises ModelError
    naming the file and the cure."""
    if path.suffix == ".onnx":
        raise ModelError(
            f"{path}: is an exported graph, which runs but cannot be trained or changed",
            "give the model that it was exported from (`source` in its manifest)",
        )
    if path.is_dir():
        raise ModelError(f"{path}: is a folder", "give the weights file in it")
    if not path.is_file():
        raise ModelError(
            f"{path}: does not exist", "fetch it with: flow3r models fetch, or give the right path"
        )
    again = "the file is truncated or damaged: fetch or export it again"
    try:
        if path.suffix == ".safetensors":
            tensors: dict[str, Tensor] = load_file(path)
            return tensors
        return _state_dict(
            torch.load(path, map_location="cpu", weights_only=True, mmap=False), path
        )
    except SafetensorError as error:
        raise ModelError(
            f"{path}: is not a valid safetensors file ({_first_line(error)})", again
        ) from error
    except pickle.UnpicklingError as error:
        cure = (
            "refused, because loading it could run code: convert it to safetensors where "
            "you trust it"
        )
        raise ModelError(f"{path}: holds more than plain tensors, or is damaged", cure) from error
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
        UnicodeDecodeError,
    ) as error:
        words = _first_line(error)
        said = f" ({words})" if " " in words else ""
        raise ModelError(f"{path}: cannot be read as PyTorch weights{said}", again) from error


def save_model_folder(
    folder: Path, model: Flow3r, manifest: Manifest, replace: bool = False
) -> ModelFolder:
    """Write a deployable model folder; it appears complete or not at all.

    `sha256` and `parameters` of the manifest are filled in here. Raises OutputError where the
    folder cannot be written or exists; with `replace`, an older model folder of ours makes room,
    anything else that stands there still stays.
    """
    weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    return write_folder(folder, model.config, weights, manifest, replace)


def write_folder(
    folder: Path,
    config: Flow3rConfig,
    weights: Mapping[str, Tensor],
    manifest: Manifest,
    replace: bool = False,
) -> ModelFolder:
    """As `save_model_folder`, from a state dict."""
    with OutputFolder(folder, why_kept if replace else None) as unfinished:
        _fill(unfinished.path, config, weights, manifest)
    return find_model(folder)


def _fill(
    folder: Path, config: Flow3rConfig, weights: Mapping[str, Tensor], manifest: Manifest
) -> None:
    """The three files of a model folder. Raises OutputError and OSError."""
    try:
        with readable(folder / "model.safetensors"):
            save_file(dict(weights), folder / "model.safetensors")
    except SafetensorError as error:
        raise OutputError(
            f"{folder}: cannot be written ({_first_line(error)})", "free space or choose another"
        ) from error
    (folder / "config.json").write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")
    parameters = sum(
        value.numel() for key, value in weights.items() if key not in ("image_mean", "image_std")
    )
    known = {"sha256": file_sha256(folder / "model.safetensors"), "parameters": parameters}
    write_manifest(folder, manifest.model_copy(update=known))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.yaml` into `folder`."""
    text = yaml.safe_dump(
        manifest.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120
    )
    (folder / "manifest.yaml").write_text(text, encoding="utf-8")


def import_model(
    file: Path, name: str | None = None, directory: Path | None = None, replace: bool = False
) -> ModelFolder:
    """Make a model folder of a weights file: the official `flow3r.bin` (or a Pi3 one), or
    safetensors with a `config.json` beside it.

    The weights are checked against the architecture and stored as safetensors under `directory`
    (default: the user's models folder), in a folder of the name given or, failing that, of the one
    in `config.json`; `replace` as in `save_model_folder`. Raises ModelError naming the file and
    the cure, OutputError where the folder cannot be written.
    """
    beside = file.parent / "config.json"
    config = load_architecture(beside) if beside.is_file() else preset("large")
    named = model_name(name if name is not None else config.name)
    folder = (directory or user_models()) / named
    with OutputFolder(folder, why_kept if replace else _asks_for_replace) as unfinished:
        model = build(config, read_weights(file), file)
        manifest = Manifest(
            name=named,
            source=f"imported from {printable(file.name)} (sha256 {file_sha256(file)})",
            parameters=0,
            input=InputSpec(resolution=(574, 434), pixels=255000, window=8, resample="lanczos"),
        )
        if (file.parent / "manifest.yaml").is_file():
            manifest = find_model(file.parent).manifest.model_copy(update={"name": named})
        weights = {key: value.contiguous() for key, value in model.state_dict().items()}
        _fill(unfinished.path, config, weights, manifest)
    return find_model(folder)


def _asks_for_replace(folder: Path) -> str:
    return why_kept(folder) or "is replaced with --replace only"


def _state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Unwrap `{"model": ...}` or `{"state_dict": ...}`."""
    for wrapper in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if (
        not isinstance(loaded, dict)
        or not loaded
        or not all(isinstance(value, Tensor) for value in loaded.values())
    ):
        raise ModelError(
            f"{path}: is not a state dict of tensors", "export the model's state_dict() alone"
        )
    return loaded


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
