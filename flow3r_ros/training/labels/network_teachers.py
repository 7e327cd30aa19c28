"""Flow teachers that are networks: RAFT through torchvision, UFM through its own package. The user
brings package and weights."""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from flow3r_ros.errors import TrainingError
from flow3r_ros.geometry.correspondence import agreement
from flow3r_ros.training.labels.clips import Clip, FlowLabel
from flow3r_ros.training.labels.teacher import MIN_COVISIBLE, need_weights
from flow3r_ros.types import Float32, UInt8


class RaftTeacher:
    """RAFT-large (Teed and Deng 2020) both ways; covisible where forward and backward flow meet."""

    name = "raft"

    def __init__(
        self, weights: str | Path | None = None, width: int = 448, device: str = "cpu"
    ) -> None:
        path = need_weights("raft", weights, "torchvision raft_large, state dict")
        self.width, self.device, self._sha = width, device, _file_hash(path)
        optical_flow = _package("raft", "torchvision.models.optical_flow", "torchvision")
        self._network = optical_flow.raft_large(weights=None).to(device).eval()
        try:
            self._network.load_state_dict(torch.load(path, map_location=device, weights_only=True))
        except (RuntimeError, OSError, ValueError) as error:
            raise TrainingError(
                f"{path}: not the weights of raft_large", "give a torchvision raft_large state dict"
            ) from error

    @property
    def identity(self) -> dict[str, Any]:
        """Name, working width, hash of the weights."""
        return {"name": self.name, "width": self.width, "weights_sha256": self._sha}

    def flow(self, clip: Clip, i: int, j: int) -> FlowLabel:
        """See `FlowTeacher.flow`."""
        a, b = (_resized(clip.rgb[index], self.width, 8) for index in (i, j))
        with torch.inference_mode():
            images = [
                torch.from_numpy(image).to(self.device).permute(2, 0, 1)[None].float() / 127.5 - 1
                for image in (a, b)
            ]
            forward = (
                self._network(torch.cat(images), torch.cat(images[::-1]))[-1]
                .permute(0, 2, 3, 1)
                .float()
                .cpu()
                .numpy()
            )
        covisibility = agreement(forward[0], forward[1])
        return FlowLabel(forward[0], covisibility, covisibility, _too_far(covisibility))


class UfmTeacher:
    """UFM (the paper's teacher): flow and covisibility from one forward; weights are a local folder
    in the package's format."""

    name = "ufm"

    def __init__(
        self, weights: str | Path | None = None, width: int = 560, device: str = "cpu"
    ) -> None:
        path = need_weights("ufm", weights, "UFM-Base of the uniflowmatch authors")
        self.width, self.device, self._sha = width, device, _file_hash(path)
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


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    for file in (
        [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    ):
        digest.update(file.read_bytes())
    return digest.hexdigest()
