"""`--data` finds out what lies at a path; fine-tuning on a recording without labels lowers the flow
error on clips it never saw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from flow3r_ros.errors import InputError, TrainingError
from flow3r_ros.network import load_model
from flow3r_ros.training.data import Alternating, open_data
from flow3r_ros.training.data_config import DataSettings
from flow3r_ros.training.labels.cache import LabelSettings
from flow3r_ros.training.labels.labelling import label
from flow3r_ros.training.loop import train
from test.datasets.test_formats import write_co3d, write_tum
from test.training.clip_factory import scene, write_images

GRID = (56, 42)
LABELS = {
    "teacher_options": {"width": 168},
    "width": 84,
    "strides": (1, 2),
    "clips": {"width": 168, "frames": 5},
}


def settings(**changes) -> DataSettings:
    return DataSettings.model_validate(
        {"grids": [GRID], "frames": (3, 3), "labels": LABELS, "held_out_share": 0.34, **changes}
    )


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("recording") / "images", scene(seed=9, frames=15))


def test_a_recording_is_labelled_once_and_its_last_clips_are_held_out(
    recording: Path, tmp_path: Path
) -> None:
    data = open_data([recording], settings(), seed=1, clips_per_step=2, pairs=2, workspace=tmp_path)
    assert data.held_out is not None
    seen = {
        bytes(sample.rgb[0].tobytes()) for step in range(10) for sample in data.source.batch(step)
    }
    held = [samples[0] for samples in data.held_out.all(10)]
    assert held
    assert all(bytes(frame.tobytes()) not in seen for sample in held for frame in sample.rgb)
    assert data.provenance["teacher"]["name"] == "dis"
    assert data.provenance["labels"]["labelled"] > 0
    again = open_data(
        [recording], settings(), seed=1, clips_per_step=2, pairs=2, workspace=tmp_path
    )
    assert again.provenance["labels"]["labelled"] == 0


def test_a_recording_of_one_clip_is_judged_in_every_window_of_its_end(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", scene(seed=9, frames=10))
    chosen = settings(labels={**LABELS, "clips": {"width": 168, "frames": 12}}, held_out_share=0.5)
    data = open_data([images], chosen, seed=1, clips_per_step=2, pairs=2, workspace=tmp_path)
    assert data.held_out is not None
    held = [samples[0] for samples in data.held_out.all(10)]
    assert len(held) == 3 + 1, "three windows of neighbouring frames and one of every other frame"
    assert len({sample.rgb.tobytes() for sample in held}) == len(held)
    seen = {
        frame.tobytes()
        for step in range(10)
        for sample in data.source.batch(step)
        for frame in sample.rgb
    }
    assert all(frame.tobytes() not in seen for sample in held for frame in sample.rgb)


def test_every_kind_of_path_is_recognised_and_mixed_by_weight(
    recording: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    label([recording], cache, LabelSettings.model_validate(LABELS))
    made = scene(seed=5, frames=3, width=160, height=120)
    write_tum(tmp_path / "tum", made)
    category = write_co3d(tmp_path / "co3d", made)
    data = open_data(
        [cache, tmp_path / "tum", category], settings(weights=(1, 1, 2)), 1, 1, 2, tmp_path / "work"
    )
    assert isinstance(data.source, Alternating)
    drawn = [data.source.batch(step)[0] for step in range(20)]
    names = [sample.name for sample in drawn]
    assert {str(recording), "tum", "chair/105_1"} == set(names)
    assert 6 <= names.count("chair/105_1") <= 14
    labelled = drawn[names.index("tum")]
    assert labelled.depth is not None
    assert labelled.evidence is not None


def test_weights_must_fit_and_nothing_is_an_error(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="2 data weights for 1"):
        open_data([recording], settings(weights=(1, 1)), 1, 1, 2, tmp_path)
    with pytest.raises(TrainingError, match="no data"):
        open_data([], settings(), 1, 1, 2, tmp_path)
    with pytest.raises(InputError):
        open_data([tmp_path / "nowhere"], settings(), 1, 1, 2, tmp_path)


def test_fine_tuning_on_an_unlabelled_recording_lowers_flow_error_on_held_out_clips(
    recording, tmp_path, tiny_settings
) -> None:
    config = tiny_settings(
        steps=20, clips_per_step=2, pairs_per_clip=2, validation_clips=4
    ).model_dump(mode="json")
    config |= {"data": settings().model_dump(mode="json"), "loss": {"flow": 2.0}, "name": "tuned"}
    (tmp_path / "finetune.yaml").write_text(yaml.safe_dump(config))
    result = train(tmp_path / "finetune.yaml", [recording], tmp_path / "run")
    manifest = yaml.safe_load((result.model / "manifest.yaml").read_text())
    before, after = manifest["metrics_before"], manifest["metrics"]
    assert after["epe_head"] < before["epe_head"]
    assert after["epe_zero"] == before["epe_zero"]
    assert manifest["teacher"]["name"] == "dis"
    assert manifest["paths"] == ["images"]
    (paired,) = manifest["paired"].values()
    assert paired["head_after"] < paired["head_before"]
    assert paired["pairs"] > 0
    assert manifest["steps"] == 20
    steps = [
        json.loads(line)["step"]
        for line in (tmp_path / "run" / "validation.jsonl").read_text().splitlines()
    ]
    assert steps == [0, 20]
    assert load_model(result.model) is not None
    resumed = train(tmp_path / "finetune.yaml", [recording], tmp_path / "run", resume=True)
    assert yaml.safe_load((resumed.model / "manifest.yaml").read_text())["metrics_before"] == before


@pytest.fixture(scope="module")
def short_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("recording") / "short", scene(seed=4, frames=6))


def test_recordings_count_alike_however_long_they_are(
    recording: Path, short_recording: Path, tmp_path: Path
) -> None:
    data = open_data([recording, short_recording], settings(held_out_share=0), 1, 2, 1, tmp_path)
    names = [sample.name for step in range(20) for sample in data.source.batch(step)]
    assert names.count(str(short_recording)) == pytest.approx(20, abs=7)
    assert {entry["name"] for entry in data.provenance["recordings"]} == {"images", "short"}


def test_a_recording_is_held_out_whole(
    recording: Path, short_recording: Path, tmp_path: Path
) -> None:
    paths = [recording, short_recording]
    data = open_data(paths, settings(held_out_recordings=("short",)), 1, 2, 1, tmp_path)
    assert {s.name for step in range(10) for s in data.source.batch(step)} == {str(recording)}
    assert data.held_out is not None
    windows = data.held_out.by_recording(8)
    assert set(windows) == {"images", "short"}
    assert {clip[0].name for clip in windows["short"]} == {str(short_recording)}
    with pytest.raises(TrainingError, match="holds no recording lawn"):
        open_data(paths, settings(held_out_recordings=("lawn",)), 1, 2, 1, tmp_path)


def test_fine_tuning_that_does_not_help_exports_nothing(
    recording: Path, tmp_path: Path, tiny_settings
) -> None:
    config = tiny_settings(
        steps=1, validation_clips=2, only_if_better=True, optimisation={"learning_rate": 1e-12}
    ).model_dump(mode="json")
    config |= {"data": settings().model_dump(mode="json")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(TrainingError, match=r"does not help.*images \d"):
        train(tmp_path / "config.yaml", [recording], tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    assert json.loads((tmp_path / "run" / "paired.json").read_text())["images"]
    row = json.loads((tmp_path / "run" / "paired_rows.json").read_text())["images"]
    assert row["head_after"] >= row["head_before"] > 0
