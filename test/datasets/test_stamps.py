"""Stamps in files and names: the unit is what the numbers say, no digit is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from flow3r_ros.datasets.stamps import read_stamps, stamps_of_names
from flow3r_ros.errors import InputError

UNITS = {
    "1305031102.1\n1305031102.175": [1305031102_100000000, 1305031102_175000000],
    "1403636579763555584\n1403636579863555584": [1403636579763555584, 1403636579863555584],
    "1403636579763555584.000000": [1403636579763555584],
    "1403636579763\n1403636579863": [1403636579763000000, 1403636579863000000],
    "0\n33333333\n66666666": [0, 33333333, 66666666],
    "0\n0.1\n0.2": [0, 100000000, 200000000],
    "0\n33\n66": [0, 33000000000, 66000000000],
    "1500000000\n1533333333": [1500000000, 1533333333],
    "2011-09-26 13:02:25.964389445": [1317042145964389445],
    "# seconds\n0.000000e+00\n1.036224e-01": [0, 103622400],
}


@pytest.mark.parametrize("text", UNITS)
def test_units(tmp_path: Path, text: str) -> None:
    (tmp_path / "timestamps.txt").write_text(text)
    assert read_stamps(tmp_path / "timestamps.txt") == UNITS[text]


def test_another_unit_is_said(tmp_path: Path) -> None:
    notes: list[str] = []
    (tmp_path / "t.txt").write_text("1403636579763555584\n")
    read_stamps(tmp_path / "t.txt", notes)
    assert notes == ["t.txt is read as nanoseconds"]


@pytest.mark.parametrize("text", ["0\n1e16\n", "5\n1e9\n3e12\n", "0.5\n9e12\n2e13\n"])
def test_no_unit_fits(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(InputError, match="no times in seconds, nor in any other unit"):
        read_stamps(tmp_path / "t.txt")


@pytest.mark.parametrize("text", ["soon", "nan", "1e400", "2011-13-45 99:00:00.5"])
def test_what_is_no_stamp_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(InputError, match=r"t\.txt:1"):
        read_stamps(tmp_path / "t.txt")


@pytest.mark.parametrize(
    "name", ["0000000007.png", "frame_7.png", "IMG_20240501_102233.jpg", "20240501102233.png"]
)
def test_indices_and_dates_without_fractions_are_no_stamps(name: str) -> None:
    assert stamps_of_names([name]) is None


def test_names_of_two_series_are_no_stamps() -> None:
    assert stamps_of_names(["left1403636579.5.png", "right1403636579.5.png"]) is None
