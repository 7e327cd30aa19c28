"""What pip installs beside the Python package: every file of the folders that
`flow3r_ros.paths.shared_files` finds again below `share/flow3r_ros`. All else stands in
pyproject.toml; `colcon build` reads CMakeLists.txt, which also builds the messages.
"""

from collections import defaultdict
from pathlib import Path

from setuptools import setup

SHARED = ("config", "launch", "models", "msg")
"""folders that belong to an installation; beside them the pages of docs/, which errors name"""


def data_files() -> list[tuple[str, list[str]]]:
    """(folder below the prefix, its files) for every folder in `SHARED`, however deep."""
    found: dict[str, list[str]] = defaultdict(list)
    files = [path for folder in SHARED for path in sorted(Path(folder).rglob("*"))]
    for path in [*files, *sorted(Path("docs").glob("*.md"))]:
        if path.is_file() and "__pycache__" not in path.parts:
            found[f"share/flow3r_ros/{path.parent.as_posix()}"].append(path.as_posix())
    return [("share/flow3r_ros", ["package.xml"]), *sorted(found.items())]


setup(data_files=data_files())
