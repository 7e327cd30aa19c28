"""Print constraints.txt from what is installed in the running virtual environment: every dependency
with its exact version.

.venv/bin/python scripts/freeze_constraints.py > constraints.txt
"""

from __future__ import annotations

from importlib.metadata import distributions

OURS = {"flow3r-ros", "pip", "setuptools"}


def main() -> None:
    """Print one `name==version` per installed distribution, ours and the packaging tools left
    out."""
    versions = {
        dist.metadata["Name"].lower().replace("_", "-"): dist.version for dist in distributions()
    }
    print(
        "# Every dependency with its exact version; written by "
        "scripts/freeze_constraints.py, used by scripts/setup.sh."
    )
    for name, version in sorted(versions.items()):
        # The ROS wheels carry a second record without the prefix (rclpy beside ros-rclpy); only the
        # wheel itself is a requirement.
        repeated = f"ros-{name}" in versions or name in {"ament-cmake-test"}
        if name in OURS or repeated:
            continue
        print(f"{name}=={version.split('+')[0]}")


if __name__ == "__main__":
    main()
