"""Exported graphs answer as the network in torch does, through the same Runner."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from flow3r_ros.cli.main import app
from flow3r_ros.config import ModelSettings
from flow3r_ros.errors import ModelError
from flow3r_ros.network.catalog import find_model
from flow3r_ros.network.checkpoint import load_model, write_manifest
from flow3r_ros.network.onnx_export import export_model
from flow3r_ros.network.runner import Runner, open_predictor
from flow3r_ros.types import Evidence, Window
from test.network.factories import evidence, tiny_folder, window

CLOSE = 1e-3
"""allowed difference, as a share of the largest value of an output"""


def runner(path: Path | str, **settings: object) -> Runner:
    return open_predictor(ModelSettings(name=str(path), device="cpu", dtype="float32", **settings))


def assert_same_answers(torch_: Runner, exported: Runner, asked: Window) -> None:
    expected, answer = torch_.predict(asked), exported.predict(asked)
    assert answer.frame_ids == expected.frame_ids
    pairs = [(answer.flow[pair], flow) for pair, flow in expected.flow.items()]
    for name in ("local_points", "confidence", "poses"):
        pairs.append((getattr(answer, name), getattr(expected, name)))
    for ours, theirs in pairs:
        assert np.abs(ours - theirs).max() <= CLOSE * np.abs(theirs).max()


WINDOWS = (
    window([0], [0]),
    window([0, 1, 2], [2, 0], pairs=((0, 2), (2, 0), (2, 2))),
    window([1, 2, 3, 4, 5], [5, 4, 3], pairs=((5, 3),)),
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny network of the bundled one's kind, and its graphs as the command writes them; weights
    beside the graphs, as at the official size. Tracing takes half a minute, whatever the width."""
    tiny = tmp_path_factory.mktemp("models") / "tiny"
    folder = tiny_folder(tiny, evidence=True, base="reprojection", shallow=True).path
    graphs = folder.parent / "graphs"
    command = ["models", "export", str(folder), "--format", "onnx", "--output", str(graphs)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flow3r_ros.network.onnx_export.LARGEST_FILE", 0)
        done = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["difference_to_torch"] < CLOSE
    assert (graphs / "decoder.onnx.data").is_file()
    return folder, graphs


def assert_same_with_evidence(torch_: Runner, graphs: Runner, asked: Window) -> None:
    """With evidence and without it."""
    width, height = graphs.input_size(*asked.frames[0].rgb.shape[1::-1])
    given = evidence(len(asked.frames), height, width)
    known = Evidence(given.planes[0].numpy(), given.poses[0].double().numpy(), scale=2.0)
    for each in (asked, replace(asked, evidence=known)):
        assert_same_answers(torch_, graphs, each)


def test_any_window(exported: tuple[Path, Path]) -> None:
    torch_, graphs = (runner(path) for path in exported)
    for asked in WINDOWS:
        assert_same_with_evidence(torch_, graphs, asked)


@pytest.mark.thorough
def test_any_window_of_an_official_shaped_network(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny").path
    graphs, _ = export_model(str(folder), (640, 480), tmp_path / "graphs")
    for asked in WINDOWS:
        assert_same_answers(runner(folder), runner(graphs.path), asked)


def test_a_frame_is_encoded_once(exported: tuple[Path, Path], monkeypatch) -> None:
    graphs = runner(exported[1])
    encoded, encode = [], graphs.model.encode_images

    def counted(images: torch.Tensor) -> torch.Tensor:
        encoded.append(len(images))
        return encode(images)

    monkeypatch.setattr(graphs.model, "encode_images", counted)
    graphs.predict(window([0, 1, 2], [2]))
    graphs.predict(window([1, 2, 3], [3]))
    assert encoded == [1, 1, 1, 1]


def test_what_exported_graphs_cannot_do_is_said(exported: tuple[Path, Path]) -> None:
    path = exported[1]
    wide = window([0], [0])
    frame = wide.frames[0]
    frame = type(frame)(id=frame.id, stamp_ns=frame.stamp_ns, rgb=frame.rgb[:60])
    with pytest.raises(ModelError, match="exported for 56x42") as refused:
        runner(path).predict(Window((frame,), wide.wanted))
    assert "--image" in refused.value.cure
    with pytest.raises(ModelError, match="only cpu"):
        runner(path, provider="tensorrt")
    with pytest.raises(ModelError, match="exported graph"):
        load_model(path)


def test_a_damaged_graph_is_found(exported: tuple[Path, Path], tmp_path: Path) -> None:
    manifest = find_model(exported[1]).manifest
    for file in exported[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "encoder.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"encoder\.onnx: sha256"):
        runner(tmp_path)
    assert manifest.graphs is not None
    unknown = manifest.graphs.model_copy(
        update={"sha256": dict.fromkeys(manifest.graphs.sha256, "")}
    )
    write_manifest(tmp_path, manifest.model_copy(update={"graphs": unknown}))
    with pytest.raises(ModelError, match=r"encoder\.onnx: onnxruntime cannot open it"):
        runner(tmp_path)


def test_the_packages_are_optional(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match="onnxruntime") as refused:
        export_model("flow3r_nano", (640, 480), tmp_path / "out")
    assert "pip install" in refused.value.cure
    assert not (tmp_path / "out").exists()


@pytest.mark.thorough
def test_the_bundled_network(tmp_path: Path) -> None:
    graphs, difference = export_model("flow3r_nano", (640, 480), tmp_path / "nano")
    assert difference < CLOSE
    asked = window([0, 1, 2, 3], [3, 2], pairs=((3, 2),))
    assert_same_with_evidence(runner("flow3r_nano"), runner(graphs.path), asked)
