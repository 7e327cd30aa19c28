"""The arrows of docs/contributor.md hold: who may import whom is read from the source, and light
parts import without heavy ones."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "flow3r_ros"

# part -> the parts of the house it may import, besides types, errors, config and itself
MAY_IMPORT: dict[str, set[str]] = {
    "geometry": set(),
    "network": {"geometry"},
    "odometry": {"geometry"},
    "wire": {"geometry"},
    "bags": {"geometry", "wire", "odometry", "network", "offline", "evaluation"},
    "offline": {"geometry", "wire", "bags", "odometry", "network", "evaluation"},
    "training": {"geometry", "network", "wire", "bags", "offline", "evaluation"},
    "evaluation": {"geometry", "odometry", "offline", "bags"},
    "ros": {"geometry", "wire", "odometry", "network", "bags", "offline", "evaluation"},
}
EVERYWHERE = {"types", "errors", "config", "settings_docs"}
ONLY_IN: dict[str, set[str]] = {
    "rclpy": {"ros"},
    "torch": {"network", "training"},
    "ray": {"training"},
    "lightning": {"training"},
    "huggingface_hub": {"network"},
    "rosbags": {"bags", "wire", "ros", "training"},
}
TORCH_FREE = (
    "types",
    "errors",
    "config",
    "geometry",
    "odometry",
    "wire",
    "bags",
    "offline",
    "evaluation",
)
ROS_FREE = (*TORCH_FREE, "network", "training")


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def dotted(path: Path) -> str:
    relative = path.relative_to(PACKAGE.parent).with_suffix("")
    parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
    return ".".join(parts)


def imports(path: Path) -> set[str]:
    """Every module name imported anywhere in the file, lazily or not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            found.add(node.module or "")
            if node.module == "flow3r_ros":
                found |= {f"flow3r_ros.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_follow_the_arrows(path: Path) -> None:
    part = part_of(path)
    for name in imports(path):
        top, *rest = name.split(".")
        if top in ONLY_IN and part != "cli":
            assert part in ONLY_IN[top], (
                f"{path.name} imports {top}, which belongs to {sorted(ONLY_IN[top])}"
            )
        if top == "flow3r_ros" and rest:
            assert rest[0] != "cli" or part in ("cli", "__main__"), (
                f"{path.name} imports cli; nothing may"
            )
            if part in MAY_IMPORT and rest[0] not in EVERYWHERE | {part, "msg"}:
                assert rest[0] in MAY_IMPORT[part], f"{part} may not import {rest[0]} ({path.name})"


def import_all_without(
    blocked: tuple[str, ...], parts: tuple[str, ...]
) -> subprocess.CompletedProcess[str]:
    names = [dotted(path) for path in modules() if part_of(path) in parts]
    code = (
        "import importlib, sys\n"
        f"blocked = {blocked!r}\n"
        "for name in blocked: sys.modules[name] = None\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


def test_light_parts_import_without_torch_and_ros() -> None:
    result = import_all_without(
        ("torch", "rclpy", "lightning", "ray", "matplotlib", "rerun", "scipy", "skimage"),
        TORCH_FREE,
    )
    assert result.returncode == 0, result.stderr


def test_ros_free_parts_import_without_rclpy() -> None:
    result = import_all_without(("rclpy", "ray", "rerun", "huggingface_hub"), ROS_FREE)
    assert result.returncode == 0, result.stderr


def test_core_imports_with_declared_dependencies_alone() -> None:
    """numpy, opencv, torch, pydantic (with yaml and safetensors) carry the core: geometry, network,
    odometry."""
    blocked = (
        "rclpy",
        "ray",
        "matplotlib",
        "rerun",
        "scipy",
        "skimage",
        "rosbags",
        "lightning",
        "huggingface_hub",
        "typer",
        "rich",
    )
    result = import_all_without(
        blocked, ("types", "errors", "config", "geometry", "network", "odometry")
    )
    assert result.returncode == 0, result.stderr


def test_modules_stay_readable() -> None:
    long = {dotted(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert not {name: lines for name, lines in long.items() if lines > 350}, (
        "split modules in which two things live"
    )
