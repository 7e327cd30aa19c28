"""Run our network on a golden set: `python -m test.network.reference DIR NAME` prints max abs
differences as one JSON object.

DIR holds `NAME_config.json` (the authors' layout), `NAME.safetensors` and `NAME_io.safetensors`
(`images`, `pair_indices`, the five outputs). Nothing about sizes, frames or pairs is assumed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from flow3r_ros.network.config import load_architecture
from flow3r_ros.network.model import Flow3r

OUTPUTS = ("points", "local_points", "conf", "camera_poses", "flow")


def load(folder: Path, name: str) -> tuple[Flow3r, dict[str, torch.Tensor]]:
    """The network of a golden set with its weights, and its stored tensors."""
    model = Flow3r(load_architecture(folder / f"{name}_config.json"))
    model.load_state_dict(load_file(folder / f"{name}.safetensors"), strict=True)
    return model.eval(), load_file(folder / f"{name}_io.safetensors")


def differences(folder: Path, name: str) -> dict[str, float]:
    """Max abs difference per output; inf where ours is missing or of another shape."""
    model, stored = load(folder, name)
    with torch.inference_mode():
        out = model(stored["images"], stored.get("pair_indices"))
    result = {}
    for key in OUTPUTS:
        if key not in stored:
            continue
        ours = out[key]
        same = ours is not None and ours.shape == stored[key].shape
        result[key] = float((ours - stored[key]).abs().max()) if same else float("inf")
    return result


if __name__ == "__main__":
    print(json.dumps(differences(Path(sys.argv[1]), sys.argv[2])))  # noqa: T201
