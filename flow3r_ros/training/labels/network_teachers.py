"""Flow teachers that are networks: RAFT through torchvision, SEA-RAFT by our own lines, UFM through
its own package. The user brings weights (and package); `license` is what their papers say."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from flow3r_ros.errors import TrainingError
from flow3r_ros.geometry.correspondence import agreement
from flow3r_ros.training.labels.clips import Clip, FlowLabel
from flow3r_ros.training.labels.sea_raft import sea_raft_of, sureness
from flow3r_ros.training.labels.teacher import MIN_COVISIBLE, need_weights
from flow3r_ros.types import Float32, UInt8

LEAST = 128
"""shortest side in pixels: the correlation pyramid of RAFT halves an eighth of it three times"""
TwoWays = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""pictures `[2, 3, H, W]` in [-1, 1], and the same in the other order -> flow `[2, 2, H, W]` in
pixels and, where the network says so, how sure it is `[2, 1, H, W]`"""


class RaftTeacher:
    """RAFT-large (Teed and Deng 2020) both ways; covisible where forward and backward flow meet."""

    name = "raft"

    def __init__(
        self,
        weights: str | Path | None = None,
        width: int = 448,
        device: str = "cpu",
        license: str = "",
    ) -> None:
        path = need_weights("raft", weights, "torchvision raft_large, state dict")
        self.width, self.device, self._sha = width, device, _file_hash(path)
        self.license = license
        optical_flow = _package("raft", "torchvision.models.optical_flow", "torchvision")
        self._network = optical_flow.raft_large(weights=None).to(device).eval()
        state = _state_of(path)
        theirs = {key.removeprefix("module.") for key in state}
        try:
            self._network.load_state_dict(state)
        except RuntimeError as error:
            cure = "give a torchvision raft_large state dict"
            if "update_block.gru.convz1.weight" in theirs:
                cure += "; this is the authors' own file, torchvision has the same weights"
            raise TrainingError(f"{path}: not the weights of raft_large", cure) from error

    @property
    def identity(self) -> dict[str, Any]:
        """Name, working width, hash of the weights."""
        return {"name": self.name, "width": self.width, "weights_sha256": self._sha}

    def flow(self, clip: Clip, i: int, j: int) -> FlowLabel:
        """See `FlowTeacher.flow`."""
        return _two_ways(lambda a, b: (self._network(a, b)[-1], None), clip, i, j, self)


class SeaRaftTeacher:
    """SEA-RAFT (Wang, Lipson and Deng 2024) both ways; covisible where forward and backward flow
    meet, confident where the network's own uncertainty is small.

    Args:
        weights: a checkpoint of the authors (`.pth`, or `model.safetensors` of Hugging Face); its
            size is read off it.
        iterations: refinements; the authors take 4 for S and M, 12 for L.
    """

    name = "sea_raft"

    def __init__(
        self,
        weights: str | Path | None = None,
        width: int = 448,
        device: str = "cpu",
        iterations: int = 4,
        license: str = "",
    ) -> None:
        where = "github.com/princeton-vl/SEA-RAFT, such as Tartan-C-T-TSKH-spring540x960-M"
        path = need_weights("sea_raft", weights, where)
        self.width, self.device, self._sha = width, device, _file_hash(path)
        self.iterations, self.license = iterations, license
        try:
            self._network = sea_raft_of(_state_of(path), iterations).to(device)
        except ValueError as error:
            raise TrainingError(
                f"{path}: not the weights of SEA-RAFT ({error})", f"take a checkpoint of {where}"
            ) from error

    @property
    def identity(self) -> dict[str, Any]:
        """Name, working width, iterations, hash of the weights."""
        return {
            "name": self.name,
            "width": self.width,
            "iterations": self.iterations,
            "weights_sha256": self._sha,
        }

    def flow(self, clip: Clip, i: int, j: int) -> FlowLabel:
        """See `FlowTeacher.flow`."""

        def run(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            flow, mixture = self._network(a, b)
            return flow, sureness(mixture)

        return _two_ways(run, clip, i, j, self)


class UfmTeacher:
    """UFM (the paper's teacher): flow and covisibility from one forward; weights are a local folder
    in the package's format."""

    name = "ufm"

    def __init__(
        self,
        weights: str | Path | None = None,
        width: int = 560,
        device: str = "cpu",
        license: str = "",
    ) -> None:
        path = need_weights("ufm", weights, "UFM-Base of the uniflowmatch authors")
        self.width, self.device, self._sha = width, device, _file_hash(path)
        self.license = license
        package = _package(
            "ufm", "uniflowmatch.models.ufm", "uniflowmatch (from its authors' repository)"
        )
        self._network = package.UniFlowMatchConfidence.from_pretrained(str(path)).to(device).eval()

    @property
    def identity(self) -> dict[str, Any]:
        """Name, working width, hash of the weights."""
        return {"name": self.name, "width": self.width, "weights_sha256": self._sha}

    def flow(self, clip: Clip, i: int, j: int) -> FlowLabel:
        """See `FlowTeacher.flow`."""
        a, b = (torch.from_numpy(_resized(clip.rgb[index], self.width, 14)) for index in (i, j))
        with torch.inference_mode():
            result = self._network.predict_correspondences_batched(source_image=a, target_image=b)
        displacement = result.flow.flow_output[0].permute(1, 2, 0).float().cpu().numpy()
        covisibility = result.covisibility.mask[0].float().cpu().numpy()
        return FlowLabel(displacement, covisibility, covisibility, _too_far(covisibility))


def _two_ways(
    run: TwoWays, clip: Clip, i: int, j: int, teacher: RaftTeacher | SeaRaftTeacher
) -> FlowLabel:
    """Both directions in one batch, and what they say of each other."""
    pictures = [_resized(clip.rgb[index], teacher.width, 8) for index in (i, j)]
    if min(pictures[0].shape[:2]) < LEAST:
        raise TrainingError(
            f"flow teacher {teacher.name}: width {teacher.width} makes pictures of "
            f"{pictures[0].shape[1]}x{pictures[0].shape[0]}, it needs {LEAST} a side",
            "raise the width in teacher_options",
        )
    pair = torch.from_numpy(np.stack(pictures)).to(teacher.device).permute(0, 3, 1, 2)
    pair = pair.float() / 127.5 - 1
    with torch.inference_mode():
        flow, sure = run(pair, pair.flip(0))
    forward, backward = flow.permute(0, 2, 3, 1).float().cpu().numpy()
    covisibility = agreement(forward, backward)
    confidence = covisibility if sure is None else covisibility * sure[0, 0].float().cpu().numpy()
    return FlowLabel(forward, covisibility, confidence, _too_far(covisibility))


def _too_far(covisibility: Float32) -> str:
    return "too_large_motion" if float(np.mean(covisibility > 0.5)) < MIN_COVISIBLE else ""


def _resized(rgb: UInt8, width: int, multiple: int) -> UInt8:
    h, w = rgb.shape[:2]
    columns = max(multiple, round(width / multiple) * multiple)
    rows = max(multiple, round(columns * h / w / multiple) * multiple)
    return np.asarray(cv2.resize(rgb, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


def _package(teacher: str, module: str, install: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise TrainingError(
            f"flow teacher {teacher}: {module} is not installed", f"install {install}"
        ) from error
    except (RuntimeError, OSError) as error:  # built for another torch, or for CUDA beside a CPU's
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"flow teacher {teacher}: {module} does not fit this torch {torch.__version__} "
            f"({reason})",
            f"install the {install} that was built for it, or use --teacher sea_raft",
        ) from error


def _state_of(path: Path) -> dict[str, Tensor]:
    """A state dict, from torch or safetensors. Raises TrainingError where there is none."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("it holds other things than weights")
        return dict(state)
    except (RuntimeError, OSError, ValueError, EOFError, AttributeError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    except pickle.UnpicklingError:
        reason = "it is no plain state dict"
    except SafetensorError as error:
        reason = str(error)
    raise TrainingError(f"{path}: cannot be read as weights ({reason})", "download the file again")


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    for file in (
        [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    ):
        digest.update(file.read_bytes())
    return digest.hexdigest()
