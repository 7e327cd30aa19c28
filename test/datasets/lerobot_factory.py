"""LeRobot datasets (v3) made to order, as lerobot 0.4 writes them: all episodes in one video and
one parquet file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from flow3r_ros.datasets.lerobot_tables import write_tasks
from flow3r_ros.datasets.lerobot_video import encode
from flow3r_ros.types import Camera, UInt8

FPS = 10
FRONT, SIDE = "observation.images.front", "observation.images.side"


def pictures(count: int, first: int = 0) -> list[UInt8]:
    """Flat pictures that say which they are: grey 10 times their number."""
    return [np.full((48, 64, 3), 10 * (first + k), np.uint8) for k in range(count)]


def write_lerobot(
    root: Path,
    episodes: list[list[UInt8]],
    camera: Camera | None = None,
    side: bool = False,
    front: str = "video",
) -> Path:
    """A dataset whose `front` camera is a video (or `image`) and, if wished, a `side` camera of
    encoded pictures; `action` is (frame, episode)."""
    h, w = episodes[0][0].shape[:2]
    names = ["height", "width", "channels"]
    info = {"info": {"camera": asdict(camera)}} if camera else {}
    features: dict[str, Any] = {FRONT: {"dtype": front, "shape": [h, w, 3], "names": names} | info}
    if side:
        features[SIDE] = {"dtype": "image", "shape": [h, w, 3], "names": names}
    features["action"] = {"dtype": "float32", "shape": [2], "names": ["frame", "episode"]}
    lengths = [len(frames) for frames in episodes]
    everything = [rgb for frames in episodes for rgb in frames]
    data: dict[str, Any] = {
        "action": [[float(k), float(e)] for e, n in enumerate(lengths) for k in range(n)],
        "timestamp": [k / FPS for n in lengths for k in range(n)],
        "frame_index": [k for n in lengths for k in range(n)],
        "episode_index": [e for e, n in enumerate(lengths) for _ in range(n)],
        "index": list(range(len(everything))),
        "task_index": [0] * len(everything),
    }
    for key in (key for key in features if features[key]["dtype"] == "image"):
        data[key] = [{"bytes": png(rgb), "path": None} for rgb in everything]
    for key, kind in (("timestamp", "float32"), ("frame_index", "int64"), ("index", "int64"),
                      ("episode_index", "int64"), ("task_index", "int64")):  # fmt: skip
        features[key] = {"dtype": kind, "shape": [1], "names": None}
    for folder in ("data/chunk-000", "meta/episodes/chunk-000"):
        (root / folder).mkdir(parents=True)
    table = pa.table(data)
    for key, kind in (("action", pa.list_(pa.float32(), 2)), ("timestamp", pa.float32())):
        table = table.set_column(table.column_names.index(key), key, pa.array(data[key], kind))
    parquet.write_table(table, root / "data/chunk-000/file-000.parquet")
    write_tasks(root / "meta/tasks.parquet", ["look"])
    video = f"videos/{FRONT}"
    rows, begin = [], 0
    for index, length in enumerate(lengths):
        row = {"episode_index": index, "tasks": ["look"], "length": length,
               "data/chunk_index": 0, "data/file_index": 0,
               "dataset_from_index": begin, "dataset_to_index": begin + length,
               "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}  # fmt: skip
        if front == "video":
            row |= {f"{video}/chunk_index": 0, f"{video}/file_index": 0,
                    f"{video}/from_timestamp": begin / FPS,
                    f"{video}/to_timestamp": (begin + length) / FPS}  # fmt: skip
        rows.append(row)
        begin += length
    parquet.write_table(
        pa.Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet"
    )
    if front == "video":
        encode(video_of(root), everything, FPS)
    content = {
        "codebase_version": "v3.0", "robot_type": "test", "total_episodes": len(lengths),
        "total_frames": begin, "total_tasks": 1, "chunks_size": 1000, "fps": FPS,
        "data_files_size_in_mb": 100, "video_files_size_in_mb": 200, "splits": {"train": "0:1"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features,
    }  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(content))
    return root


def video_of(root: Path) -> Path:
    return root / f"videos/{FRONT}/chunk-000/file-000.mp4"


def change_info(root: Path, **changes: Any) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def png(rgb: UInt8) -> bytes:
    return cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
