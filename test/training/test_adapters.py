"""Recomputing blocks changes memory, not gradients; adapters start at the base network, learn
alone, and merge into plain weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from flow3r_ros.errors import TrainingError
from flow3r_ros.network import load_model
from flow3r_ros.network.blocks import Block
from flow3r_ros.training.adapters import AdaptedLinear, merged, prepare
from flow3r_ros.training.checkpointing import checkpoint_steps
from flow3r_ros.training.export import initial_network
from flow3r_ros.training.loop import run
from flow3r_ros.training.objective import objective
from flow3r_ros.training.sample import Batch, Sample, collate
from flow3r_ros.training.train_config import TrainSettings
from test.training.test_loop import Repeated, losses_of

LORA = {"rank": 4, "alpha": 8.0}


@pytest.fixture(scope="module")
def batch(samples: list[Sample]) -> Batch:
    return collate(samples[3:])


def network_of(settings: TrainSettings) -> torch.nn.Module:
    network = initial_network(settings)
    prepare(network, settings)
    return network


def loss_of(network, batch: Batch, settings: TrainSettings) -> torch.Tensor:
    return objective(network(batch.images, batch.pairs, batch.evidence), batch, settings.loss)[0]


def saved_bytes_and_gradients(
    settings: TrainSettings, batch: Batch
) -> tuple[int, dict[str, torch.Tensor]]:
    """Bytes of distinct tensors that the graph keeps for the backward pass (parameters aside), and
    every gradient."""
    network = network_of(settings)
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(network, batch, settings)
    count = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    loss.backward()
    return count, {
        name: parameter.grad
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }


def test_recomputing_blocks_keeps_fewer_bytes_and_the_same_gradients(batch, tiny_settings):
    loss = {"normal": 0.0}
    plain, ours = saved_bytes_and_gradients(tiny_settings(loss=loss), batch)
    less, theirs = saved_bytes_and_gradients(
        tiny_settings(loss=loss, activation_checkpointing=True), batch
    )
    assert less < 0.7 * plain
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-5, atol=1e-7)


def test_adapters_start_exactly_at_the_base_network(batch, tiny_settings):
    base, adapted = network_of(tiny_settings()), network_of(tiny_settings(adapters=LORA))
    with torch.no_grad():
        ours, theirs = (
            network(batch.images, batch.pairs, batch.evidence) for network in (base, adapted)
        )
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=0, atol=0)
    assert sum(isinstance(module, AdaptedLinear) for module in adapted.modules()) == 4 * (2 + 4 + 4)


def test_only_adapters_and_named_heads_learn(batch, tiny_settings):
    settings = tiny_settings(
        adapters={**LORA, "parts": ["decoder"], "layers": ["attn.qkv"]}, train_only=["flow_head"]
    )
    network = network_of(settings)
    loss_of(network, batch, settings).backward()
    with_gradient = {
        name for name, parameter in network.named_parameters() if parameter.grad is not None
    }
    assert {name for name in with_gradient if "adapter" in name} == {
        f"decoder.{block}.attn.qkv.adapter_{side}" for block in (0, 1) for side in ("down", "up")
    }
    assert all("adapter" in name or name.startswith("flow_head.") for name in with_gradient)
    assert "flow_head.mlp.0.weight" in with_gradient


def test_merged_weights_answer_like_the_adapted_network_under_the_base_keys(batch, tiny_settings):
    base, adapted = network_of(tiny_settings()), network_of(tiny_settings(adapters=LORA))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name.endswith("adapter_up"):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        before = base(batch.images, batch.pairs, batch.evidence)
        wanted = adapted(batch.images, batch.pairs, batch.evidence)
        plain = merged(adapted, adapted.state_dict())
        assert plain.keys() == base.state_dict().keys()
        base.load_state_dict(plain)
        after = base(batch.images, batch.pairs, batch.evidence)
    assert float((wanted["local_points"] - before["local_points"]).abs().max()) > 1e-2
    for name, value in wanted.items():
        torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-4)


def test_a_run_with_adapters_resumes_exactly_and_exports_a_plain_folder(
    tmp_path, samples, tiny_settings
):
    settings = tiny_settings(
        steps=8, adapters=LORA, train_only=["camera_head"], activation_checkpointing=True
    )
    run(settings, Repeated(samples), tmp_path / "whole")
    run(settings, Repeated(samples), tmp_path / "parts", max_steps=4)
    result = run(settings, Repeated(samples), tmp_path / "parts", resume=True)
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")
    whole, parts = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts")
    )
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=0)
    start, end = load_model(settings.start_from).state_dict(), load_model(result.model).state_dict()
    assert start.keys() == end.keys()
    changed = {
        name
        for name, value in start.items()
        if not torch.allclose(value, end[name], rtol=2e-3, atol=2e-4)
    }
    assert "decoder.0.mlp.fc1.weight" in changed
    assert not any(name.startswith(("encoder.", "flow_head.", "point_head.")) for name in changed)
    step = checkpoint_steps(tmp_path / "parts" / "checkpoints")[-1]
    kept = load_file(tmp_path / "parts" / "checkpoints" / f"step_{step:06d}.safetensors")
    assert "decoder.0.mlp.fc1.adapter_up" in kept
    assert "decoder.0.mlp.fc1.weight" not in kept, (
        "the frozen network is in its model folder, not in every checkpoint"
    )


def test_the_first_stage_changes_the_flow_head_alone_and_the_second_starts_from_it(
    tmp_path, samples, tiny_settings
):
    first = run(
        tiny_settings(steps=6, train_only=["flow_head"]), Repeated(samples), tmp_path / "first"
    )
    start, end = (
        load_model(tiny_settings().start_from).state_dict(),
        load_model(first.model).state_dict(),
    )
    changed = {
        name.split(".")[0]
        for name, value in start.items()
        if not torch.allclose(value, end[name], rtol=2e-3, atol=2e-4)
    }
    assert changed == {"flow_head"}
    second = tiny_settings(steps=2).model_copy(update={"start_from": str(first.model)})
    result = run(second, Repeated(samples), tmp_path / "second")
    assert "6 steps" in (result.model / "manifest.yaml").read_text(encoding="utf-8")


def test_a_name_that_fits_nothing_and_a_loss_that_nothing_learns_from_are_refused(
    tmp_path, samples, tiny_settings
):
    with pytest.raises(TrainingError, match="flow_haed"):
        run(tiny_settings(train_only=["flow_haed"]), Repeated(samples), tmp_path / "typo")
    with pytest.raises(TrainingError, match="nothing that learns"):
        run(
            tiny_settings(train_only=["flow_head"], loss={"flow": 0.0}),
            Repeated(samples),
            tmp_path / "none",
        )


def test_blocks_are_recomputed_only_where_asked(tiny_settings):
    assert all(
        block.recompute
        for block in network_of(tiny_settings(activation_checkpointing=True)).modules()
        if isinstance(block, Block)
    )
    assert not any(
        block.recompute
        for block in network_of(tiny_settings()).modules()
        if isinstance(block, Block)
    )


@pytest.mark.parametrize(("factor", "learns"), [(0.0, 0), (0.2, 1)])
def test_a_trunk_that_does_not_learn_is_frozen(factor, learns):
    settings = TrainSettings(imagenet=False, optimisation={"trunk_factor": factor})
    network = network_of(settings)
    free = [parameter.requires_grad for parameter in network.encoder.patch_embed.trunk.parameters()]
    assert any(free) == bool(learns)
    assert not all(free), "its finest part never learns"
