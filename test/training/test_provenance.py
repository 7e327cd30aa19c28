"""A manifest says what its weights saw and under which licence, and the weights' own follows."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flow3r_ros.errors import TrainingError
from flow3r_ros.network.catalog import InputSpec, Manifest
from flow3r_ros.network.checkpoint import load_model
from flow3r_ros.network.licences import combined, concern, licence_beside
from flow3r_ros.training.data import open_data
from flow3r_ros.training.data_config import DataSettings
from flow3r_ros.training.loop import train
from flow3r_ros.training.provenance import licences_of, of_teacher, papers
from test.training.clip_factory import scene, write_images
from test.training.test_data import settings


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("recording") / "desk", scene(seed=9, frames=15))


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("Apache-2.0", ""),
        ("MIT", ""),
        ("CC0", ""),
        ("CC-BY-4.0", ""),
        ("public domain (NASA)", ""),
        ("CC BY-NC 4.0", "non-commercial"),
        ("CC-BY-NC", "non-commercial"),
        ("Non-Commercial research licence", "non-commercial"),
        ("for research use only", "non-commercial"),
        ("GPL-3.0", "copyleft"),
        ("CC-BY-SA", "copyleft"),
        ("unknown", "unknown"),
        ("", "unknown"),
        ("check the licence at the source before use", "unknown"),
    ],
)
def test_what_a_licence_allows(licence: str, expected: str) -> None:
    assert concern(licence) == expected


def test_the_licence_of_weights_names_what_spoils_it() -> None:
    assert combined("Apache-2.0", [("a", "MIT"), ("b", "CC0")]) == "Apache-2.0"
    said = combined("Apache-2.0", [("a", "MIT"), ("teddy", "CC-BY-NC"), ("desk", "")])
    assert said.startswith("non-commercial")
    assert "teddy (CC-BY-NC)" in said
    assert "desk (unknown)" in said
    assert "a (MIT)" not in said
    assert combined("Apache-2.0", [("desk", "unknown")]).startswith("unknown")
    assert concern(said) == "non-commercial"
    assert concern(combined("Apache-2.0", [("desk", "unknown")])) == "unknown"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("MIT License\n\nCopyright (c) 2020", "MIT"),
        ("                 Apache License\n           Version 2.0", "Apache-2.0"),
        ("Creative Commons Attribution-NonCommercial 4.0 International", "CC-BY-NC"),
        ("Copyright X. Redistribution and use in source and binary forms, with", "BSD"),
        ("ask grandma", "ask grandma"),
    ],
)
def test_a_licence_beside_a_recording_is_read(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "clip").mkdir()
    video = tmp_path / "clip" / "frames.mp4"
    video.write_bytes(b"")
    assert licence_beside(video) == "unknown"
    (tmp_path / "clip" / "LICENSE.txt").write_text(text)
    assert licence_beside(video) == name
    assert licence_beside(tmp_path / "clip") == name


def test_one_licence_for_all_or_one_for_each() -> None:
    paths = [Path("a"), Path("b")]
    assert licences_of(paths, []) == ["", ""]
    assert licences_of(paths, ["MIT"]) == ["MIT", "MIT"]
    assert licences_of(paths, ["MIT", "CC0"]) == ["MIT", "CC0"]
    with pytest.raises(TrainingError, match="3 licences for 2"):
        licences_of(paths, ["MIT"] * 3)


def test_papers_are_handed_on_from_the_base() -> None:
    base = Manifest(
        name="first",
        source="test",
        license="Apache-2.0",
        sha256="abc",
        parameters=1,
        input=InputSpec(resolution=(56, 42)),
        recordings=[{"name": "road", "sha256": "1", "frames": 9, "license": "MIT"}],  # type: ignore[call-arg]
    )
    told = {
        "recordings": [{"name": "desk", "sha256": "2", "frames": 5, "license": "unknown"}],
        "teacher": of_teacher("dis"),
    }
    result = papers(base, told)
    assert [entry["name"] for entry in result["recordings"]] == ["road", "desk"]
    assert result["base"] == {"name": "first", "sha256": "abc", "license": "Apache-2.0"}
    assert result["license"].startswith("unknown")
    assert "desk" in result["license"]
    spoiled = base.model_copy(update={"license": result["license"], **result})
    again = papers(spoiled, {"recordings": []})
    assert again["license"].startswith("unknown: Apache-2.0 would hold but for")
    assert papers(base, {"recordings": []})["license"] == "Apache-2.0"
    raft = papers(base, {"recordings": [], "teacher": of_teacher("dis+raft")})
    assert raft["license"].startswith("unknown")
    assert "teacher dis+raft" in raft["license"]


def test_a_cache_knows_its_recordings(recording: Path, tmp_path: Path) -> None:
    def seen(*given: str) -> dict[str, object]:
        data = open_data([recording], settings(), 1, 2, 2, tmp_path / "run", given)
        (entry,) = data.provenance["recordings"]
        return entry

    entry = seen()
    assert entry["license"] == "unknown"
    assert len(str(entry["sha256"])) == 64
    assert entry["frames"] > 0
    assert seen("MIT")["license"] == "MIT"
    again = open_data([tmp_path / "run" / "labels"], settings(), 1, 2, 2, tmp_path, ["CC0"])
    assert again.provenance["recordings"][0]["license"] == "CC0"


def test_an_export_with_unknown_parts_says_so_also_when_it_is_loaded(
    recording: Path,
    tmp_path: Path,
    tiny_settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = tiny_settings(steps=1).model_dump(mode="json") | {
        "data": settings().model_dump(mode="json"),
        "loss": {"flow": 1.0},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    result = train(tmp_path / "config.yaml", [recording], tmp_path / "run")
    manifest = yaml.safe_load((result.model / "manifest.yaml").read_text())
    assert manifest["license"].startswith("unknown")
    assert recording.name in manifest["license"]
    assert manifest["code_version"].startswith("0.")
    assert manifest["base"]["name"] == "tiny"
    assert len(manifest["base"]["sha256"]) == 64
    caplog.clear()
    load_model(result.model)
    assert any(
        record.levelname == "WARNING" and recording.name in record.message
        for record in caplog.records
    )


def test_settings_are_those_of_the_data(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="2 licences for 1"):
        open_data([recording], DataSettings(), 1, 1, 1, tmp_path, ["MIT", "MIT"])
