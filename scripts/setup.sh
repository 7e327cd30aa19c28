#!/usr/bin/env bash
# Everything that development, tests and the demo need, into one virtual environment. Safe to call again: the second call
# compares a fingerprint and returns at once.
#
#   scripts/setup.sh                  ROS 2 Jazzy in .venv
#   VENV=/some/where scripts/setup.sh
#
# Needs Python 3.10-3.13 on x86_64 with glibc 2.28 or newer. Downloads come from PyPI (and Debian's archive for a missing compiler).
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=$(realpath -m "${VENV:-.venv}")
PYTHON=${PYTHON:-python3}
STAMP=$VENV/.flow3r_setup

say() { echo "setup: $*"; }

fingerprint() {
  { echo "$PWD"; cat scripts/setup.sh scripts/ros_packages.py constraints.txt pyproject.toml setup.py CMakeLists.txt package.xml msg/*.msg; } \
    | sha256sum
}

install_system_packages() {
  # The compiler, the build tools, Python's headers and its venv module: what a bare Debian lacks.
  local missing=()
  command -v g++ >/dev/null || missing+=(g++)
  command -v cmake >/dev/null || missing+=(cmake)
  command -v ninja >/dev/null || missing+=(ninja-build)
  "$PYTHON" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
  [ -e "$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || missing+=(python3-dev)
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ]; then
    echo "setup: missing ${missing[*]}; install them first: sudo apt-get install -y ${missing[*]}" >&2
    exit 1
  fi
  say "installing ${missing[*]} with apt"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

install_python_packages() {
  [ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
  say "installing Python packages into $VENV"
  "$VENV/bin/python" scripts/ros_packages.py wheels >"$VENV/ros-requirements.txt"
  "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --constraint constraints.txt \
    --requirement "$VENV/ros-requirements.txt" --editable ".[viz,train,fleet,hub,lerobot,onnx,slam,refine,ros,docs,dev]"
}

build_interfaces() {
  say "building the messages of flow3r_ros and tf2_msgs"
  "$VENV/bin/python" scripts/ros_packages.py fix-wheels
  "$VENV/bin/python" scripts/ros_packages.py write-tf2-msgs "$VENV/build/tf2_msgs_source"
  build_package tf2_msgs "$VENV/build/tf2_msgs_source"
  build_package flow3r_ros "$PWD" -DFLOW3R_DEVELOP=ON
}

build_package() {
  local name=$1 source=$2 log=$VENV/build/$1.log
  shift 2
  if ! env PATH="$VENV/bin:$PATH" AMENT_PREFIX_PATH="$VENV" bash -euc '
      venv=$1 source=$2 build=$3; shift 3
      cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF \
        -DCMAKE_INSTALL_PREFIX="$venv" -DCMAKE_PREFIX_PATH="$venv" -DPython3_EXECUTABLE="$venv/bin/python3" "$@"
      cmake --build "$build"
      cmake --install "$build"' build "$VENV" "$source" "$VENV/build/$name" "$@" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "setup: building $name failed; the whole log is $log" >&2
    exit 1
  fi
}

now=$(fingerprint)
if [ -e "$STAMP" ] && [ "$(cat "$STAMP")" = "$now" ]; then
  exit 0
fi
install_system_packages
install_python_packages
build_interfaces
(cd / && "$VENV/bin/python" -c 'from flow3r_ros.msg import TrackingStatus; from tf2_msgs.msg import TFMessage; import rclpy')
echo "$now" >"$STAMP"
say "done: $VENV (ROS 2 Jazzy)"
