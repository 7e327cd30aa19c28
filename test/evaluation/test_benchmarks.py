"""Each benchmark on a tiny sample in its own format: an exact predictor scores full marks, and
missing pieces are named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flow3r_ros.bench.plane_scene import PlanePredictor, PlaneScene
from flow3r_ros.datasets.sequence import Sequence, Shot
from flow3r_ros.errors import EvaluationError, InputError
from flow3r_ros.evaluation.benchmarks.protocols import BENCHMARKS, find_benchmark, sample
from flow3r_ros.evaluation.benchmarks.published import METHODS, published_rows
from flow3r_ros.evaluation.benchmarks.run import evaluate_benchmark, render_benchmark
from test.conftest import shared_path
from test.evaluation.benchmark_samples import GL, KINECT, SAMPLES, SMALL, WORLD, depth_png

LOOSE = ("bonn", "kinetics")
"""Bonn's published distortion is applied to undistorted pictures; Kinetics has no intrinsics, so
its rays are guessed"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    found = {}
    for name, (write, camera) in SAMPLES.items():
        root = tmp_path_factory.mktemp(name)
        index_of = write(root)
        scene = PlaneScene(camera)
        predictor = PlanePredictor(
            scene, lambda frame, scene=scene, index_of=index_of: scene.pose(index_of(frame))
        )
        found[name] = evaluate_benchmark(name, root, predictor)
        shutil.rmtree(root)
    return found


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_an_exact_predictor_scores_full_marks(
    name: str, results: dict[str, dict[str, Any]]
) -> None:
    result = results[name]
    mean = result["mean"]
    assert result["failed"] == {}
    if BENCHMARKS[name].way == "window":
        assert mean["RRA@5"] == mean["RTA@5"] == 100.0
        assert mean["AUC@30"] > 96.0
    else:
        assert mean["ate_rmse"] < (0.3 if name in LOOSE else 0.03) * mean["path_length"]
    if "depth_abs_rel" in mean:
        assert mean["depth_abs_rel"] < (0.05 if name in LOOSE else 0.01)
        assert mean["depth_coverage"] > 0.9
        assert mean["fscore@0.05"] > 0.9
        assert mean["mse"] < 0.01


def test_depth_is_scored_where_the_benchmark_has_it(results: dict[str, dict[str, Any]]) -> None:
    with_depth = {name for name, result in results.items() if "depth_abs_rel" in result["mean"]}
    assert with_depth == {"sintel", "bonn", "tum_dynamics", "scannet", "co3d", "7scenes", "nrgbd"}


def test_frames_left_out_are_said(results: dict[str, dict[str, Any]]) -> None:
    notes = {
        name: next(iter(result["sequences"].values()))["notes"] for name, result in results.items()
    }
    assert "1 frames without a pose" in notes["scannet"]
    assert "1 frames without a pose" in notes["nrgbd"]
    assert "1 frames are not registered in EPIC Fields" in notes["epic"]
    assert "1 frames without a pose" in notes["euroc"]
    assert any("too short for stride 200" in note for note in notes["7scenes"])
    assert any("not registered" in note for note in notes["7scenes"])
    assert "note: scene0707_00: 1 frames without a pose" in render_benchmark(results["scannet"])


def test_registered_depth_of_7scenes_is_preferred(tmp_path: Path) -> None:
    index_of = SAMPLES["7scenes"][0](tmp_path)
    scene = PlaneScene(KINECT)
    for i in range(4):
        depth_png(tmp_path / "chess" / "seq-03" / f"frame-{i:06d}.depth.proj.png", scene, i, 1000.0)
        (tmp_path / "chess" / "seq-03" / f"frame-{i:06d}.depth.png").unlink()
    result = evaluate_benchmark(
        "7scenes", tmp_path, PlanePredictor(scene, lambda frame: scene.pose(index_of(frame)))
    )
    assert result["mean"]["depth_abs_rel"] < 0.01
    assert not any("registered" in note for note in result["sequences"]["chess/seq-03"]["notes"])


def test_a_camera_that_stands_still_has_no_rta_and_the_output_says_so(tmp_path: Path) -> None:
    SAMPLES["nrgbd"][0](tmp_path)
    still = np.tile(WORLD @ GL, (5, 1, 1))
    np.savetxt(tmp_path / "kitchen" / "poses.txt", still.reshape(-1, 4))
    result = evaluate_benchmark("nrgbd", tmp_path, PlanePredictor(PlaneScene(SMALL)))
    assert "RTA@30" not in result["mean"]
    assert "RTA is undefined for 10 of 10 pairs" in render_benchmark(result)


def test_sequences_that_do_not_belong_are_not_read(tmp_path: Path) -> None:
    name = "tum_dynamics"
    SAMPLES[name][0](tmp_path)
    (tmp_path / "rgbd_dataset_freiburg3_long_office_household").mkdir()
    assert [sequence.name for sequence in BENCHMARKS[name].load(tmp_path)] == [
        "rgbd_dataset_freiburg3_walking_xyz"
    ]
    shutil.rmtree(tmp_path / "rgbd_dataset_freiburg3_walking_xyz")
    with pytest.raises(InputError, match="sitting_"):
        BENCHMARKS[name].load(tmp_path)


def test_published_rows_stand_beside_ours_and_are_marked(
    results: dict[str, dict[str, Any]],
) -> None:
    rows = {row["method"]: row for row in results["sintel"]["published"]}
    assert list(rows) == ["DUSt3R", "CUT3R", "VGGT", "pi3", "Flow3r"]
    assert rows["Flow3r"]["rpe_rot_deg_rmse"] == 0.920
    assert all(row["published_not_reproduced"] for row in rows.values())
    assert results["kitti"]["published"] == []
    assert {row["method"]: row for row in results["scannet"]["published"]}["VGGT"][
        "RTA@30"
    ] == 93.71


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_an_empty_folder_names_what_is_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        evaluate_benchmark(name, tmp_path, PlanePredictor())
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "removed"),
    [
        ("sintel", "training/camdata_left/alley_2/frame_0003.cam"),
        ("scannet", "scene0707_00/depth/4.png"),
        ("7scenes", "chess/seq-03"),
        ("kitti", "dataset/sequences/00/calib.txt"),
        ("euroc", "V1_01_easy/mav0/cam0/sensor.yaml"),
        ("epic", "P01_01.json"),
        ("kinetics", "juggling/abc123.tum"),
    ],
)
def test_a_missing_piece_is_named(name: str, removed: str, tmp_path: Path) -> None:
    SAMPLES[name][0](tmp_path)
    path = tmp_path / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=path.name.replace(".", r"\.")):
        evaluate_benchmark(name, tmp_path, PlanePredictor())


def test_sampling_follows_the_protocol() -> None:
    sequence = Sequence("s", tuple(Shot(Path(f"{i}.png"), i, None) for i in range(1000)))
    chosen, _ = sample(sequence, BENCHMARKS["co3d"])
    assert len({shot.stamp_ns for shot in chosen.shots}) == 10
    assert [shot.stamp_ns for shot in sample(sequence, BENCHMARKS["7scenes"])[0].shots] == [
        0,
        200,
        400,
        600,
        800,
    ]
    assert [
        shot.stamp_ns for shot in sample(sequence, BENCHMARKS["tum_dynamics"])[0].shots
    ] == list(range(0, 270, 3))
    scannet = [shot.stamp_ns for shot in sample(sequence, BENCHMARKS["scannet"])[0].shots]
    assert len(scannet) == 10
    assert max(scannet) < 270
    assert np.all(np.diff(scannet) > 0)
    short, note = sample(sequence.only(list(range(100))), BENCHMARKS["7scenes"])
    assert [shot.stamp_ns for shot in short.shots] == list(range(0, 100, 11))
    assert note[0].startswith("10 of its 100 frames")


def test_published_rows_are_those_of_the_reference() -> None:
    """Every cell of the tables in ../shared/reference, typed in from the project page."""
    text = (
        shared_path("reference/flow3r_training_and_results.md")
        .read_text()
        .split("## 5.")[1]
        .split("## 6.")[0]
    )
    columns = [("kinetics", "epic", "sintel", "bonn"), ("co3d", "scannet", "nrgbd", "7scenes")]
    rows = [
        line.replace("*", "").replace("π³", "pi3").strip("| ").split(" | ")
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    tables = [[row for row in rows if row[0] in METHODS][start : start + 5] for start in (0, 5)]
    for names, table in zip(columns, tables, strict=True):
        for row in table:
            for name, cell in zip(names, row[1:], strict=True):
                ours = next(entry for entry in published_rows(name) if entry["method"] == row[0])
                numbers = [float(value) for value in cell.split("/")]
                assert [value for value in ours.values() if type(value) is float] == numbers, (
                    name,
                    row[0],
                )


def test_benchmarks_answer_to_their_usual_names() -> None:
    usual = (
        "Kinetics-700",
        "EPIC-KITCHENS",
        "Sintel",
        "Bonn",
        "CO3Dv2",
        "ScanNet",
        "NRGBD",
        "7-Scenes",
        "TUM-dynamics",
        "kitti",
        "EuRoC",
    )
    assert sorted(find_benchmark(name)[0] for name in usual) == sorted(BENCHMARKS)


def test_an_unknown_benchmark_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="sintel"):
        evaluate_benchmark("imagenet", tmp_path, PlanePredictor())


def test_the_table_shows_ours_beside_the_published(results: dict[str, dict[str, Any]]) -> None:
    table = render_benchmark(results["7scenes"]).splitlines()
    assert table[0].split() == ["RTA@30", "AUC@30", "mse", "fscore@5"]
    assert table[1].split()[:2] == ["plane", "100"]
    assert "Flow3r (published, not reproduced)" in table[6]
    assert table[7].startswith("also: depth_abs_rel ")
    assert "uncertain" in table[9]
    kitti = render_benchmark(results["kitti"])
    assert kitti.split()[:4] == ["ate_rmse", "rpe_trans_rmse", "rpe_rot_deg_rmse", "path_length"]
    assert "point maps" not in kitti
    assert "also: ate_rmse" in render_benchmark(results["sintel"])
