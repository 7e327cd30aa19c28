"""Names from outside are no paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flow3r_ros.errors import ModelError
from flow3r_ros.network.catalog import find_model
from flow3r_ros.network.checkpoint import import_model
from test.hostile.workshop import contents, download, victim
from test.network.factories import tiny_folder

BAD_NAMES = [
    *("", ".", "..", "../x", "../../victim", "a/b", "a/..", "/tmp/x", "~", ".hidden"),
    *("a b", "a\nb", "a\n", "a\x00b", "\x1b[31mred", "ä", "a" * 101, "\udcff", "a\\b"),
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("origin", ["config", "option"])
def test_a_name_is_not_a_path(
    tmp_path: Path, home: Path, flow3r: Callable[..., str], name: str, origin: str
) -> None:
    work = victim(home.parent.parent / "victim")
    before = contents(work)
    file = download(tmp_path / "download", name if origin == "config" else "tiny")
    if origin == "config" and "\x00" not in name:
        line = flow3r("models", "import", file, "--replace")
        assert "cannot name a model" in line
    else:
        with pytest.raises(ModelError, match="cannot name a model"):
            import_model(file, name if origin == "option" else None, replace=True)
    assert contents(work) == before
    assert not list(home.rglob("*"))


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "x" * 5000, "a\x00b", "..", "/"])
def test_a_name_that_cannot_be_looked_up(name: str) -> None:
    with pytest.raises(ModelError):
        find_model(name)


def test_a_fetched_name_is_not_a_path_either(tmp_path: Path, flow3r: Callable[..., str]) -> None:
    folder = tiny_folder(tmp_path / "elsewhere" / "tiny").path
    (folder / "model.safetensors").unlink()
    assert "cannot name a model" in flow3r("models", "fetch", folder)
