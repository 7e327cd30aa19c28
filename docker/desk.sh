#!/usr/bin/env bash
# flow3r in a virtual environment of its own, without ROS: what the desk image does, and CI.
#
#   docker/desk.sh [VENV]    default /opt/flow3r
#   PYTHON=python3.13 docker/desk.sh venv
set -euo pipefail
venv=${1:-/opt/flow3r}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A copy of what is installed, so that nothing is built inside the tree.
mkdir "$work/source"
cp -a "$root"/{flow3r_ros,config,launch,models,msg,pyproject.toml,setup.py,package.xml,README.md,LICENSE} "$work/source"

"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install --quiet --no-cache-dir --disable-pip-version-check \
  --constraint "$root/constraints.txt" "$work/source"
"$venv/bin/flow3r" --version
"$venv/bin/flow3r" doctor
"$venv/bin/flow3r" run "$root/demo/clip" --max-frames 5 --output "$work/out" --quiet >/dev/null
test -s "$work/out/report.html"
echo "desk: flow3r is installed in $venv and runs"
