"""Teachers that are networks: SEA-RAFT answers as the authors' code does, weights are known by
their content, and what are no weights is refused in one line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flow3r_ros.cli.training import teacher_options
from flow3r_ros.errors import TrainingError
from flow3r_ros.training.labels import network_teachers
from flow3r_ros.training.labels.cache import LabelCache, LabelSettings
from flow3r_ros.training.labels.labelling import label
from flow3r_ros.training.labels.sea_raft import DEPTHS, SeaRaft, sea_raft_of
from flow3r_ros.training.labels.teachers import open_teacher
from flow3r_ros.training.provenance import of_teacher
from test.own_environment import run_there
from test.training.clip_factory import clip_of, scene, write_images
from test.training.labels.formula_weights import formula_pictures, formula_weights

LAYOUTS = {
    "S": (0, 276, "03ac6218510f2edba4bf912e4bc27b91aeb46509a1bfba79b7ebc6f76ad07647"),
    "M and L": (1, 472, "7a990eee2c9f12f2bef1a0eeb422f78cc0ec6e3dab455948d3074be592267658"),
}
"""of the authors' code (princeton-vl/SEA-RAFT, commit f41d0a7): number of weights, and the hash of
their sorted names and shapes"""
AUTHORS = {
    (5, 7): [-0.70286, 0.48050, -0.07063, 0.08452, -0.07444, -0.02899],
    (30, 50): [-3.03978, -4.76094, -0.14731, 0.25807, -0.13993, 0.01714],
    (60, 90): [-1.68388, -6.35867, -0.08985, 0.27415, -0.24705, -0.01861],
}
"""flow and mixture that the authors' code gives at pixels (y, x) of `formula_pictures`, with
`formula_weights` of size S, 4 iterations"""


def small_weights() -> dict[str, torch.Tensor]:
    shapes = {name: tuple(w.shape) for name, w in SeaRaft(DEPTHS[0]).state_dict().items()}
    return formula_weights(shapes)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "sea_raft_s.pth"
    torch.save(small_weights(), path)
    return path


@pytest.mark.parametrize("size", LAYOUTS)
def test_the_layout_is_that_of_the_published_weights(size: str) -> None:
    deep, count, digest = LAYOUTS[size]
    state = SeaRaft(DEPTHS[deep]).state_dict()
    layout = "\n".join(f"{name} {list(state[name].shape)}" for name in sorted(state))
    assert (len(state), hashlib.sha256(layout.encode()).hexdigest()) == (count, digest)
    again = sea_raft_of({f"module.{name}": value for name, value in state.items()})
    assert len(again.cnet.layer3) == DEPTHS[deep][2]


def test_the_same_answer_as_the_authors_code() -> None:
    pictures = formula_pictures()
    with torch.inference_mode():
        flow, mixture = sea_raft_of(small_weights())(pictures[:1], pictures[1:])
    assert flow.shape == (1, 2, 128, 160)
    for (y, x), expected in AUTHORS.items():
        found = torch.cat([flow[0, :, y, x], mixture[0, :, y, x]]).numpy()
        np.testing.assert_allclose(found, expected, atol=2e-4)


def test_both_ways_and_its_uncertainty_make_a_label(checkpoint: Path) -> None:
    clip = clip_of(scene())
    teacher = open_teacher("sea_raft", weights=str(checkpoint), width=168)
    label = teacher.flow(clip, 0, 1)
    assert label.displacement.shape == (128, 168, 2)
    assert np.isfinite(label.displacement).all()
    assert (label.confidence <= label.covisibility).all()
    back = teacher.flow(clip, 1, 0)
    assert np.abs(back.displacement - label.displacement).max() > 0.1
    with pytest.raises(TrainingError, match="width 64 makes pictures of 64x48, it needs 128"):
        open_teacher("sea_raft", weights=checkpoint, width=64).flow(clip, 0, 1)


def test_safetensors_without_the_norms_second_name_are_the_same_network(
    checkpoint: Path, tmp_path: Path
) -> None:
    kept = {k: v.clone() for k, v in small_weights().items() if ".downsample.1." not in k}
    save_file(kept, tmp_path / "model.safetensors")
    one = open_teacher("sea_raft", weights=checkpoint, width=168)
    other = open_teacher("sea_raft", weights=tmp_path / "model.safetensors", width=168)
    clip = clip_of(scene())
    np.testing.assert_array_equal(
        one.flow(clip, 0, 1).displacement, other.flow(clip, 0, 1).displacement
    )


def test_weights_are_known_by_their_content(checkpoint: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.pth"
    moved.write_bytes(checkpoint.read_bytes())
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    one, other = (open_teacher("sea_raft", weights=path) for path in (checkpoint, moved))
    assert one.identity == other.identity
    assert one.identity["weights_sha256"] == digest
    assert str(tmp_path) not in json.dumps(other.identity)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no weights", r"cannot be read as weights .*download the file again"),
        (b"", "cannot be read as weights"),
        ({"a": torch.zeros(2)}, r"not the weights of SEA-RAFT \(276 weights are missing"),
        ({"a": 3}, "it holds other things than weights"),
        ([torch.zeros(2)], "cannot be read as weights"),
    ],
)
def test_what_are_no_weights(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(TrainingError, match=message) as caught:
        open_teacher("sea_raft", weights=path)
    assert "\n" not in str(caught.value)
    (tmp_path / "file.safetensors").write_bytes(b"no weights")
    with pytest.raises(TrainingError, match="cannot be read as weights"):
        open_teacher("sea_raft", weights=tmp_path / "file.safetensors")


def test_weights_of_another_shape_are_named(checkpoint: Path, tmp_path: Path) -> None:
    weights = small_weights()
    weights["init_conv.weight"] = torch.zeros(3, 3)
    torch.save(weights, tmp_path / "file.pth")
    with pytest.raises(TrainingError, match=r"not the weights of SEA-RAFT .*init_conv\.weight"):
        open_teacher("sea_raft", weights=tmp_path / "file.pth")


def test_labels_of_two_teachers_and_the_papers_of_their_weights(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Weights that were never trained agree with nobody: pairs are refused, and hash and licence
    stand in what goes into the manifest."""
    images = write_images(tmp_path / "images", scene(frames=4))
    options = {"sea_raft": {"weights": str(checkpoint), "width": 168, "license": "BSD-3-Clause"}}
    settings = LabelSettings(
        teacher="dis+sea_raft", teacher_options=options, strides=(1,), both_ways=False, width=84
    )
    report = label([images], tmp_path / "cache", settings)
    assert report.refused == {"too_large_motion": report.labelled}
    assert report.disagreed > 0.85
    cache = LabelCache.existing(tmp_path / "cache")
    papers = of_teacher(
        cache.settings.teacher, cache.settings.teacher_options, cache.teacher_identity
    )
    assert papers["weights_sha256"] == {
        "sea_raft": hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    }
    assert papers["license"].endswith("; BSD-3-Clause")
    again = label([images], tmp_path / "cache", settings)
    assert (again.labelled, again.refused, again.disagreed) == (0, report.refused, report.disagreed)


def test_a_licence_beside_the_weights_counts_else_it_is_unknown(
    checkpoint: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "model.pth"
    weights.write_bytes(checkpoint.read_bytes())
    options = {"weights": str(weights)}
    assert of_teacher("sea_raft", options)["license"] == "unknown"
    (tmp_path / "LICENSE").write_text("BSD 3-Clause License\n\nRedistribution and use in source and"
                                      " binary forms, with or without modification")  # fmt: skip
    assert of_teacher("sea_raft", options)["license"] == "BSD"
    assert of_teacher("sea_raft", options | {"license": "MIT"})["license"] == "MIT"


def test_weights_as_they_are_typed() -> None:
    one = teacher_options("raft", {"weights": ["/a/b=c.pth"], "license": None})
    assert one == {"weights": "/a/b=c.pth"}
    two = teacher_options(
        "raft+sea_raft",
        {"weights": ["raft=/r.pth", "sea_raft=/s.pth"], "license": ["raft=BSD-3-Clause"]},
    )
    assert two == {
        "raft": {"weights": "/r.pth", "license": "BSD-3-Clause"},
        "sea_raft": {"weights": "/s.pth"},
    }
    with pytest.raises(Exception, match="--weights is given twice"):
        teacher_options("raft+sea_raft", {"weights": ["/r.pth", "/s.pth"]})


@pytest.mark.thorough
def test_raft_answers_as_torchvisions(tmp_path: Path) -> None:
    """In an environment that has torchvision (`make test-thorough`)."""
    made = scene(frames=2, width=160, height=128)
    np.savez(tmp_path / "in.npz", rgb=made.rgb)
    run_there("test.training.labels.raft_runner", tmp_path / "in.npz", tmp_path / "out.npz",
              home=tmp_path)  # fmt: skip
    out = np.load(tmp_path / "out.npz")
    assert np.abs(out["flow"]).max() > 1
    np.testing.assert_allclose(out["label"], out["flow"], atol=1e-3, rtol=1e-3)
    assert out["covisibility"].shape == (128, 160)


def test_raft_says_what_is_missing(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match=r"torchvision.* is not installed; install torchvision"):
        open_teacher("raft", weights=checkpoint)

    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(network_teachers, "import_module", broken)
    with pytest.raises(TrainingError, match=r"does not fit this torch 2\..*nms does not exist"):
        open_teacher("raft", weights=checkpoint)
