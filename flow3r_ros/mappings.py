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

from flow3r_ros.errors import Flow3rError

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
        raise refuse(f"{path}: cannot be read ({error.strerror})", cure) from error
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
