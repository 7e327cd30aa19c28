"""What is shown stays one line and says what it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flow3r_ros.cli.main import main
from flow3r_ros.errors import Flow3rError, printable
from test.network.factories import tiny_folder


@pytest.mark.parametrize(
    "text", ["\x1b[2Jx", "a\rb", "a\nb", "\x9b31m", "\u202egpj", "\u2028", "\x7f", "\udcff"]
)
def test_control_characters_are_shown_escaped(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    error = Flow3rError(f"{text}: cannot be read", f"mend {text}")
    assert str(error).isprintable()
    assert shown in str(error)
    str(error).encode()


def test_words_of_every_language_are_shown_as_they_are() -> None:
    assert printable("Küche/カメラ　前/left_optical") == "Küche/カメラ　前/left_optical"


def test_a_licence_cannot_paint_the_terminal(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_folder(home / "tiny").path
    manifest = (folder / "manifest.yaml").read_text()
    evil = manifest.replace("Apache-2.0", r'"MIT\e[2J\nflow3r: all is well"')
    (folder / "manifest.yaml").write_text(evil)
    for command in (["models", "list"], ["models", "info", "tiny"], ["models", "verify", "tiny"]):
        monkeypatch.setattr(sys, "argv", ["flow3r", *command])
        with pytest.raises(SystemExit):
            main()
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err
        assert "\nflow3r: all" not in said.out + said.err


def test_file_names_that_are_no_text(tmp_path: Path, flow3r: Callable[..., str]) -> None:
    strange = os.fsdecode(b"\xff\x1b[31m\n.mp4")
    line = flow3r("run", tmp_path / strange, "--output", tmp_path / "out")
    assert r"\udcff\x1b[31m\n.mp4" in line
