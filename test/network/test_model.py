"""The network against the golden set, the official keys, and the properties its users rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flow3r_ros.errors import ModelError
from flow3r_ros.network import Flow3r
from flow3r_ros.network.config import Flow3rConfig, load_architecture, preset
from flow3r_ros.network.evidence import assumed_rays, full_resolution_rays
from flow3r_ros.network.flow_head import ndc_grid
from flow3r_ros.network.heads import nearest_rotation
from flow3r_ros.network.outputs import EvidenceInput
from flow3r_ros.network.rope import token_positions
from test.conftest import shared_path
from test.network.factories import COLUMNS, ROWS, evidence, images, tiny_config, tiny_model
from test.network.reference import differences, load

TOLERANCES = {
    "points": 1e-4,
    "local_points": 5e-5,
    "conf": 1e-5,
    "camera_poses": 2e-5,
    "flow": 2e-5,
}


def golden_sets() -> Iterator[tuple[Path, str]]:
    folder = shared_path("reference")
    for config in sorted(folder.glob("*_config.json")):
        yield folder, config.name.removesuffix("_config.json")


def test_golden_outputs() -> None:
    for folder, name in golden_sets():
        for key, difference in differences(folder, name).items():
            assert difference <= TOLERANCES[key], f"{name}: {key} differs by {difference}"


def test_golden_activations() -> None:
    for folder, name in golden_sets():
        model, stored = load(folder, name)
        with recorded(model) as seen, torch.no_grad():
            model(stored["images"], stored["pair_indices"])
        checked = 0
        for key, expected in stored.items():
            if not key.startswith("act."):
                continue
            ours = seen[key.removeprefix("act.")]
            assert ours.shape == expected.shape, f"{name}: {key} has shape {tuple(ours.shape)}"
            assert float((ours - expected).abs().max()) <= 2e-5, f"{name}: {key}"
            checked += 1
        assert checked > 30


@contextmanager
def recorded(model: Flow3r) -> Iterator[dict[str, Tensor]]:
    """Collect the activations under the golden set's names while the model runs."""
    seen: dict[str, Tensor] = {}
    handles = []

    def out(module: nn.Module, key: str) -> None:
        handles.append(
            module.register_forward_hook(lambda _m, _i, value: seen.__setitem__(key, value))
        )

    def into(module: nn.Module, key: str) -> None:
        handles.append(
            module.register_forward_pre_hook(lambda _m, inputs: seen.__setitem__(key, inputs[0]))
        )

    into(model.encoder.blocks[0], "enc_tokens_in")
    out(model.encoder, "enc_patch_tokens")
    into(model.decoder[0], "decoder_tokens_in")
    into(model.point_decoder.projects, "decoder_output")
    for index, block in enumerate(model.encoder.blocks):
        out(block, f"enc_block_{index}")
    for index, block in enumerate(model.decoder):
        out(block, f"decoder_block_{index}")
    for part in ("point", "conf", "camera"):
        decoder = getattr(model, f"{part}_decoder")
        out(decoder.linear_out, f"{part}_hidden")
        for index, block in enumerate(decoder.blocks[-4:]):
            out(block, f"{part}_intermediate_{index}")
    out(model.camera_head.fc_t, "camera_t_raw")
    out(model.camera_head.fc_rot, "camera_rot9_raw")
    head = model.flow_head
    fused: list[Tensor] = []
    handles.append(head.norm.register_forward_hook(lambda _m, _i, value: fused.append(value)))
    for index, layer in enumerate(head.resize_layers):
        out(layer, f"flow_resized_{index}")
    for index in (1, 2, 3, 4):
        out(head.scratch[f"refinenet{index}"], f"flow_refinenet{index}")
    out(head.scratch["output_conv1"], "flow_output_conv1")
    yield seen
    for handle in handles:
        handle.remove()
    seen |= {f"flow_fused_{index}": value for index, value in enumerate(fused)}
    frames = seen["point_hidden"].shape[0]
    rows, columns = seen["flow_resized_2"].shape[-2:]
    seen["positions"] = token_positions(
        rows, columns, model.config.decoder.registers, torch.device("cpu")
    ).expand(frames, -1, -1)


def test_reference_program_prints_one_json_object() -> None:
    folder, name = next(golden_sets())
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "test.network.reference", str(folder), name],
        capture_output=True,
        text=True,
        cwd=root,
        check=True,
    )
    result = json.loads(done.stdout)
    assert set(result) == set(TOLERANCES)


def test_full_size_keys_and_shapes_are_the_official_ones() -> None:
    official = json.loads(shared_path("reference/flow3r_large_state_dict.json").read_text())
    with torch.device("meta"):
        model = Flow3r(preset("large"))
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert ours == {entry["key"]: entry["shape"] for entry in official["state_dict"]}
    assert (
        sum(parameter.numel() for parameter in model.parameters())
        == official["total_parameters"]
        == 1_001_053_694
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"evidence": True, "base": "reprojection"}, {"convolutional": True, "base": "identity"}],
)
def test_permuting_frames_permutes_outputs(options: dict[str, object]) -> None:
    model, order = tiny_model(**options), torch.tensor([2, 0, 1])
    pictures, given = images(3, batch=2), evidence(3, batch=2) if "evidence" in options else None
    pairs = torch.tensor([[[0, 1], [2, 0]], [[1, 1], [0, 2]]])
    place = torch.argsort(order)
    with torch.no_grad():
        plain = model(pictures, pairs, given)
        mixed = model(
            pictures[:, order],
            place[pairs],
            given and EvidenceInput(given.planes[:, order], given.poses[:, order]),
        )
    for key in ("points", "local_points", "conf", "camera_poses"):
        torch.testing.assert_close(mixed[key], plain[key][:, order], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(mixed["flow"], plain["flow"], atol=1e-3, rtol=1e-4)


def test_flow_changes_nothing_else_and_is_none_without_pairs() -> None:
    model, pictures = tiny_model(), images(2)
    with torch.no_grad():
        without, with_flow = model(pictures), model(pictures, torch.tensor([[[0, 1]]]))
    assert without["flow"] is None
    assert with_flow["flow"].shape == (1, 1, ROWS, COLUMNS, 2)
    assert torch.equal(without["points"], with_flow["points"])


def test_heads_only_for_wanted_frames_change_no_answer() -> None:
    model, pictures, given = tiny_model(evidence=True, base="reprojection"), images(4), evidence(4)
    pairs = torch.tensor([[[3, 1]]])
    with torch.no_grad():
        full = model(pictures, pairs, given)
        tokens = model.encode_images(pictures[0])[None]
        part = model.decode(tokens, (ROWS, COLUMNS), pairs, given, wanted=torch.tensor([3, 1]))
        for key in ("points", "local_points", "conf", "camera_poses"):
            torch.testing.assert_close(part[key], full[key][:, [3, 1]], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(part["flow"], full["flow"], atol=1e-4, rtol=1e-4)
        with pytest.raises(ValueError, match="wanted"):
            model.decode(
                tokens, (ROWS, COLUMNS), torch.tensor([[[0, 1]]]), given, wanted=torch.tensor([1])
            )


@pytest.mark.parametrize(
    "options", [{}, {"evidence": True, "convolutional": True, "base": "reprojection"}]
)
def test_bfloat16_autocast_on_the_cpu(options: dict[str, object]) -> None:
    model, pairs = tiny_model(**options), torch.tensor([[[0, 1]]])
    with torch.no_grad():
        exact = model(images(2), pairs)
        with torch.autocast("cpu", torch.bfloat16):
            coarse = model(images(2), pairs)
    for key in ("points", "local_points", "conf", "camera_poses", "flow"):
        assert coarse[key].dtype == torch.float32
        assert 0 < float((coarse[key] - exact[key]).abs().median()) < 0.1
    rotation = coarse["camera_poses"][0, :, :3, :3]
    torch.testing.assert_close(
        rotation @ rotation.transpose(1, 2), torch.eye(3).expand(2, 3, 3), atol=1e-5, rtol=0
    )


def test_rotary_angles_stay_exact_under_autocast() -> None:
    positions = token_positions(40, 40, 0, torch.device("cpu"))
    from flow3r_ros.network.rope import rotation

    with torch.autocast("cpu", torch.bfloat16):
        turn = rotation(positions, 64, 100.0)
    exact = positions[:, 1].double() * 100.0 ** -(2 * 3 / 32)
    assert turn.cos.dtype == torch.float32
    torch.testing.assert_close(turn.cos[:, 32 + 3].double(), exact.cos(), atol=1e-5, rtol=0)


def test_without_evidence_an_evidence_network_still_answers() -> None:
    model = tiny_model(evidence=True, base="reprojection")
    with torch.no_grad():
        out = model(images(2), torch.tensor([[[0, 1]]]))
        told = model(images(2), None, evidence(2))
    assert all(torch.isfinite(out[key]).all() for key in ("points", "conf", "camera_poses", "flow"))
    assert not torch.allclose(out["points"], told["points"])


def test_fresh_evidence_network_starts_on_its_rays_and_prior() -> None:
    torch.manual_seed(0)
    model, given = Flow3r(tiny_config(evidence=True, base="reprojection")).eval(), evidence(2)
    with torch.no_grad():
        out = model(images(2), torch.tensor([[[0, 0]]]), given)
    torch.testing.assert_close(out["camera_poses"], given.poses)
    rays = out["local_points"][..., :2] / out["local_points"][..., 2:]
    assert float((rays - full_resolution_rays(given.planes[0], ROWS, COLUMNS)).abs().mean()) < 0.05
    assert float((out["flow"] - ndc_grid(ROWS, COLUMNS, torch.device("cpu"))).abs().median()) < 0.1


def test_rays_at_full_resolution_are_exact_to_the_border() -> None:
    planes = evidence(1).planes[0]
    x = (torch.arange(COLUMNS) - (COLUMNS - 1) / 2) / COLUMNS
    torch.testing.assert_close(
        full_resolution_rays(planes, ROWS, COLUMNS)[0, 5, :, 0], x, atol=1e-5, rtol=0
    )
    unknown = full_resolution_rays(torch.zeros(1, 10, ROWS // 2, COLUMNS // 2), ROWS, COLUMNS)
    torch.testing.assert_close(unknown[0], assumed_rays(ROWS, COLUMNS, planes.device))


def test_gradient_of_the_rotation_is_finite_at_the_identity_and_right_elsewhere() -> None:
    identity = torch.eye(3, dtype=torch.float64, requires_grad=True)
    nearest_rotation(identity)[0, 1].backward()
    torch.testing.assert_close(
        identity.grad, torch.tensor([[0, 0.5, 0], [-0.5, 0, 0], [0, 0, 0]], dtype=torch.float64)
    )
    torch.manual_seed(3)
    for _ in range(4):
        matrix = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(nearest_rotation, (matrix,), atol=1e-4)


def test_every_parameter_of_nano_learns() -> None:
    config = preset("nano")
    model = Flow3r(config).train()
    for parameter in (
        model.camera_head.fc_t.weight,
        model.camera_head.fc_rot.weight,
        model.flow_head.scratch["output_conv2"][2].weight,
    ):
        nn.init.normal_(parameter, std=0.01)
    nn.init.normal_(model.evidence_skip.out.weight, std=0.01)
    nn.init.normal_(model.fine_head.out.weight, std=0.01)
    out = model(images(2), torch.tensor([[[0, 1]]]), evidence(2))
    sum(out[key].square().mean() for key in ("points", "conf", "camera_poses", "flow")).backward()
    idle = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert not idle
    assert sum(parameter.numel() for parameter in model.parameters()) * 4 < 40e6


@pytest.mark.parametrize("name", ["large", "nano"])
def test_architectures_survive_their_file(name: str, tmp_path: Path) -> None:
    config = preset(name)  # type: ignore[arg-type]
    (tmp_path / "config.json").write_text(config.model_dump_json())
    assert load_architecture(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: tree["decoder"].update(width=48), "must equal decoder width"),
        (lambda tree: tree["decoder"].update(blocks=3), "even number"),
        (lambda tree: tree["decoder"].update(heads=5), "does not split"),
        (lambda tree: tree["point_decoder"].update(blocks=2), "at least 4"),
        (lambda tree: tree.update(banana=1), "banana"),
        (lambda tree: tree.pop("encoder"), "encoder"),
    ],
)
def test_impossible_architectures_are_named(tmp_path: Path, change, said: str) -> None:
    tree = json.loads(tiny_config().model_dump_json())
    change(tree)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(ModelError, match=said) as error:
        load_architecture(path)
    assert str(path) in str(error.value)
    assert isinstance(tiny_config(), Flow3rConfig)
