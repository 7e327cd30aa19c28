"""Runs in `.venv-lerobot`: the `raft` teacher and torchvision's own RAFT on the same two pictures.

`IN.npz OUT.npz`: `rgb` `[2, H, W, 3]`; out: the teacher's flow, torchvision's, covisibility."""

import sys
from pathlib import Path

import numpy as np
import torch

from flow3r_ros.training.labels.clips import Clip
from flow3r_ros.training.labels.network_teachers import RaftTeacher
from flow3r_ros.types import Camera
from test.own_environment import with_torchvision

operators = with_torchvision()

from torchvision.models.optical_flow import raft_large  # noqa: E402


def main(source: str, output: str) -> None:
    torch.manual_seed(3)
    network = raft_large(weights=None).eval()
    weights = Path(output).with_name("raft.pth")
    torch.save(network.state_dict(), weights)
    rgb = np.load(source)["rgb"]
    clip = Clip("a", "test", rgb, np.arange(2), Camera(160, 128, 100.0, 100.0, 80.0, 64.0))
    label = RaftTeacher(weights, width=160).flow(clip, 0, 1)
    pair = torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        flow = network(pair[:1], pair[1:])[-1][0].permute(1, 2, 0).numpy()
    np.savez(output, label=label.displacement, flow=flow, covisibility=label.covisibility)


if __name__ == "__main__":
    main(*sys.argv[1:])
