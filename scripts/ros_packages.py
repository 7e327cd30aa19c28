"""What the set-up needs to know about ROS 2 from PyPI; called by scripts/setup.sh with the virtual
environment's Python.

ros_packages.py wheels                    requirements: the ROS packages to install from PyPI
ros_packages.py fix-wheels               point the wheels' CMake files at this interpreter
ros_packages.py write-tf2-msgs FOLDER    a source package of tf2_msgs (in no wheel; on a robot it
comes from apt)
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

RUNTIME = (
    "rclpy[fastrtps]",
    "sensor-msgs",
    "geometry-msgs",
    "diagnostic-msgs",
    "nav-msgs",
    "std-srvs",
    "visualization-msgs",
)
GENERATORS = (
    "rosidl-default-generators",
    "rosidl-core-generators",
    "ament-cmake",
    "ament-package",
    "ament-cmake-include-directories",
    "ament-cmake-gmock",
    "ament-cmake-gtest",
    "ament-cmake-pytest",
    "ament-cmake-ros",
    "python-cmake-module",
)

TF2_CMAKE = """cmake_minimum_required(VERSION 3.20)
project(tf2_msgs)
find_package(ament_cmake REQUIRED)
find_package(geometry_msgs REQUIRED)
find_package(rosidl_default_generators REQUIRED)
rosidl_generate_interfaces(${PROJECT_NAME} "msg/TFMessage.msg" DEPENDENCIES geometry_msgs)
ament_export_dependencies(rosidl_default_runtime)
ament_package()
"""

TF2_PACKAGE = """<?xml version="1.0"?>
<package format="3">
  <name>tf2_msgs</name>
  <version>0.0.0</version>
  <description>tf2_msgs/TFMessage for development</description>
  <maintainer email="maintainers@example.org">flow3r_ros maintainers</maintainer>
  <license>BSD-3-Clause</license>
  <buildtool_depend>ament_cmake</buildtool_depend>
  <build_depend>rosidl_default_generators</build_depend>
  <depend>geometry_msgs</depend>
  <exec_depend>rosidl_default_runtime</exec_depend>
  <member_of_group>rosidl_interface_packages</member_of_group>
  <export><build_type>ament_cmake</build_type></export>
</package>
"""


def print_wheels() -> None:
    """One requirement per line; versions are pinned by constraints.txt."""
    for package in RUNTIME + GENERATORS:
        print(f"ros-jazzy-{package}")
    print("catkin-pkg")


def fix_wheels() -> None:
    """Replace the include folders of the machine that built the wheels by those of this
    interpreter."""
    import numpy as np

    python_include, numpy_include = sysconfig.get_path("include"), np.get_include()
    for file in Path(sys.prefix, "share").glob("*/cmake/*__rosidl_generator_pyExport.cmake"):
        text = file.read_text()
        fixed = re.sub(r"/opt/python/[^;\"]*/numpy/_?core/include", numpy_include, text)
        fixed = re.sub(r"/opt/python/[^;\"]*/include/python[0-9.]+", python_include, fixed)
        if fixed != text:
            file.write_text(fixed)


def write_tf2_msgs(folder: Path) -> None:
    """Write the source package; the definition comes out of the rosbags type store."""
    from rosbags.typesys import Stores, get_typestore

    definition, _ = get_typestore(Stores.ROS2_JAZZY).generate_msgdef(
        "tf2_msgs/msg/TFMessage", ros_version=2
    )
    (folder / "msg").mkdir(parents=True, exist_ok=True)
    (folder / "msg" / "TFMessage.msg").write_text(definition.split("=" * 40)[0])
    (folder / "CMakeLists.txt").write_text(TF2_CMAKE)
    (folder / "package.xml").write_text(TF2_PACKAGE)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["wheels"]:
            print_wheels()
        case ["fix-wheels"]:
            fix_wheels()
        case ["write-tf2-msgs", folder]:
            write_tf2_msgs(Path(folder))
        case _:
            sys.exit(__doc__)
