"""A recording is judged with whatever truth it carries, or against its own pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from flow3r_ros.bags.types import make
from flow3r_ros.bags.writer import BagWriter
from flow3r_ros.bench.plane_scene import PlanePredictor, PlaneScene
from flow3r_ros.config import Config
from flow3r_ros.datasets.recording_truth import poses_from_bag
from flow3r_ros.errors import EvaluationError, OutputError
from flow3r_ros.evaluation.recording import evaluate_recording
from flow3r_ros.evaluation.recording_checks import check_rows, render_rows
from flow3r_ros.geometry.camera_file import save_camera
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.types import Camera, Frame
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.images import depth_image, rgb_image
from flow3r_ros.wire.transforms import header_of, pose_of
from flow3r_ros.wire.tum import write_tum

CAMERA = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)
SCENE = PlaneScene(CAMERA)
START = 1_700_000_000_000_000_000


def moment(frame: Frame) -> int:
    """The bag's frames are one step apart; the last of the folder is the first again."""
    return round(
        ((frame.stamp_ns - START) if frame.stamp_ns > START // 2 else frame.stamp_ns) / 1e8
    )


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bags") / "plane"
    with BagWriter(folder) as writer:
        for topic, kind in (
            ("/cam/image", "sensor_msgs/msg/Image"),
            ("/cam/camera_info", "sensor_msgs/msg/CameraInfo"),
            ("/depth/image", "sensor_msgs/msg/Image"),
            ("/depth/camera_info", "sensor_msgs/msg/CameraInfo"),
            ("/truth", "geometry_msgs/msg/PoseStamped"),
        ):
            writer.add(topic, kind)
        for i in range(20):
            stamp, pose = START + i * 100_000_000, SCENE.pose(i)
            header = header_of(make, stamp, "camera")
            for topic in ("/cam/camera_info", "/depth/camera_info"):
                writer.write(topic, stamp, info_from_camera(make, header, CAMERA))
            writer.write(
                "/truth",
                stamp,
                make("geometry_msgs/msg/PoseStamped", header=header, pose=pose_of(make, pose)),
            )
            writer.write(
                "/depth/image", stamp, depth_image(make, header, SCENE.points(pose)[..., 2])
            )
            writer.write("/cam/image", stamp, rgb_image(make, header, SCENE.picture(pose)))
    return folder


def predictor() -> PlanePredictor:
    return PlanePredictor(SCENE, lambda frame: SCENE.pose(moment(frame)))


def test_truth_on_topics_is_used(bag: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    options: dict[str, Any] = {
        "truth_topic": "/truth",
        "depth_topic": "/depth/image",
        "topic": "/cam/image",
        "html": page,
    }
    result = evaluate_recording(bag, predictor(), **options)
    assert result["trajectory"]["matched"] == 20
    assert result["trajectory"]["ate_rmse"] < 0.02 * result["trajectory"]["path_length"]
    assert result["depth"]["abs_rel"] < 0.02
    assert result["seams"]["refused"] == 0
    assert "position error against the truth (ATE)" in page.read_text()
    counts = {key: result["depth"][key] for key in ("images", "unmatched", "unusable")}
    assert counts == {"images": 20, "unmatched": 0, "unusable": 0}


def test_pictures_judge_where_there_is_no_truth(bag: Path) -> None:
    good = evaluate_recording(bag, predictor(), topic="/cam/image")
    assert "trajectory" not in good
    near = good["agreement"]["gap_1"]
    assert near["pairs"] >= 3
    assert near["flow_epe_px"] < 0.5
    assert near["flow_below_1px"] > 0.8
    assert near["brightness"] < 0.5 * near["brightness_unmoved"]
    assert near["depth_difference"] < 0.02
    assert good["loop"] == {"same_place": False}


def test_poses_of_another_scene_are_not_believed(bag: Path) -> None:
    bent = PlanePredictor(SCENE, lambda frame: SCENE.pose(90 - 3 * moment(frame)))
    wrong = evaluate_recording(bag, bent, Config(), topic="/cam/image")
    assert wrong["agreement"]["gap_1"]["flow_epe_px"] < 0.5


def test_the_way_back_to_the_start_is_measured(tmp_path: Path) -> None:
    folder = tmp_path / "loop"
    (folder / "frames").mkdir(parents=True)
    order = [*range(0, 12), *range(10, -1, -1)]
    for number, index in enumerate(order):
        cv2.imwrite(
            str(folder / "frames" / f"{number:06d}.png"),
            SCENE.picture(SCENE.pose(index))[..., ::-1],
        )
    (folder / "timestamps.txt").write_text(
        "".join(f"{number * 0.1:.6f}\n" for number in range(len(order)))
    )
    save_camera(CAMERA, folder / "camera.json")
    loop = evaluate_recording(
        folder, PlanePredictor(SCENE, lambda frame: SCENE.pose(order[frame.id]))
    )["loop"]
    assert loop["same_place"]
    assert loop["share_of_way"] < 0.02
    assert loop["rotation_gap_deg"] < 0.5


def test_wrong_topics_are_named(bag: Path) -> None:
    with pytest.raises(EvaluationError, match="has no topic /nothing"):
        poses_from_bag(bag, "/nothing")
    with pytest.raises(EvaluationError, match="is sensor_msgs/msg/Image"):
        poses_from_bag(bag, "/cam/image")
    np.testing.assert_allclose(poses_from_bag(bag, "/truth").poses[3], SCENE.pose(3), atol=1e-9)


def write_depth_bag(folder: Path, late_ns: int = 0, unit: float = 1.0, size: int = 1) -> None:
    """Ten frames with depth that comes late, in another unit, or of another size than its
    intrinsics say."""
    with BagWriter(folder) as writer:
        for topic, kind in (
            ("/cam/image", "Image"),
            ("/cam/camera_info", "CameraInfo"),
            ("/depth/image", "Image"),
            ("/depth/camera_info", "CameraInfo"),
        ):
            writer.add(topic, f"sensor_msgs/msg/{kind}")
        for i in range(6):
            stamp, pose = START + i * 100_000_000, SCENE.pose(i)
            header, late = (
                header_of(make, stamp, "camera"),
                header_of(make, stamp + late_ns, "camera"),
            )
            writer.write("/cam/camera_info", stamp, info_from_camera(make, header, CAMERA))
            writer.write("/depth/camera_info", stamp, info_from_camera(make, late, CAMERA))
            writer.write(
                "/depth/image",
                stamp,
                depth_image(make, late, unit * SCENE.points(pose)[::size, ::size, 2]),
            )
            writer.write("/cam/image", stamp, rgb_image(make, header, SCENE.picture(pose)))


@pytest.mark.parametrize(
    ("options", "reason", "unmatched", "unusable"),
    [
        ({"late_ns": 40_000_000}, "within 10 ms of a frame; the nearest are 40.0 ms apart", 6, 0),
        ({"unit": 1000.0}, "looks like millimetres", 0, 6),
        ({"size": 2}, "depth of 160x120 pixels has intrinsics for 320x240", 0, 6),
    ],
)
def test_depth_of_another_time_unit_or_size_is_left_out_and_counted(
    options: dict[str, Any], reason: str, unmatched: int, unusable: int, tmp_path: Path
) -> None:
    write_depth_bag(tmp_path / "bag", **options)
    result = evaluate_recording(
        tmp_path / "bag", predictor(), topic="/cam/image", depth_topic="/depth/image"
    )
    depth = result["depth"]
    assert reason in depth["error"]
    assert (depth["images"], depth["unmatched"], depth["unusable"]) == (6, unmatched, unusable)
    row = next(row for row in check_rows(result) if row[0] == "true depth")
    assert row[1] == "not compared"
    assert f"{unmatched} of 6 images match no frame in time, {unusable} are unusable" in row[2]


def test_every_check_is_said_in_words(bag: Path) -> None:
    result = evaluate_recording(bag, predictor(), topic="/cam/image", max_frames=12)
    text = render_rows(check_rows(result))
    assert "true poses" in text
    assert "--truth-topic" in text
    assert "motion of the pixels, 5 frames later" in text
    assert re.search(r"0 of \d+ refused", text), text
    assert "the last picture does not show the place of the first" in text


def test_a_truth_of_another_time_is_said_and_compared_when_the_offset_is_given(
    bag: Path, tmp_path: Path
) -> None:
    truth = poses_from_bag(bag, "/truth")
    write_tum(tmp_path / "other.tum", Trajectory(truth.stamps_ns - START, truth.poses))
    options: dict[str, Any] = {"topic": "/cam/image", "reference": tmp_path / "other.tum"}
    assert (
        "starts differ by"
        in evaluate_recording(bag, predictor(), max_frames=5, **options)["trajectory"]["error"]
    )
    page = tmp_path / "page.html"
    result = evaluate_recording(bag, predictor(), html=page, offset_s=-START / 1e9, **options)
    assert result["trajectory"]["matched"] == 20
    assert "ground truth (dashed)" in page.read_text()


def test_what_cannot_be_read_or_written_is_said_before_anything_runs(
    bag: Path, tmp_path: Path
) -> None:
    cases: list[dict[str, Any]] = [
        {"truth_topic": "/nothing"},
        {"depth_topic": "/nothing"},
        {"reference": tmp_path / "none.tum"},
        {"html": tmp_path / "none" / "page.html"},
    ]
    for case in cases:
        watched = predictor()
        watched.prepare = watched.predict = None  # type: ignore[method-assign, assignment]
        with pytest.raises((EvaluationError, OutputError)):
            evaluate_recording(bag, watched, topic="/cam/image", **case)
