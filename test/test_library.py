"""`import flow3r_ros` as a Python program uses it, and the examples as they stand."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

import flow3r_ros
from flow3r_ros.network.catalog import find_model

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.stem != "__init__")
SAID = {
    "own_frames": ("24 poses", "dropped: none"),
    "two_photos": ("matches", "factored and rigid flow differ by"),
    "video_to_cloud": ("30 of 30 frames", "points", "lengths are in units"),
}
PYTHON_PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


def test_names_come_when_asked_for_and_torch_only_with_a_model() -> None:
    code = (
        "import sys, flow3r_ros\n"
        "assert not {'numpy', 'cv2', 'torch'} & sys.modules.keys()\n"
        "for name in flow3r_ros.__all__: getattr(flow3r_ros, name)\n"
        "assert {*flow3r_ros.__all__} <= {*dir(flow3r_ros)}\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = flow3r_ros.nothing_like_this
    assert (ROOT / "flow3r_ros" / "py.typed").exists()


def test_paths_may_be_text_and_settings_a_mapping(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    settings = {"engine.window": 3, "tracking.depth_width": 168}
    summary = flow3r_ros.run(str(ROOT / "demo/clip"), output, settings, max_frames=3)
    assert summary["frames_estimated"] == 3
    again = flow3r_ros.load_config(Path(output) / "run.yaml")
    assert (again.engine.window, again.tracking.depth_width) == (3, 168)
    camera = flow3r_ros.load_camera(str(ROOT / "demo/clip/camera.json"))
    assert isinstance(camera, flow3r_ros.Camera)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_as_it_stands(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if find_model("flow3r_nano").weights is None:
        pytest.skip("models/flow3r_nano has no weights")
    monkeypatch.chdir(ROOT)
    output = tmp_path / "out"
    arguments = {"video_to_cloud": ["demo/clip", str(output)], "two_photos": [str(output)]}
    monkeypatch.setattr("sys.argv", [str(path), *arguments.get(path.stem, [])])
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    for words in SAID[path.stem]:
        assert words in said
    for picture in output.glob("*.png"):
        assert cv2.imread(str(picture)).std() > 5, f"{picture.name} shows nothing"
    assert f"examples/{path.name}" in PYTHON_PAGE


def test_every_name_stands_on_the_page() -> None:
    assert not [name for name in flow3r_ros.__all__ if f"`{name}" not in PYTHON_PAGE]
