#!/usr/bin/env bash
# The Python packages that a robot lacks, into a virtual environment that sees those of apt (rclpy, cv_bridge, OpenCV).
#
#   scripts/robot_venv.sh ~/flow3r-venv && source ~/flow3r-venv/bin/activate
#
# apt's OpenCV and cv_bridge are compiled against apt's NumPy and fail beside a newer major one. So: where the system's OpenCV
# works, NumPy stays the system's and pip brings neither; where there is none, or it is broken, pip brings both. Everything
# else is taken from the system where it is new enough, and otherwise comes as constraints.txt pins it. Safe to call again.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
venv=${1:-$HOME/flow3r-venv}
python=${PYTHON:-/usr/bin/python3}
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT

fail() { echo "robot_venv: $*" >&2; exit 1; }
of_system() { "$python" -c "$1" 2>/dev/null; }

of_system 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "$python is older than Python 3.10, or missing"
of_system 'import ensurepip' || fail "$python cannot make virtual environments: sudo apt install python3-venv"

numpy=$(of_system 'import numpy; print(numpy.__version__)') || numpy=
opencv=$(of_system 'import cv2, numpy; cv2.resize(numpy.zeros((4, 4), "u1"), (2, 2)); print(cv2.__version__)') || opencv=
torch=$(of_system 'import torch; print(torch.__version__.split("+")[0])') || torch=

packages=(safetensors rosbags huggingface_hub pyyaml rich "pydantic>=2" "typer>=0.12")
if [ -n "$opencv" ]; then
  echo "robot_venv: the system's OpenCV $opencv stays, with its NumPy $numpy"
  grep -viE '^(numpy|opencv-[a-z-]+)==' "$here/constraints.txt" >"$constraints"
  echo "numpy==$numpy" >>"$constraints"
else
  echo "robot_venv: the system has no OpenCV that works; pip brings it, and NumPy"
  cp "$here/constraints.txt" "$constraints"
  packages+=(numpy opencv-python-headless)
fi
if [ -n "$torch" ] && [ "$(printf '%s\n2.1\n' "$torch" | sort -V | head -n 1)" = 2.1 ]; then
  echo "robot_venv: the system's torch $torch stays"
  sed -i '/^torch==/d' "$constraints"
else
  packages+=(torch)
fi

"$python" -m venv --system-site-packages "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$constraints" "${packages[@]}"
"$venv/bin/python" - <<'CHECK' || fail "the packages in $venv do not work together; the error stands above"
import cv2, numpy, pydantic, rosbags, safetensors, torch, typer, yaml
cv2.resize(torch.zeros(4, 4).numpy(), (2, 2))
print(f"robot_venv: OpenCV {cv2.__version__}, NumPy {numpy.__version__}, torch {torch.__version__}, "
      f"pydantic {pydantic.VERSION}, typer {typer.__version__}")
CHECK
echo "robot_venv: done; source $venv/bin/activate"
