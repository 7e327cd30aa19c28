"""Runs in `.venv-lerobot`: the real lerobot reads a dataset, or records one.

`read ROOT OUT.npz` stores every item of `LeRobotDataset(root=ROOT)`; `record IN.npz ROOT` records
the frames `rgb` `[episodes, frames, H, W, 3]` with lerobot's own defaults (AV1).
"""

import json
import sys

import numpy as np

from test.own_environment import with_torchvision

operators = with_torchvision()

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402


def read(root: str, output: str) -> None:
    dataset = LeRobotDataset("flow3r/test", root=root)
    items = [dataset[index] for index in range(len(dataset))]
    arrays = {
        key: np.stack([item[key].numpy() for item in items]) for key in items[0] if key != "task"
    }
    about = {
        "fps": dataset.fps,
        "episodes": dataset.num_episodes,
        "tasks": [item["task"] for item in items],
        "stats": sorted(dataset.meta.stats),
        "cameras": dataset.meta.camera_keys,
    }
    np.savez(output, about=json.dumps(about), **arrays)


def record(source: str, root: str) -> None:
    rgb = np.load(source)["rgb"]
    shape = rgb.shape[2:]
    names = ["height", "width", "channels"]
    features = {
        "observation.images.front": {"dtype": "video", "shape": shape, "names": names},
        "observation.images.side": {"dtype": "image", "shape": shape, "names": names},
        "action": {"dtype": "float32", "shape": (2,), "names": ["frame", "episode"]},
    }
    dataset = LeRobotDataset.create("flow3r/test", fps=10, features=features, root=root)
    for episode, frames in enumerate(rgb):
        for number, frame in enumerate(frames):
            dataset.add_frame(
                {
                    "observation.images.front": frame,
                    "observation.images.side": frame,
                    "action": np.array([number, episode], np.float32),
                    "task": f"task {episode}",
                }
            )
        dataset.save_episode(parallel_encoding=False)
    dataset.finalize()


if __name__ == "__main__":
    {"read": read, "record": record}[sys.argv[1]](*sys.argv[2:])
