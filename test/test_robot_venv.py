"""`scripts/robot_venv.sh` beside what a robot's system has: a stand-in for the system's Python says
what that is, and one for pip writes down what it is asked for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "robot_venv.sh"
PYTHON = """#!/bin/sh
[ "$1" = -m ] && { mkdir -p "$4/bin"; cp "{pip}" "$4/bin/python"; exit; }
case "$2" in
  *cv2*) [ -n "{opencv}" ] && echo "{opencv}" ;;
  *torch*) [ -n "{torch}" ] && echo "{torch}" ;;
  *numpy*) echo "{numpy}" ;;
esac
"""
PIP = """#!/bin/sh
[ "$1" = -m ] || { cat >/dev/null; exit; }
while [ "$1" != --constraint ]; do shift; done
cp "$2" "{folder}/constraints"
shift 2
printf '%s\\n' "$@" >"{folder}/packages"
"""


def asked_of_pip(folder: Path, numpy: str, opencv: str, torch: str) -> tuple[set[str], list[str]]:
    """Packages and constraints that pip gets where the system has these versions ('': none)."""
    pip = folder / "pip"
    pip.write_text(PIP.replace("{folder}", str(folder)))
    python = folder / "python3"
    text = PYTHON.replace("{pip}", str(pip)).replace("{numpy}", numpy)
    python.write_text(text.replace("{opencv}", opencv).replace("{torch}", torch))
    for program in (pip, python):
        program.chmod(0o755)
    done = subprocess.run(
        [SCRIPT, folder / "venv"],
        env=os.environ | {"PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"source {folder / 'venv'}/bin/activate" in done.stdout
    return (
        set((folder / "packages").read_text().split("\n")) - {""},
        (folder / "constraints").read_text().splitlines(),
    )


def test_a_system_opencv_that_works_stays_and_pins_numpy(tmp_path: Path) -> None:
    """Debian 12: pip's newest NumPy would break apt's OpenCV 4.6."""
    packages, constraints = asked_of_pip(tmp_path, "1.24.2", "4.6.0", "")
    assert [line for line in constraints if line.startswith("numpy==")] == ["numpy==1.24.2"]
    assert not any(line.startswith("opencv") for line in constraints)
    assert not packages & {"numpy", "opencv-python-headless"}
    assert {"torch", "pydantic>=2", "typer>=0.12", "safetensors"} <= packages


def test_without_a_system_opencv_pip_brings_it_and_numpy(tmp_path: Path) -> None:
    packages, constraints = asked_of_pip(tmp_path, "1.24.2", "", "")
    assert {"numpy", "opencv-python-headless"} <= packages
    assert constraints == (SCRIPT.parents[1] / "constraints.txt").read_text().splitlines()


@pytest.mark.parametrize(("torch", "stays"), [("2.6.0", True), ("1.13.1", False)])
def test_a_system_torch_that_is_new_enough_stays(tmp_path: Path, torch: str, stays: bool) -> None:
    packages, constraints = asked_of_pip(tmp_path, "1.26.4", "4.6.0", torch)
    assert ("torch" in packages) != stays
    assert any(line.startswith("torch==") for line in constraints) != stays
