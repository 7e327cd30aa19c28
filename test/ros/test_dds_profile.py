"""The profile for large messages: taken where none is set, in this process alone."""

from __future__ import annotations

import os

import pytest

from flow3r_ros.ros.dds_profile import VARIABLES, profile_path, use_large_messages
from test.ros.node_process import ROOT


@pytest.mark.parametrize("chosen", [None, *VARIABLES])
def test_a_profile_that_is_set_stays(monkeypatch: pytest.MonkeyPatch, chosen: str | None) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "mine.xml")  # so that it is put back
        monkeypatch.delenv(variable)
    if chosen:
        monkeypatch.setenv(chosen, "mine.xml")
    use_large_messages()
    found = {variable: os.environ.get(variable) for variable in VARIABLES}
    if chosen:
        assert found == dict.fromkeys(VARIABLES) | {chosen: "mine.xml"}
    else:
        assert found == dict.fromkeys(VARIABLES, str(profile_path()))


def test_no_launch_file_sets_it_for_everybody() -> None:
    for path in (*(ROOT / "launch").glob("*.py"), ROOT / "flow3r_ros/ros/launching.py"):
        assert "SetEnvironmentVariable" not in path.read_text(encoding="utf-8")
