"""Weights on disk: what is written can be read, and every way a file can be wrong is named with its
cure."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from flow3r_ros.errors import ModelError, OutputError
from flow3r_ros.network.catalog import (
    InputSpec,
    Manifest,
    describe,
    find_model,
    licence_note,
    list_models,
    verify,
)
from flow3r_ros.network.checkpoint import (
    import_model,
    load_model,
    read_weights,
    save_model_folder,
    verify_model,
    write_manifest,
)
from test.network.factories import images, tiny_config, tiny_folder, tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "models" / "tiny").path


def rewrite(folder: Path, change) -> None:
    """Change the stored tensors and let the manifest follow, so that only the content is wrong."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    forget_hash(folder)


def forget_hash(folder: Path) -> None:
    write_manifest(folder, find_model(folder).manifest.model_copy(update={"sha256": ""}))


def one_line_error(path: Path | str, load=load_model) -> str:
    with pytest.raises(ModelError) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert error.value.cure
    return str(error.value)


def test_what_is_saved_is_loaded(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model = load_model(folder)
    assert "licence of the weights: Apache-2.0" in caplog.text
    assert "a test" in caplog.text
    with torch.no_grad():
        assert torch.equal(model(images(2))["points"], tiny_model()(images(2))["points"])
    assert not model.training
    assert find_model(folder).manifest.parameters == sum(
        parameter.numel() for parameter in model.parameters()
    )
    assert verify_model(folder).startswith("tiny: sha256 as in the manifest")


def test_bfloat16_arithmetic_keeps_float32_outputs(folder: Path) -> None:
    model = load_model(folder, dtype=torch.bfloat16)
    with torch.no_grad():
        out = model(images(2))
        plain = tiny_model()(images(2))
    assert out["points"].dtype == torch.float32
    difference = (out["points"] - plain["points"]).abs().median()
    assert 0 < float(difference) < 0.1


def test_unknown_licence_says_check_the_licence(folder: Path) -> None:
    manifest = find_model(folder).manifest.model_copy(
        update={"license": Manifest.model_fields["license"].default}
    )
    assert "check the licence" in licence_note(manifest)
    large = find_model("flow3r_large")
    assert "check the licence" in licence_note(large.manifest)
    assert describe(large)["parameters"] == 1_001_053_694


def test_saving_again_replaces_and_leaves_nothing_behind(folder: Path) -> None:
    manifest = find_model(folder).manifest
    save_model_folder(folder, tiny_model(seed=1), manifest, replace=True)
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "manifest.yaml",
        "model.safetensors",
    ]
    assert find_model(folder).manifest.sha256 != manifest.sha256


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    manifest = Manifest(name="x", source="y", parameters=0, input=InputSpec(resolution=(56, 42)))
    with pytest.raises(OutputError, match="cannot be written"):
        save_model_folder(tmp_path / "file" / "x", tiny_model(), manifest)


def test_missing_model_names_the_known_ones(folder: Path) -> None:
    assert "flow3r_large" in one_line_error("flow3r_nonsense")
    assert "flow3r models import" in one_line_error(folder / "model.safetensors")


def test_missing_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "flow3r models fetch" in one_line_error(folder)


def test_changed_weights_fail_their_hash(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"\x00\x00\x00\x01")
    assert "sha256" in one_line_error(folder)


def test_truncated_safetensors(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    forget_hash(folder)
    message = one_line_error(folder)
    assert str(weights) in message
    assert "truncated" in message


def test_wrong_shape(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({"camera_head.fc_t.bias": torch.zeros(4)}))
    assert "camera_head.fc_t.bias has shape [4], not [3]" in one_line_error(folder)


def test_missing_and_unexpected_tensors(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.pop("encoder.norm.weight"))
    assert "encoder.norm.weight" in one_line_error(folder)
    rewrite(
        folder,
        lambda tensors: tensors.update(
            {"encoder.norm.weight": torch.ones(32), "mask_token": torch.ones(1)}
        ),
    )
    assert "mask_token" in one_line_error(folder)


def test_not_finite_weights(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors["encoder.norm.weight"].fill_(float("nan")))
    assert "encoder.norm.weight is not finite" in one_line_error(folder)


def test_pi3_checkpoint_loads_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def drop_flow(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if key.startswith("flow_head.")]:
            del tensors[key]

    rewrite(folder, drop_flow)
    with caplog.at_level(logging.WARNING):
        model = load_model(folder)
    assert "no flow head" in caplog.text
    with torch.no_grad():
        out = model(images(2), torch.tensor([[[0, 1]]]))
        plain = tiny_model()(images(2))
    assert torch.isfinite(out["flow"]).all()
    assert torch.equal(out["points"], plain["points"])


class Malicious:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.victim,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "writer", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))]
)
def test_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, writer) -> None:
    victim = tmp_path / "executed"
    file = tmp_path / "flow3r.bin"
    writer({"weight": Malicious(victim)}, file)
    message = one_line_error(file, read_weights)
    assert str(file) in message
    assert "could run code" in message
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "flow3r.bin"),
        (b"PK\x03\x04 not a zip", "flow3r.bin"),
        (b"<html>Access denied</html>", "flow3r.bin"),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "flow3r.bin"
    file.write_bytes(content)
    assert said in one_line_error(file, read_weights)


def test_truncated_torch_file(tmp_path: Path) -> None:
    file = tmp_path / "flow3r.bin"
    torch.save(tiny_model().state_dict(), file)
    file.write_bytes(file.read_bytes()[:-5000])
    assert str(file) in one_line_error(file, read_weights)


def test_a_pickle_of_something_else(tmp_path: Path) -> None:
    file = tmp_path / "flow3r.bin"
    torch.save({"epoch": 3}, file)
    assert "state dict" in one_line_error(file, read_weights)


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_torch_file_is_imported(tmp_path: Path, wrapper: str | None) -> None:
    source = tmp_path / "download"
    source.mkdir()
    weights = tiny_model().state_dict()
    torch.save({wrapper: weights} if wrapper else weights, source / "flow3r.bin")
    (source / "config.json").write_text(tiny_config().model_dump_json())
    folder = import_model(source / "flow3r.bin", name="mine", directory=tmp_path / "models")
    assert folder.path == tmp_path / "models" / "mine"
    assert "check the licence" in licence_note(folder.manifest)
    assert "flow3r.bin" in folder.manifest.source
    verify(folder)
    with torch.no_grad():
        assert torch.equal(
            load_model(folder.path)(images(2))["conf"], tiny_model()(images(2))["conf"]
        )


def test_import_of_weights_that_fit_nothing(tmp_path: Path) -> None:
    save_file(tiny_model().state_dict(), tmp_path / "model.safetensors")
    assert "does not fit the architecture flow3r_large" in one_line_error(
        tmp_path / "model.safetensors", import_model
    )


def test_manifest_errors_name_file_and_key(folder: Path) -> None:
    tree = yaml.safe_load((folder / "manifest.yaml").read_text())
    tree["parameters"] = "many"
    (folder / "manifest.yaml").write_text(yaml.safe_dump(tree))
    message = one_line_error(folder)
    assert "manifest.yaml" in message
    assert "parameters" in message
    (folder / "manifest.yaml").unlink()
    assert "manifest.yaml" in one_line_error(folder)


def test_models_are_found_by_name_and_ones_with_weights_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "install"))
    installed = tmp_path / "install" / "share" / "flow3r_ros" / "models"
    tiny_folder(installed / "tiny")
    empty = tiny_folder(tmp_path / "data" / "flow3r" / "models" / "tiny")
    (empty.path / "model.safetensors").unlink()
    assert find_model("tiny").path == installed / "tiny"
    assert "tiny" in [found.path.name for found in list_models()]


def test_one_broken_folder_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    mine = tmp_path / "flow3r" / "models"
    tiny_folder(mine / "good")
    tiny_folder(mine / "broken")
    (mine / "broken" / "manifest.yaml").write_text("name: [")
    with caplog.at_level(logging.WARNING):
        names = [found.path.name for found in list_models()]
    assert "good" in names
    assert "broken" not in names
    assert "manifest.yaml" in caplog.text
    assert find_model("good").weights
    assert "manifest.yaml" in one_line_error("broken")
