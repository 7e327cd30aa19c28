"""The house stands as drawn: who may import whom, no circles, light rooms import no heavy ones.

`ARROWS` is the drawing; docs/contributor.md shows the same text.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "flow3r_ros"

ARROWS = """\
types errors config setting_checks mappings paths storage <- every room
geometry <- network odometry wire slam bags datasets report offline evaluation training ros
odometry <- slam report offline evaluation ros
slam <- offline evaluation ros
network <- training ros
wire <- bags datasets offline evaluation ros
bags <- datasets offline training
datasets <- offline evaluation training
report <- offline evaluation
offline <- evaluation
evaluation <- training
every room <- bench cli library
"""
"""read `a <- b`: b may import a"""

ONLY_IN: dict[str, set[str]] = {
    "rclpy": {"ros"},
    "torch": {"network", "training"},
    "gtsam": {"slam", "odometry"},
    "pycolmap": {"slam"},
    "ray": {"training"},
    "lightning": {"training"},
    "huggingface_hub": {"network"},
    "onnxruntime": {"network"},
    "pyarrow": {"datasets", "offline"},
    "av": {"datasets"},
    "rosbags": {"bags", "wire"},
    "fsspec": {"storage"},
}
"""third-party packages that belong to some rooms alone (bench, cli and library see everything)"""
FREE = {"bench", "cli", "library"}
EVERYWHERE = {"types", "errors", "config", "setting_checks", "mappings", "paths", "storage"}
LIGHT = ("geometry", "odometry", "wire", "bags", "datasets", "offline", "report", "evaluation")
"""rooms that import without torch and ROS"""


def may_import() -> dict[str, set[str]]:
    """Room -> the rooms it may import, as drawn."""
    allowed: dict[str, set[str]] = {}
    for line in ARROWS.splitlines()[1:-1]:
        source, _, rooms = line.partition(" <- ")
        for room in rooms.split():
            allowed.setdefault(room, set()).add(source)
    return allowed


def modules() -> dict[str, Path]:
    """Dotted name below flow3r_ros -> file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """Every name imported anywhere in the file, lazily or not; `from a import b`: a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(names: set[str]) -> set[str]:
    """Our modules among imported names, without the package's name."""
    known = modules()
    cut = {name.removeprefix("flow3r_ros.") for name in names if name.startswith("flow3r_ros.")}
    return {name for name in cut if name in known}


@pytest.mark.parametrize("name", [name for name in modules() if name])
def test_imports_follow_the_arrows(name: str) -> None:
    room = name.split(".")[0]
    if room in FREE:
        return
    names = imports(modules()[name])
    for top in {imported.split(".")[0] for imported in names} & ONLY_IN.keys():
        assert room in ONLY_IN[top], f"{name} imports {top}, which belongs to {ONLY_IN[top]}"
    allowed = may_import().get(room, set()) | EVERYWHERE | {room}
    beyond = {other for other in own(names) if other.split(".")[0] not in allowed}
    assert not beyond, f"{name} may not import {beyond}; its room may import {allowed}"


def test_no_circles() -> None:
    """Neither between rooms nor inside one; a package's door and what it re-exports are one."""
    graph = {name: own(imports(path)) - {name} for name, path in modules().items()}
    for name, path in modules().items():
        if (
            path.name == "__init__.py"
        ):  # importing `a.b` runs the door `a`, which may name what it shows
            graph[name] -= {other for other in graph if other.startswith(f"{name}.")}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"circle of imports: {' -> '.join(error.args[1])}")


def test_every_room_is_drawn() -> None:
    rooms = {name.split(".")[0] for name in modules() if "." in name}
    assert (
        rooms <= may_import().keys() | {line.split(" <-")[0] for line in ARROWS.splitlines()} | FREE
    )


def test_the_contributor_page_shows_the_drawing() -> None:
    assert ARROWS in (ROOT / "docs" / "contributor.md").read_text(encoding="utf-8")


def import_all_without(
    blocked: tuple[str, ...], rooms: tuple[str, ...]
) -> subprocess.CompletedProcess[str]:
    names = [
        f"flow3r_ros.{name}" for name in modules() if name.split(".")[0] in {*rooms, *EVERYWHERE}
    ]
    code = (
        "import importlib, sys\n"
        f"blocked = {blocked!r}\n"
        "for name in blocked: sys.modules[name] = None\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


DECLARED: dict[tuple[str, ...], tuple[str, ...]] = {
    ("geometry", "network", "odometry"): ("scipy", "rosbags", "typer", "rich", "gtsam", "pycolmap"),
    LIGHT: ("torch", "gtsam", "pycolmap", "scipy", "skimage", "pyarrow", "av"),
    (*LIGHT, "network", "training"): ("huggingface_hub", "onnx", "onnxruntime", "onnxscript"),
}
"""rooms -> packages that they import without, beside those that nobody needs to import"""


@pytest.mark.parametrize("rooms", DECLARED, ids="+".join)
def test_rooms_import_without_what_they_do_not_declare(rooms: tuple[str, ...]) -> None:
    train = () if "training" in rooms else ("lightning", "matplotlib", "fsspec")
    result = import_all_without(("rclpy", "ray", "rerun", "s3fs", *train, *DECLARED[rooms]), rooms)
    assert result.returncode == 0, result.stderr


def test_modules_stay_readable() -> None:
    lines = {
        name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()
    }
    assert not {name: n for name, n in lines.items() if n > 350}, "split what holds two things"
