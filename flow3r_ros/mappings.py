"""A JSON or YAML file as the mapping at its top: settings, manifests, cameras, summaries.

Such files are other people's, so their size, their nesting and the number of their values are
bounded before anything is made of them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from flow3r_ros.errors import ConfigError, Flow3rError, cause_of

MAX_FILE_BYTES = 1 << 18
"""largest settings, manifest or camera file that is read; the largest of ours has 6 kB"""
MAX_NESTING = 50
"""most brackets open at once in such a file; ours have 4"""
MAX_VALUES = 20_000
"""most values in such a file, parts that YAML repeats by reference counted each time (ten lines
of those make a billion)"""


def read_mapping(path: Path, refuse: type[Flow3rError], cure: str) -> dict[str, Any]:
    """The mapping at the top of a JSON (`.json`) or YAML file; an empty YAML file is an empty one.

    Not more than MAX_FILE_BYTES are read, not more than MAX_VALUES accepted. Raises `refuse`,
    naming the file, with `cure`, whatever is wrong with it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES >> 10} kB")
        text = data.decode("utf-8-sig")
        if _nesting(text) > MAX_NESTING:
            raise RecursionError
        tree = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text) or {}
        if _values(tree, {}) > MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES} values")
    except UnicodeDecodeError as error:
        raise refuse(f"{path}: is not UTF-8 text", cure) from error
    except RecursionError as error:
        raise refuse(f"{path}: is nested too deeply", cure) from error
    except OSError as error:
        raise refuse(f"{path}: cannot be read ({cause_of(error)})", cure) from error
    except (ValueError, OverflowError, yaml.YAMLError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        reason = " ".join(str(error).split())[:200]
        raise refuse(f"{path}: cannot be read as {kind} ({reason})", cure) from error
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise refuse(f"{path}: the top level is not a mapping of names", cure)
    return tree


def _nesting(text: str) -> int:
    """Most brackets open at once; asked before parsing, which takes seconds for thousands."""
    opened = most = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        opened += 1 if bracket in "[{" else -1
        most = max(most, opened)
    return most


def _values(tree: Any, known: dict[int, int]) -> int:
    """Values in a tree; a part that contains itself raises RecursionError."""
    if not isinstance(tree, (dict, list, tuple, set)):
        return 1
    if id(tree) not in known:
        parts = [*tree.keys(), *tree.values()] if isinstance(tree, dict) else list(tree)
        known[id(tree)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(tree)]


def first_fault(error: ValidationError) -> str:
    """The first thing pydantic found wrong, in one line: `group.name: what is wrong, got value`."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    given = first["input"]
    plain = isinstance(given, (bool, int, float, str)) and first["type"] != "extra_forbidden"
    got = repr(given if not isinstance(given, str) else given[:80]) if plain else ""
    said = first["msg"].removeprefix("Value error, ")
    return f"{key}: " * bool(key) + said + f", got {got[:100]}" * plain


def unwrap_ros(tree: dict[str, Any]) -> dict[str, Any]:
    """Return what stands under `ros__parameters`, if the file is a ROS parameter file; ROS-only
    keys are left to the node."""
    for value in tree.values():
        if isinstance(value, dict) and isinstance(value.get("ros__parameters"), dict):
            inner = dict(value["ros__parameters"])
            for ros_only in ("autostart", "use_sim_time"):
                inner.pop(ros_only, None)
            return inner
    return tree


def set_dotted(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Put a value at `group.name` of a tree of settings. Raises ConfigError where something else
    than a group stands on the way."""
    *groups, leaf = dotted.split(".")
    for group in groups:
        inner = tree.setdefault(group, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"{group}: is {inner!r:.80}, not a group of settings", f"write {dotted}: ..."
            )
        tree = inner
    tree[leaf] = value
