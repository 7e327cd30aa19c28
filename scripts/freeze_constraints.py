"""Print constraints.txt from what is installed in the running virtual environment: every dependency
with its exact version, and a version that newer Pythons alone have for those alone.

.venv/bin/python scripts/freeze_constraints.py > constraints.txt
"""

from __future__ import annotations

from importlib.metadata import distributions

from packaging.specifiers import SpecifierSet

OURS = {"flow3r-ros", "pip", "setuptools"}
OLDEST, NEXT = "3.10", "3.11"
"""the oldest Python that we run on, and the one after it"""


def main() -> None:
    """Print one `name==version` per installed distribution, ours and the packaging tools left
    out."""
    found = {dist.metadata["Name"].lower().replace("_", "-"): dist for dist in distributions()}
    print(
        "# Every dependency with its exact version; written by "
        "scripts/freeze_constraints.py, used by scripts/setup.sh."
    )
    for name, dist in sorted(found.items()):
        # The ROS wheels carry a second record without the prefix (rclpy beside ros-rclpy); only the
        # wheel itself is a requirement.
        repeated = f"ros-{name}" in found or name in {"ament-cmake-test"}
        if name in OURS or repeated:
            continue
        wanted = SpecifierSet(dist.metadata["Requires-Python"] or "")
        only = "" if wanted.contains(f"{OLDEST}.99") else f' ; python_version >= "{NEXT}"'
        print(f"{name}=={dist.version.split('+')[0]}{only}")


if __name__ == "__main__":
    main()
