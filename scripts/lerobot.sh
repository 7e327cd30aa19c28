#!/usr/bin/env bash
# The real lerobot in an environment of its own, which reads what `flow3r export lerobot` writes (test/datasets/test_lerobot_package.py).
# Safe to call again. Its video decoder wants FFmpeg's libraries under their plain names: PyAV brings them along under other ones.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv-lerobot
STAMP=$VENV/.flow3r_setup
now=$(cat scripts/lerobot.sh scripts/lerobot_requirements.txt | sha256sum)
[ -e "$STAMP" ] && [ "$(cat "$STAMP")" = "$now" ] && exit 0

echo "lerobot: installing lerobot into $VENV"
"${PYTHON:-python3}" -m venv --clear "$VENV"
"$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --requirement scripts/lerobot_requirements.txt
"$VENV/bin/python" -m pip install -qq --disable-pip-version-check torch==2.13.0
mkdir -p "$VENV/ffmpeg"
for library in "$PWD/$VENV"/lib/python3*/site-packages/av.libs/lib{av,sw}*; do
  name=$(basename "$library" | sed -E 's/-[0-9a-f]+(\.so\.[0-9]+).*/\1/')
  ln -sf "$library" "$VENV/ffmpeg/$name"
done
echo "$now" >"$STAMP"
