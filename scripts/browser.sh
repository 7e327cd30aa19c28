#!/usr/bin/env bash
# Chromium, which the test of the report (test/report/test_browser.py) opens it with; safe to call again.
set -euo pipefail

command -v chromium >/dev/null || command -v google-chrome >/dev/null && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "browser: no Chromium; the report is not looked at by a browser until it is there: sudo apt-get install -y chromium" >&2
  exit 0
fi
echo "browser: installing chromium with apt"
if ! { apt-get update -qq &&
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; }; then
  echo "browser: apt could not install chromium; the report is not looked at by a browser" >&2
fi
