"""The repository as a ROS 2 package and a pip distribution: what package.xml names exists, and what
pip and colcon install is complete."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pytest

import flow3r_ros
from flow3r_ros.errors import install_extra, install_module
from test.conftest import shared_path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ("config", "launch", "models", "msg")
"""folders of the root that belong to an installation"""
BASE_KEYS = {
    "builtin_interfaces",
    "std_msgs",
    "ament_cmake_python",
    "ament_cmake_lint_cmake",
    "ament_cmake_xmllint",
    "ament_index_python",
    "rosidl_default_runtime",
}
"""packages of every ROS 2 distribution that the reference list does not bother to name"""


def dependencies() -> dict[str, set[str]]:
    """Key of package.xml -> the kinds of dependency it is named as."""
    found: dict[str, set[str]] = {}
    for element in ElementTree.parse(ROOT / "package.xml").getroot():
        if element.tag.endswith("depend"):
            found.setdefault(str(element.text), set()).add(element.tag)
    return found


def test_every_key_of_package_xml_exists_in_rosdep() -> None:
    reference = shared_path("reference") / "rosdep_keys.txt"
    known = {
        line.partition(":")[0].strip()
        for line in reference.read_text().splitlines()
        if line and not line.startswith(("#", "["))
    }
    assert dependencies().keys() - BASE_KEYS <= known


def test_package_xml_names_what_the_code_imports_and_the_keys_that_exist() -> None:
    named = dependencies()
    for key in (
        "cv_bridge",
        "sensor_msgs_py",
        "tf_transformations",
        "python3-opencv",
        "python3-torch",
        "python3-pydantic",
        "python3-typer",
        "python3-rich",
        "python3-rosbags-pip",
        "python3-huggingface-hub-pip",
    ):
        assert "exec_depend" in named[key], key
    assert not any("safetensors" in key for key in named)


def test_readme_and_robot_page_install_with_the_script_what_rosdep_does_not() -> None:
    skipped = "python3-rosbags-pip python3-huggingface-hub-pip"
    assert set(skipped.split()) <= dependencies().keys()
    for page in ("README.md", "docs/robot.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert f'rosdep install --from-paths src --ignore-src -y --skip-keys "{skipped}"' in text
        assert "src/flow3r_ros/scripts/robot_venv.sh ~/flow3r-venv" in text


def test_package_xml_points_somewhere_and_has_a_changelog() -> None:
    root = ElementTree.parse(ROOT / "package.xml").getroot()
    assert str(root.findtext("url")).startswith("https://")
    assert "Changelog for package flow3r_ros" in (ROOT / "CHANGELOG.rst").read_text()


def test_a_wheel_carries_every_shared_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    files = [name for name in listing.stdout.splitlines() if (ROOT / name).is_file()]
    for name in files:
        if name.split("/")[0] in {*SHARED, "docs", "flow3r_ros"} or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).symlink_to(ROOT / name)
    build = "from setuptools import build_meta; import sys; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    prefix = f"{'-'.join(wheel.name.split('-')[:2])}.data/data/share/flow3r_ros/"
    expected = {name for name in files if name.split("/")[0] in SHARED} | {"package.xml"}
    expected |= {name for name in files if name.startswith("docs/") and name.count("/") == 1}
    expected -= {name for name in expected if name.startswith("docs/") and name[-3:] != ".md"}
    assert {f"{prefix}{name}" for name in expected} <= packed
    assert {name for name in files if name.startswith("flow3r_ros/")} <= packed
    assert not any(name.startswith("test/") for name in packed)


def test_cmake_installs_the_same_folders_and_every_program() -> None:
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert f"foreach(folder {' '.join(name for name in SHARED if name != 'msg')})" in cmake
    for path in (ROOT / "msg").iterdir():
        assert f'"msg/{path.name}"' in cmake
    for program in ("flow3r_node:node", "flow3r:flow3r", "example_consumer:example_consumer"):
        assert f'"{program}"' in cmake


def test_one_version_everywhere() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = re.findall(r'^version = "(.*)"$', pyproject, re.MULTILINE)
    assert version == flow3r_ros.__version__
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"<version>{version}</version>" in (ROOT / "package.xml").read_text(encoding="utf-8")
    assert f"## {version} - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_a_missing_extra_is_installed_by_the_line_that_is_said() -> None:
    """Every package is named, with no name of ours that no index knows."""
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in ("viz", "train", "fleet", "hub", "onnx", "slam", "refine"):
        (listed,) = re.findall(rf"^{extra} = \[(.*)\]$", pyproject, re.MULTILINE)
        names = [name.partition(";")[0] for name in re.findall(r'"([^"]+)"', listed)]
        assert shlex.split(install_extra(extra)) == ["pip", "install", *names]
        assert re.search(r"(^|[^'\w.-])[\w.-]+[<>]", install_extra(extra)) is None, "no redirection"
    assert "in a checkout" in install_extra("nothing")
    assert install_module("lightning") == install_module("skimage") == install_extra("train")
    assert install_module("cv2") == "pip install opencv-python-headless"
    for path in (ROOT / "flow3r_ros").rglob("*.py"):
        assert "pip install 'flow3r_ros[" not in path.read_text(encoding="utf-8"), path
