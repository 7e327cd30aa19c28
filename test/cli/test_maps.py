"""`flow3r map` on a map of the ray-cast room."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flow3r_ros.cli.maps import map_app
from flow3r_ros.errors import InputError
from flow3r_ros.slam.disk import save_map
from test.slam.test_disk import recorded

pytest.importorskip("gtsam")


def answer(*arguments: str | Path) -> dict[str, object]:
    result = CliRunner().invoke(map_app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert isinstance(told, dict)
    return told


def test_info_merge_refine_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flow3r_ros.slam.tracks.FEATURES", 300)
    pytest.importorskip("pycolmap")
    one = save_map(tmp_path / "one", recorded(0, 13))
    other = save_map(tmp_path / "other", recorded(18, 24))
    assert answer("info", one)["keyframes"] == 13
    both = answer("merge", one, other, "--output", tmp_path / "both")
    assert (both["keyframes"], both["connected_parts"]) == (19, 1)
    better = answer("refine", other, "--output", tmp_path / "better")
    assert float(str(better["error_px_after"])) < 1.0
    assert answer("info", tmp_path / "better")["keyframes"] == 6
    assert int(str(answer("export", one, "--output", tmp_path / "cloud")["points"])) > 1000
    assert (tmp_path / "cloud" / "cloud.ply").stat().st_size > 10_000
    assert len((tmp_path / "cloud" / "keyframes.tum").read_text().splitlines()) == 13
    answer("export", one, "--output", tmp_path / "colmap", "--format", "colmap")
    assert (tmp_path / "colmap" / "cameras.txt").exists()
    answer("export", one, "--output", tmp_path / "pcl", "--format", "pcd")
    assert (tmp_path / "pcl" / "cloud.pcd").stat().st_size > 10_000
    told = CliRunner().invoke(map_app, ["export", str(one), "-o", str(tmp_path / "said")])
    assert told.output.splitlines()[-1].startswith(f"wrote {tmp_path / 'said'}")


def test_a_map_is_turned_by_mouse_in_rerun(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    from test.offline.test_view import entities

    one = save_map(tmp_path / "one", recorded(0, 3))
    answer("export", one, "--output", tmp_path / "shown", "--format", "rerun")
    told = entities(tmp_path / "shown" / "map.rrd")
    assert {"world/map", "world/way_in_map", "world/keyframes", "world/camera/image/depth"} <= told


def test_what_is_no_map_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no map"):
        CliRunner().invoke(map_app, ["info", str(tmp_path)], catch_exceptions=False)
