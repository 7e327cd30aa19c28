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


@pytest.fixture(scope="module")
def official_shaped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny network of the official shape, and its graphs as the command writes them; weights
    beside the graphs, as at the official size."""
    folder = tiny_folder(tmp_path_factory.mktemp("models") / "tiny").path
    exported = folder.parent / "graphs"
    command = ["models", "export", str(folder), "--format", "onnx", "--output", str(exported)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flow3r_ros.network.onnx_export.LARGEST_FILE", 0)
        done = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["difference_to_torch"] < CLOSE
    assert (exported / "decoder.onnx.data").is_file()
    return folder, exported


def test_any_window_of_an_official_shaped_network(official_shaped: tuple[Path, Path]) -> None:
    torch_, exported = (runner(path) for path in official_shaped)
    for asked in (
        window([0], [0]),
        window([0, 1, 2], [2, 0], pairs=((0, 2), (2, 0), (2, 2))),
        window([1, 2, 3, 4, 5], [5, 4, 3], pairs=((5, 3),)),
    ):
        assert_same_answers(torch_, exported, asked)


def test_a_frame_is_encoded_once(official_shaped: tuple[Path, Path], monkeypatch) -> None:
    exported = runner(official_shaped[1])
    encoded, encode = [], exported.model.encode_images

    def counted(images: torch.Tensor) -> torch.Tensor:
        encoded.append(len(images))
        return encode(images)

    monkeypatch.setattr(exported.model, "encode_images", counted)
    exported.predict(window([0, 1, 2], [2]))
    exported.predict(window([1, 2, 3], [3]))
    assert encoded == [1, 1, 1, 1]


def test_what_exported_graphs_cannot_do_is_said(official_shaped: tuple[Path, Path]) -> None:
    path = official_shaped[1]
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


def test_a_damaged_graph_is_found(official_shaped: tuple[Path, Path], tmp_path: Path) -> None:
    manifest = find_model(official_shaped[1]).manifest
    for file in official_shaped[1].iterdir():
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


def test_the_bundled_network_with_evidence(tmp_path: Path) -> None:
    exported, difference = export_model("flow3r_nano", (640, 480), tmp_path / "nano")
    assert difference < CLOSE
    torch_, graphs = runner("flow3r_nano"), runner(exported.path)
    plain = window([0, 1, 2, 3], [3, 2], pairs=((3, 2),))
    width, height = graphs.input_size(*plain.frames[0].rgb.shape[1::-1])
    given = evidence(4, height, width)
    known = Evidence(given.planes[0].numpy(), given.poses[0].double().numpy(), scale=2.0)
    for asked in (plain, replace(plain, evidence=known)):
        assert_same_answers(torch_, graphs, asked)
