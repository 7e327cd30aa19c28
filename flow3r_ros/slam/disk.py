"""Maps on disk: a folder that appears whole, says its version and its hashes, and holds nothing
that runs when it is read.

| file | what |
|---|---|
| `map.json` | format, version, unit, counts, SHA-256 of the other files |
| `keyframes.safetensors` | poses, cameras, features, depth, loops as plain arrays |
| `pictures/NNNNNN.jpg` | the rectified picture of each keyframe, by key |

The next version reads this one; a newer one is refused by its number.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flow3r_ros.errors import InputError, cause_of
from flow3r_ros.mappings import first_fault, read_mapping
from flow3r_ros.paths import OutputFolder, as_folder, readable
from flow3r_ros.slam.arrays import arrays_of, check_arrays, keyframe_of, loops_of
from flow3r_ros.slam.saved import SavedMap

FORMAT, VERSION = "flow3r map", 1
MAX_BYTES = 1 << 32
"""largest file of a map that is read"""
MAX_PICTURE_BYTES = 1 << 25
"""largest picture of a map that is read"""
MAX_KEYFRAMES = 20_000
"""most keyframes of a map that is read"""
_INDEX, _ARRAYS, _PICTURES = "map.json", "keyframes.safetensors", "pictures"
_CURE = "give a folder that save_map or flow3r wrote, or make the map anew"


class _Index(BaseModel):
    """What `map.json` says."""

    model_config = ConfigDict(extra="ignore")
    format: str
    version: int
    metric: bool
    keyframes: int = Field(ge=1, le=MAX_KEYFRAMES)
    arrays_sha256: str
    pictures_sha256: str


def save_map(output: Path | OutputFolder, saved: SavedMap) -> Path:
    """Write a map into a new folder (a path, or a folder reserved before), which is returned.

    Raises OutputError when it exists or cannot be written; then nothing is left behind.
    """
    with as_folder(output) as unfinished:
        write_map(unfinished.path, saved)
    return unfinished.final


def write_map(folder: Path, saved: SavedMap) -> None:
    """Write the files of a map into a folder that exists and is empty."""
    from safetensors.numpy import save_file

    pictures = folder / _PICTURES
    pictures.mkdir()
    every = hashlib.sha256()
    for keyframe in saved.keyframes:
        (pictures / f"{keyframe.key:06d}.jpg").write_bytes(keyframe.picture)
        every.update(keyframe.picture)
    path = folder / _ARRAYS
    with readable(path):
        save_file(arrays_of(saved), path)
    index = {
        "format": FORMAT,
        "version": VERSION,
        "metric": saved.metric,
        "unit": "metres" if saved.metric else "odometry units",
        "keyframes": len(saved.keyframes),
        "segments": len(saved.islands),
        "connected_parts": len(set(saved.islands.values())),
        "loops": len(saved.loops),
        "arrays_sha256": _sha256(path),
        "pictures_sha256": every.hexdigest(),
    }
    (folder / _INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def load_map(folder: Path) -> SavedMap:
    """Read a map and check it whole.

    Raises InputError, naming the file, for what is no map, damaged, unfinished, or of a newer
    version.
    """
    index = _read_index(folder)
    path = folder / _ARRAYS
    arrays = _read_arrays(path, index)
    count = index.keyframes
    try:
        check_arrays(arrays, count)
        keyframes, every = [], hashlib.sha256()
        for row in range(count):
            picture = _read_picture(folder / _PICTURES / f"{int(arrays['keys'][row]):06d}.jpg")
            every.update(picture)
            keyframes.append(keyframe_of(arrays, row, picture))
    except (KeyError, ValueError, IndexError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: is damaged ({error})", _CURE) from error
    if every.hexdigest() != index.pictures_sha256:
        raise InputError(f"{folder / _PICTURES}: pictures differ from those of map.json", _CURE)
    keys = arrays["keys"].tolist()
    loops = loops_of(arrays)
    return SavedMap(
        keyframes=keyframes,
        poses=dict(zip(keys, arrays["poses"], strict=True)),
        steps=dict(zip(keys, arrays["steps"].tolist(), strict=True)),
        islands=dict(arrays["islands"].tolist()),
        loops=loops,
        metric=index.metric,
    )


def describe_map(folder: Path) -> dict[str, Any]:
    """What `flow3r map info` says of a map, which is read and checked whole. Raises InputError."""
    saved = load_map(folder)
    first = saved.keyframes[0]
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    places = np.stack([pose[:3, 3] for pose in saved.poses.values()])
    return {
        "version": VERSION,
        "unit": "metres" if saved.metric else "odometry units",
        "keyframes": len(saved.keyframes),
        "segments": len(saved.islands),
        "connected_parts": len(set(saved.islands.values())),
        "loops": len(saved.loops),
        "extent": [round(float(each), 3) for each in np.ptp(places, axis=0)],
        "camera": f"{first.camera.width}x{first.camera.height}, fx {first.camera.fx:.1f}",
        "size_mb": round(size / 1e6, 1),
    }


def _read_index(folder: Path) -> _Index:
    path = folder / _INDEX
    if not folder.is_dir() or not path.is_file():
        raise InputError(f"{folder}: is no map (map.json is missing)", _CURE)
    tree = read_mapping(path, InputError, _CURE)
    if tree.get("format") != FORMAT:
        raise InputError(f"{path}: is not of a flow3r map", _CURE)
    version = tree.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise InputError(
            f"{path}: is of version {version}, this program reads up to {VERSION}",
            "update flow3r_ros",
        )
    try:
        return _Index.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{path}: {first_fault(error)}", _CURE) from error


def _read_arrays(path: Path, index: _Index) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: is larger than {MAX_BYTES >> 30} GB", _CURE)
        if _sha256(path) != index.arrays_sha256:
            raise InputError(f"{path}: differs from what map.json says", _CURE)
        return dict(load_file(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({cause_of(error)})", _CURE) from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path}: is damaged ({error})", _CURE) from error


def _read_picture(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_PICTURE_BYTES:
            raise InputError(f"{path}: is larger than {MAX_PICTURE_BYTES >> 20} MB", _CURE)
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({cause_of(error)})", _CURE) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
