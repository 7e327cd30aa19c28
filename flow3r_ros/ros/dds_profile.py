"""The Fast DDS profile for large messages: taken by our processes unless the user has chosen one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""read by Jazzy and older, by Kilted and newer"""
NAME = "fastdds_large_messages.xml"


def profile_path() -> Path | None:
    """config/fastdds_large_messages.xml in the source tree or below share/flow3r_ros of an install prefix."""
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    candidates = [Path(__file__).resolve().parents[2] / "config" / NAME]
    candidates += [Path(prefix) / "share" / "flow3r_ros" / "config" / NAME for prefix in prefixes if prefix]
    return next((path for path in candidates if path.is_file()), None)


def use_large_messages() -> None:
    """Set the profile for this process, before its first participant is made; a profile that is set already stays."""
    path = profile_path()
    if path is None or any(variable in os.environ for variable in VARIABLES):
        return
    for variable in VARIABLES:
        os.environ[variable] = str(path)
