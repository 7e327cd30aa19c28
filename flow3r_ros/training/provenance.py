"""Papers of a training run: what its weights saw, under which licence each part stands, and what
that makes of the weights' own.

A manifest holds `base` (the weights the run started from, with their sha256), `recordings` (name,
sha256, frames, licence; those of the base included), `teacher` (with its licence) and
`code_version`.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flow3r_ros import __version__
from flow3r_ros.errors import TrainingError
from flow3r_ros.network.catalog import Manifest
from flow3r_ros.network.licences import UNKNOWN, combined, concern, licence_beside
from flow3r_ros.storage import Location, RemotePath, location
from flow3r_ros.training.clip_sources import index_of, recordings_in
from flow3r_ros.training.scenes.textures import PHOTOGRAPH_LICENCES

TEACHER_LICENCES = {
    "dis": "Apache-2.0 (OpenCV's DIS flow: an algorithm without weights)",
    "geometric": "Apache-2.0 (our own: flow from depth and poses)",
}
"""teachers whose licence is known; weights that the user brings are not"""
OWN = "Apache-2.0"
SCENES = "synthetic scenes"

Recording = dict[str, Any]


def licences_of(paths: Sequence[Location], given: Sequence[str]) -> list[str]:
    """The licence of each path of `--data`: as given (one for all, or one a path), else empty.

    Raises TrainingError when the numbers do not fit.
    """
    if len(given) not in (0, 1, len(paths)):
        raise TrainingError(
            f"{len(given)} licences for {len(paths)} --data paths",
            "give --license once for all, or once for every path",
        )
    return list(given) * len(paths) if len(given) == 1 else list(given) or [""] * len(paths)


def of_scenes(path: Location, clips: int) -> Recording:
    """The entry of a folder of scene shards; its hash covers names and sizes of the shards."""
    if isinstance(path, RemotePath):
        sizes = {name: size for name, (size, _) in path.listing().items() if "/" not in name}
    else:
        sizes = {shard.name: shard.stat().st_size for shard in path.glob("*.safetensors")}
    shards = sorted(name for name in sizes if name.endswith(".safetensors"))
    listing = "".join(f"{name} {sizes[name]}\n" for name in shards)
    return {
        "name": f"{SCENES} ({path.name})",
        "sha256": hashlib.sha256(listing.encode()).hexdigest(),
        "clips": clips,
        "license": f"{OWN} (made by flow3r_ros.training.scenes; photographs: "
        + ", ".join(f"{name} {licence}" for name, licence in PHOTOGRAPH_LICENCES.items())
        + ")",
    }


def of_cache(folder: Location, given: Mapping[Location, str]) -> list[Recording]:
    """The recordings behind a label cache. `given`: licences by recording, or by the cache."""
    found = []
    for key, name in recordings_in(folder).items():
        index = index_of(folder / "sources" / f"{key}.json")
        source = location(index.source)
        said = given.get(source) or given.get(folder)
        beside = licence_beside(source) if isinstance(source, Path) and not said else UNKNOWN
        found.append(
            {
                "name": name,
                "sha256": index.content,
                "frames": index.counts.get("frames", 0),
                "license": said or beside,
            }
        )
    return found


def of_labelled(path: Path, name: str, frames: int, given: str) -> Recording:
    """The entry of a labelled data set; its hash covers names and sizes of its files, which may be
    many gigabytes."""
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    listing = "".join(f"{item.relative_to(path)} {item.stat().st_size}\n" for item in files)
    return {
        "name": name,
        "sha256": hashlib.sha256(listing.encode()).hexdigest(),
        "frames": frames,
        "license": given or licence_beside(path),
    }


def of_teacher(
    name: str,
    options: Mapping[str, Any] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A teacher with its licence and the hash of its weights; two joined by `+` have both.

    The licence of weights is what option `license` says, else the LICENSE beside them, else
    unknown. `options` and `identity` are those of the label cache.
    """
    parts, options, identity = name.split("+"), options or {}, identity or {}
    licences = [TEACHER_LICENCES.get(part) or _of_weights(part, options) for part in parts]
    found: dict[str, Any] = {"name": name, "license": "; ".join(dict.fromkeys(licences))}
    hashes = {
        str(one["name"]): one["weights_sha256"]
        for one in identity.get("teachers", [identity])
        if "weights_sha256" in one
    }
    return found | ({"weights_sha256": hashes} if hashes else {})


def _of_weights(teacher: str, options: Mapping[str, Any]) -> str:
    """The licence of the weights that the user brought for one teacher."""
    own = options.get(teacher)
    given = {**options, **(own if isinstance(own, Mapping) else {})}
    if given.get("license"):
        return str(given["license"])
    weights = given.get("weights")
    return licence_beside(Path(weights)) if weights else UNKNOWN


def papers(start: Manifest | None, told: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into the manifest of the weights of a run: `told` (recordings, teacher) joined to
    the papers of the weights it started from (None: fresh ones), and `license`."""
    before = start.model_extra or {} if start is not None else {}
    recordings = [*before.get("recordings", []), *told.get("recordings", [])]
    once = {(entry["name"], entry["sha256"]): entry for entry in recordings}
    result: dict[str, Any] = {
        **told,
        "recordings": list(once.values()),
        "code_version": code_version(),
    }
    own = OWN if start is None or concern(start.license) else start.license
    parts = [(entry["name"], str(entry["license"])) for entry in once.values()]
    if start is not None:
        result["base"] = {"name": start.name, "sha256": start.sha256, "license": start.license}
        if "recordings" not in before:
            parts.insert(0, (f"base {start.name}", start.license))
        if "pretrained_parts" in before:
            result["pretrained_parts"] = before["pretrained_parts"]
    for teacher in (before.get("teacher"), told.get("teacher")):
        if isinstance(teacher, Mapping):
            licences = str(teacher["license"]).split("; ")
            parts += [(f"teacher {teacher['name']}", licence) for licence in licences]
    result["license"] = combined(own, dict.fromkeys(parts))
    return result


def code_version() -> str:
    """Version of this package, with the commit where it runs from a checkout."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{answer.stdout.strip()}"
