"""What killed programs leave, and who may read what we write."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from flow3r_ros.network.catalog import list_models
from flow3r_ros.network.checkpoint import import_model, read_weights
from flow3r_ros.training.checkpointing import write_safetensors
from flow3r_ros.training.shards import write_shard
from test.hostile.workshop import download, started, wait_until
from test.network.factories import tiny_folder
from test.training.clip_factory import scene, write_images

LABEL = """
import sys, time
from pathlib import Path
import psutil
from flow3r_ros.training.labels.cache import LabelSettings
from flow3r_ros.training.labels.labelling import label

def tell(report):
    print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    settings = LabelSettings(clips={"width": 168, "frames": 6}, width=84, pairs_per_shard=2)
    label([Path(sys.argv[1])], Path(sys.argv[2]), settings, workers=2, progress=tell)
"""


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_label_workers_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    images = write_images(tmp_path / "images", scene(frames=8), repeats=1)
    process, line = started(tmp_path, LABEL, images, tmp_path / "cache")
    workers = [int(pid) for pid in line.split()]
    try:
        assert len(workers) >= 2
        process.send_signal(number)
        process.wait()
        wait_until(lambda: all(map(is_gone, workers)), f"workers {workers} live on")
    finally:
        process.kill()
        process.communicate()
        for pid in workers:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)


IMPORT = """
import sys, time
from pathlib import Path
from flow3r_ros.network import checkpoint

def hang(folder, *rest):
    (folder / "model.safetensors").write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(600)

checkpoint._fill = hang
checkpoint.import_model(Path(sys.argv[1]), replace=True)
"""


@pytest.mark.parametrize("ours", [False, True])
def test_leftovers_of_a_killed_import_go_with_the_next(
    tmp_path: Path, home: Path, ours: bool
) -> None:
    file = download(tmp_path / "download")
    if ours:
        tiny_folder(home / "tiny")
    process, line = started(tmp_path, IMPORT, file)
    assert line == "ready"
    process.kill()
    process.communicate()
    assert [path for path in home.iterdir() if path.name.startswith(".")], "nothing was left"
    assert [folder.path.name for folder in list_models() if folder.path.parent == home] == (
        ["tiny"] if ours else []
    )
    import_model(file, "another")
    assert sorted(path.name for path in home.iterdir()) == (
        ["another", "tiny"] if ours else ["another"]
    )


SAVE = """
import sys, time
from collections import Counter
from pathlib import Path
import numpy as np
from flow3r_ros.config import Config
from flow3r_ros.ros import saving
from flow3r_ros.ros.loading import Loaded
from flow3r_ros.ros.worker import Tally

def save(folder):
    config = Config()
    config.node.save_dir = str(folder)
    points = np.zeros((3, 3), np.float32), np.zeros((3, 3), np.uint8), np.ones(3, np.float32)
    loaded = Loaded(None, "m", "0" * 64, "none", "cpu", lambda: 0.0, lambda: None)
    return saving.save_map(config, points, saving.Trail(), loaded, Tally())

def hang(path, *points):
    path.write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    if len(sys.argv) > 2:
        saving.write_ply = hang
    print(save(Path(sys.argv[1])))
"""


def test_leftovers_of_a_killed_save_map_go_with_the_next(tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    maps = tmp_path / "maps"
    process, line = started(tmp_path, SAVE, maps, Path("hang"))
    assert line == "ready"
    process.kill()
    process.communicate()
    assert list(maps.iterdir())
    process, line = started(tmp_path, SAVE, maps)
    process.communicate()
    assert [str(path) for path in maps.iterdir()] == [line]
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in Path(line).iterdir()}
    assert set(modes.values()) == {oct(0o666 & ~umask())}
    assert Path(line).stat().st_mode & 0o777 == 0o777 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_others_may_read_what_we_write(tmp_path: Path) -> None:
    imported = import_model(download(tmp_path / "download")).path
    write_shard(tmp_path / "a.shard", {"x": np.zeros(3)}, {})
    write_safetensors(tmp_path / "step.safetensors", {"x": torch.zeros(3)})
    assert imported.stat().st_mode & 0o777 == 0o777 & ~umask()
    for path in (*imported.iterdir(), *tmp_path.glob("*.s*")):
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask(), path
    assert read_weights(imported / "model.safetensors")
