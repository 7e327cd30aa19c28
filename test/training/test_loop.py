"""Training really trains, resumes exactly, and stops with the evidence when a loss is not
finite."""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from flow3r_ros.errors import ConfigError, OutputError, TrainingError
from flow3r_ros.network import load_model
from flow3r_ros.network.config import preset
from flow3r_ros.training.checkpointing import checkpoint_steps
from flow3r_ros.training.loop import run, train
from flow3r_ros.training.optimisation import learning_rate
from flow3r_ros.training.sample import Sample, augment, collate
from flow3r_ros.training.scenes import shards as scene_shards
from flow3r_ros.training.scenes.shards import SceneShards, read_sample, training_clip, write_shards
from flow3r_ros.training.train_config import EvidenceDropout, Optimisation, load_train_settings
from flow3r_ros.training.validation import validate

GRID = (56, 42)


class Repeated:
    """The same few samples at every step, in an order that depends on the step."""

    def __init__(
        self, samples: list[Sample], poison_at: int = -1, poison_from: int = 10**9
    ) -> None:
        self.samples, self.poison_at, self.poison_from = samples, poison_at, poison_from

    def batch(self, step: int, part: slice = slice(None)) -> list[Sample]:
        chosen = [
            self.samples[index]
            for index in np.random.default_rng(step).permutation(len(self.samples))[:2]
        ]
        if step == self.poison_at or step >= self.poison_from:
            assert chosen[0].depth is not None
            chosen[0] = replace(chosen[0], poses=np.full_like(chosen[0].poses, np.nan))
        return chosen[part]


def losses_of(output: Path) -> list[str]:
    with (output / "metrics.csv").open(encoding="utf-8") as file:
        return [row["loss"] for row in csv.DictReader(file)]


def test_the_loss_falls_and_the_exported_folder_loads(tmp_path, samples, tiny_settings):
    result = run(tiny_settings(), Repeated(samples), tmp_path / "run")
    values = [float(value) for value in losses_of(tmp_path / "run")]
    assert len(values) == 60
    assert np.mean(values[-10:]) < 0.7 * np.mean(values[:5])
    model = load_model(result.model)
    batch = collate(samples[:1])
    with torch.no_grad():
        outputs = model(batch.images, batch.pairs, batch.evidence)
    assert torch.isfinite(outputs["local_points"]).all()
    assert "60 steps" in (result.model / "manifest.yaml").read_text(encoding="utf-8")


def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(tmp_path, samples, tiny_settings):
    settings = tiny_settings(steps=8)
    run(settings, Repeated(samples), tmp_path / "whole")
    run(settings, Repeated(samples), tmp_path / "parts", max_steps=4)
    run(settings, Repeated(samples), tmp_path / "parts", resume=True)
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")
    whole, parts = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts")
    )
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=0)


def test_a_loss_that_is_not_finite_costs_its_step_and_the_run_goes_on(
    tmp_path, samples, tiny_settings
):
    result = run(tiny_settings(steps=8), Repeated(samples, poison_at=5), tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["skipped"]) for row in rows] == [0, 0, 0, 0, 0, 1, 0, 0]
    assert all(np.isfinite(float(row["loss"])) for row in rows)
    assert load_model(result.model) is not None


def test_many_lost_steps_in_a_row_stop_with_the_batch_saved(tmp_path, samples, tiny_settings):
    output = tmp_path / "run"
    with pytest.raises(TrainingError, match="not_finite_batch"):
        run(tiny_settings(steps=30), Repeated(samples, poison_from=5), output)
    saved = load_file(output / "not_finite_batch.safetensors")
    assert torch.isnan(saved["poses"]).any()
    assert saved["images"].shape[0] == 2
    assert checkpoint_steps(output / "checkpoints")[-1] == 14, "the steps before are not lost"


def test_a_run_is_not_overwritten_and_nothing_is_resumed_from_nothing(
    tmp_path, samples, tiny_settings
):
    run(tiny_settings(), Repeated(samples), tmp_path / "run", max_steps=1)
    with pytest.raises(OutputError, match="--resume"):
        run(tiny_settings(), Repeated(samples), tmp_path / "run")
    with pytest.raises(TrainingError, match="no checkpoint"):
        run(tiny_settings(), Repeated(samples), tmp_path / "other", resume=True)


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path, samples, tiny_settings):
    run(tiny_settings(), Repeated(samples), tmp_path / "run", max_steps=1)
    weights = tmp_path / "run" / "checkpoints" / "step_000001.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="step_000001"):
        run(tiny_settings(), Repeated(samples), tmp_path / "run", resume=True)


def test_shards_give_back_what_was_rendered_and_train_end_to_end(
    tmp_path, monkeypatch, tiny_settings
):
    monkeypatch.setattr(scene_shards, "_CLIPS_PER_SHARD", 2)
    monkeypatch.setitem(scene_shards.GRIDS, "small", (GRID,))
    monkeypatch.setitem(scene_shards.GRIDS, "full", ((112, 84),))
    list(write_shards(tmp_path / "data", 3, 1, "photographs"))
    held_out = tmp_path / "data" / "small" / "held_out"
    list(write_shards(held_out, 4, 1, "held_out", sizes=("small",)))
    (held_out / "small" / "scenes_000004.safetensors").rename(
        held_out / "scenes_000004.safetensors"
    )
    rendered = training_clip(6, [(112, 84), GRID], "photographs")[1]
    stored = read_sample(tmp_path / "data" / "small" / "scenes_000003.safetensors", 0)
    np.testing.assert_array_equal(stored.rgb, rendered.rgb)
    np.testing.assert_allclose(stored.flow, rendered.flow, rtol=1e-3, atol=1e-3)
    ratio = stored.depth / rendered.depth
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=2e-3)
    config = tmp_path / "tiny.yaml"
    config.write_text(
        yaml.safe_dump(tiny_settings(steps=2, validation_clips=2).model_dump()), encoding="utf-8"
    )
    result = train(config, [tmp_path / "data" / "small"], tmp_path / "run")
    assert result.steps == 2
    assert result.metrics["clips"] == 2
    assert 0 < result.metrics["abs_rel"] < 2
    assert result.metrics["rotation_deg_evidence"] < result.metrics["rotation_deg_identity"]


def test_missing_or_damaged_shards_are_named(tmp_path):
    with pytest.raises(TrainingError, match="scenes_"):
        SceneShards([tmp_path], 0, 2)
    (tmp_path / "scenes_000001.safetensors").write_bytes(b"not a shard")
    with pytest.raises(TrainingError, match="scenes_000001"):
        SceneShards([tmp_path], 0, 2)


def test_batches_depend_on_seed_and_step_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(scene_shards, "_CLIPS_PER_SHARD", 2)
    monkeypatch.setitem(scene_shards.GRIDS, "small", (GRID,))
    monkeypatch.setattr(scene_shards, "training_clip", partial(training_clip, frames=2))
    list(write_shards(tmp_path, 0, 2, "photographs", sizes=("small",)))
    first, again = SceneShards([tmp_path / "small"], 1, 2), SceneShards([tmp_path / "small"], 1, 2)
    names = [[sample.name for sample in first.batch(step)] for step in range(6)]
    assert names == [[sample.name for sample in again.batch(step)] for step in range(6)]
    assert len({tuple(step) for step in names}) > 1


def test_validation_prefers_the_truth_to_the_trivial_answers(samples):
    """A network that answers with the exact geometry scores zero error; the baselines beside it do
    not."""
    batch = collate(samples[:1])

    class Oracle(torch.nn.Module):
        config = preset("nano")

        def forward(self, images, pairs=None, evidence=None):
            local = batch.truth.points
            poses = batch.truth.poses
            points = (
                torch.einsum("bnij,bnhwj->bnhwi", poses[..., :3, :3], local)
                + poses[..., None, None, :3, 3]
            )
            logits = torch.full((*local.shape[:4], 1), 5.0)
            return {
                "points": points,
                "local_points": local,
                "conf": logits,
                "camera_poses": poses,
                "flow": batch.flow,
            }

    scores = validate(Oracle(), [samples[:1]])
    assert scores["abs_rel"] < 1e-5
    assert scores["abs_rel_constant"] > 0.05
    assert scores["rotation_deg"] < 0.1
    assert scores["epe_head"] < 1e-3
    assert scores["epe_geometry"] < 0.5 < scores["epe_zero"]
    assert scores["confidence_right"] == 1.0


def test_hidden_evidence_is_zero_planes_and_identity_poses(samples):
    rng = np.random.default_rng(0)
    blind = augment(samples[0], rng, EvidenceDropout(everything=1.0), pairs=1)
    assert blind.evidence is None
    assert len(blind.pairs) == 1
    batch = collate([blind])
    assert not batch.evidence.planes.any()
    rays_only = augment(
        samples[0],
        rng,
        EvidenceDropout(everything=0.0, correspondence=1.0, depth=0.0, poses=0.0),
        pairs=2,
    ).evidence
    assert rays_only.planes[:, :2].any()
    assert not rays_only.planes[:, 2:].any()
    np.testing.assert_array_equal(
        rays_only.poses, np.broadcast_to(np.eye(4), rays_only.poses.shape)
    )


def test_samples_of_two_shapes_are_refused(samples):
    other = training_clip(9, [(70, 42)], "photographs", frames=3)[0]
    with pytest.raises(TrainingError, match="different shapes"):
        collate([samples[0], other])


def test_the_rate_warms_up_stays_and_falls_to_zero():
    for decay, rate_near_the_end in (("linear", 0.2), ("cosine", 0.5 - 0.5 * np.cos(0.2 * np.pi))):
        settings = Optimisation(learning_rate=1.0, warmup_steps=10, decay_share=0.5, decay=decay)
        rates = [learning_rate(settings, 100, step) for step in range(101)]
        assert rates[0] == pytest.approx(0.1)
        assert rates[20] == rates[49] == 1.0
        assert rates[75] == pytest.approx(0.5)
        assert rates[90] == pytest.approx(rate_near_the_end)
        assert rates[100] == 0.0


def test_an_unknown_setting_is_named(tmp_path):
    config = tmp_path / "wrong.yaml"
    config.write_text("learning_speed: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="learning_speed"):
        load_train_settings(config)


def test_evidence_is_as_wrong_as_asked_for_and_only_where_it_knows_something(samples):
    exact = EvidenceDropout(everything=0.0, correspondence=0.0, depth=0.0, poses=0.0)
    before = augment(samples[0], np.random.default_rng(0), exact, pairs=1).evidence
    wrong = exact.model_copy(update={"focal_error": 0.05, "depth_error": 0.1})
    after = augment(samples[0], np.random.default_rng(0), wrong, pairs=1).evidence
    assert before is not None
    assert after is not None
    ratio = after.planes[:, :2].sum() / before.planes[:, :2].sum()
    assert ratio != 1
    np.testing.assert_allclose(after.planes[:, :2], ratio * before.planes[:, :2], atol=1e-4)
    known = before.planes[:, 3] > 0
    error = after.planes[:, 2] - before.planes[:, 2]
    assert not error[~known].any()
    assert error[known].std() > 0.005
    steps = np.abs(np.diff(error, axis=-1))[known[:, :, 1:] & known[:, :, :-1]]
    assert steps.max() < 0.5 * np.abs(error).max(), "smooth"
    assert (samples[0].evidence.planes[:, 2][known] == before.planes[:, 2][known]).all()
