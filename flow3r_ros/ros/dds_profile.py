"""The Fast DDS profile for large messages: taken by our processes unless the user has chosen
one."""

from __future__ import annotations

import os
from pathlib import Path

from flow3r_ros.paths import shared_files

VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""read by Jazzy and older, by Kilted and newer"""
NAME = "fastdds_large_messages.xml"


def profile_path() -> Path | None:
    """config/fastdds_large_messages.xml of the source tree or the installation; None where it is
    missing."""
    return next(iter(shared_files(f"config/{NAME}")), None)


def use_large_messages() -> None:
    """Set the profile for this process, before its first participant is made; a profile that is set
    already stays."""
    path = profile_path()
    if path is None or any(variable in os.environ for variable in VARIABLES):
        return
    for variable in VARIABLES:
        os.environ[variable] = str(path)
