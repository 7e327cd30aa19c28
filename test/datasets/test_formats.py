"""The readers of public formats: a tiny sample is written in each, recognised by its files, and
geometry must come back as training sees it; `test_benchmarks` does the same for evaluation."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from flow3r_ros.datasets.formats import find_sequences
from flow3r_ros.datasets.sequence import Sequence
from flow3r_ros.errors import InputError
from flow3r_ros.evaluation.benchmarks.protocols import BENCHMARKS
from flow3r_ros.geometry.lie import invert, quaternion_from_matrix, so3_exp
from flow3r_ros.training.clip_sources import LabelledClips
from flow3r_ros.training.scenes.renderer import SceneClip
from test.evaluation.benchmark_samples import SAMPLES
from test.training.clip_factory import scene

WORLD = np.eye(4)
WORLD[:3, :3], WORLD[:3, 3] = so3_exp(np.array([0.3, -0.2, 0.5])), (1.0, -2.0, 0.5)


def made_scene(width: int = 160, height: int = 120) -> SceneClip:
    return scene(seed=5, frames=3, width=width, height=height)


def save_rgb(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))


def save_depth(path: Path, depth: np.ndarray, per_metre: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.round(depth * per_metre).astype(np.uint16))


def opened(folder: Path) -> Sequence:
    """The one sequence below a folder, with its true frames."""
    (found,) = find_sequences(folder)
    return found.sequences()[0].with_truth(depth=True)


def check(
    sequence: Sequence,
    made: SceneClip,
    depth_error: float = 2e-3,
    frames: tuple[int, ...] = (0, 1, 2),
) -> None:
    """Depth and relative poses are those of the scene."""
    assert len(sequence) == len(frames)
    read = [sequence.labelled(k) for k in range(len(frames))]
    for frame, k in zip(read, frames, strict=True):
        known = np.isfinite(frame.depth)
        assert known.mean() > 0.9
        assert np.abs(frame.depth - made.depth[k])[known].max() < depth_error * made.depth[k].max()
        assert np.mean(np.abs(frame.rgb.astype(int) - made.rgb[k])) < 12
        expected = invert(made.poses[frames[0]]) @ made.poses[k]
        np.testing.assert_allclose(invert(read[0].pose) @ frame.pose, expected, atol=1e-5)


def write_tum(folder: Path, made: SceneClip) -> None:
    rows: dict[str, list[str]] = {
        "rgb.txt": ["# color images"],
        "depth.txt": ["# depth maps"],
        "groundtruth.txt": ["# ground truth"],
    }
    for k, pose in enumerate(made.poses):
        stamp = 1305031102.175304 + 0.1 * k
        save_rgb(folder / "rgb" / f"{stamp:.6f}.png", made.rgb[k])
        save_depth(folder / "depth" / f"{stamp + 0.004:.6f}.png", made.depth[k], 5000)
        T = WORLD @ pose
        rows["rgb.txt"].append(f"{stamp:.6f} rgb/{stamp:.6f}.png")
        rows["depth.txt"].append(f"{stamp + 0.004:.6f} depth/{stamp + 0.004:.6f}.png")
        rows["groundtruth.txt"].append(
            " ".join(
                map(
                    repr,
                    [
                        stamp - 0.002,
                        *T[:3, 3].tolist(),
                        *quaternion_from_matrix(T[:3, :3]).tolist(),
                    ],
                )
            )
        )
    rows["rgb.txt"].append("1305031199.000000 rgb/nobody_knows_where.png")
    for name, lines in rows.items():
        (folder / name).write_text("\n".join(lines) + "\n")


def test_tum(tmp_path: Path) -> None:
    made = made_scene()
    write_tum(tmp_path / "rgbd_dataset_freiburg3_desk", made)
    sequence = opened(tmp_path / "rgbd_dataset_freiburg3_desk")
    check(sequence, made)
    assert sequence.labelled(0).camera.fx == pytest.approx(535.4 / 4)
    assert sequence.shots[0].stamp_ns == 1305031102175304000


def test_tum_freiburg1_is_undistorted(tmp_path: Path) -> None:
    made = made_scene(640, 480)
    write_tum(tmp_path / "rgbd_dataset_freiburg1_xyz", made)
    frame = opened(tmp_path / "rgbd_dataset_freiburg1_xyz").labelled(0)
    assert frame.camera.distortion == ()
    assert np.mean(np.abs(frame.depth - made.depth[0]) > 0.01) > 0.05


def write_seven_scenes(folder: Path, made: SceneClip, kind: str) -> None:
    for k, pose in enumerate(made.poses):
        stem = folder / f"frame-{k:06d}"
        save_rgb(Path(f"{stem}.color.png"), made.rgb[k])
        depth = np.round(made.depth[k] * 1000).astype(np.uint16)
        depth[0, 0] = 65535
        cv2.imwrite(f"{stem}.{kind}.png", depth)
        np.savetxt(f"{stem}.pose.txt", WORLD @ pose)


def test_seven_scenes_registered_depth(tmp_path: Path) -> None:
    made = made_scene()
    write_seven_scenes(tmp_path / "chess" / "seq-01", made, "depth.proj")
    sequence = opened(tmp_path)
    assert sequence.name == "chess/seq-01"
    assert sequence.notes == ()
    check(sequence, made)
    frame = sequence.labelled(0)
    assert np.isnan(frame.depth[0, 0])
    assert frame.camera.fx == pytest.approx(525 / 4)


def test_seven_scenes_raw_depth_keeps_its_own_lens_and_says_so(tmp_path: Path) -> None:
    """Depth seen through 585 pixels of focal length is brought onto the colour image of 525."""
    made = made_scene()
    write_seven_scenes(tmp_path / "seq-01", made, "depth")
    sequence = opened(tmp_path / "seq-01")
    assert any("not registered" in note for note in sequence.notes)
    frame, raw = sequence.labelled(0), made.depth[0]
    assert frame.camera.fx == pytest.approx(525 / 4)
    for row, column in ((60, 80), (40, 120), (90, 30)):
        seen = frame.depth[row, column]
        v, u = (
            round((at - centre) * 585 / 525 + centre) for at, centre in ((row, 60), (column, 80))
        )
        assert seen == pytest.approx(raw[v, u], abs=1e-3)
    assert np.isnan(frame.depth[:, 0]).all()


def test_scannet_skips_lost_poses_and_brings_depth_onto_colour(tmp_path: Path) -> None:
    """Depth of half the size: its pixel k is pixel 2k of the colour image."""
    made = made_scene()
    K, half = np.eye(4), np.diag([0.5, 0.5, 1.0, 1.0])
    K[:3, :3] = made.camera.matrix
    (tmp_path / "intrinsic").mkdir()
    np.savetxt(tmp_path / "intrinsic" / "intrinsic_color.txt", K)
    np.savetxt(tmp_path / "intrinsic" / "intrinsic_depth.txt", half @ K)
    (tmp_path / "pose").mkdir()
    for k, pose in enumerate(made.poses):
        save_rgb(tmp_path / "color" / f"{k}.jpg", made.rgb[k])
        save_depth(tmp_path / "depth" / f"{k}.png", made.depth[k][::2, ::2], 1000)
        np.savetxt(
            tmp_path / "pose" / f"{k}.txt", WORLD @ pose if k != 1 else np.full((4, 4), -np.inf)
        )
    sequence = opened(tmp_path)
    assert "1 frames without a pose" in sequence.notes
    assert len(sequence) == 2
    last = sequence.labelled(1)
    assert last.camera.fx == pytest.approx(made.camera.fx)
    np.testing.assert_allclose(last.depth[::2, ::2], made.depth[2][::2, ::2], atol=6e-4)
    expected = invert(made.poses[0]) @ made.poses[2]
    np.testing.assert_allclose(invert(sequence.labelled(0).pose) @ last.pose, expected, atol=1e-5)


def test_tartanair_body_axes_become_optical(tmp_path: Path) -> None:
    made = made_scene()
    optical_from_ned = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    rows = []
    (tmp_path / "depth_left").mkdir()
    for k, pose in enumerate(made.poses):
        save_rgb(tmp_path / "image_left" / f"{k:06d}_left.png", made.rgb[k])
        depth = made.depth[k].copy()
        depth[0, 0] = 10000.0
        np.save(tmp_path / "depth_left" / f"{k:06d}_left_depth.npy", depth)
        T = WORLD @ pose
        rows.append(
            " ".join(
                map(
                    repr,
                    [
                        *T[:3, 3].tolist(),
                        *quaternion_from_matrix(T[:3, :3] @ optical_from_ned).tolist(),
                    ],
                )
            )
        )
    (tmp_path / "pose_left.txt").write_text("\n".join(rows) + "\n")
    sequence = opened(tmp_path)
    check(sequence, made)
    assert np.isnan(sequence.labelled(0).depth[0, 0])


def write_co3d(root: Path, made: SceneClip) -> Path:
    category = root / "chair"
    annotations = []
    h, w = made.depth.shape[1:]
    for k, pose in enumerate(made.poses):
        save_rgb(category / "105_1" / "images" / f"frame{k:06d}.png", made.rgb[k])
        bits = np.ascontiguousarray(made.depth[k].astype(np.float16)).view(np.uint16)
        (category / "105_1" / "depths").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(category / "105_1" / "depths" / f"frame{k:06d}.png"), bits)
        T_cam_world = invert(WORLD @ pose)
        flipped = np.diag([-1.0, -1.0, 1.0, 1.0]) @ T_cam_world  # PyTorch3D: +x left, +y up
        c = made.camera
        viewpoint = {
            "R": flipped[:3, :3].T.tolist(),
            "T": flipped[:3, 3].tolist(),
            "focal_length": [c.fx * 2 / min(h, w), c.fy * 2 / min(h, w)],
            "principal_point": [
                (w / 2 - (c.cx + 0.5)) * 2 / min(h, w),
                (h / 2 - (c.cy + 0.5)) * 2 / min(h, w),
            ],
            "intrinsics_format": "ndc_isotropic",
        }
        annotations.append(
            {
                "sequence_name": "105_1",
                "frame_number": k,
                "image": {"path": f"chair/105_1/images/frame{k:06d}.png", "size": [h, w]},
                "depth": {"path": f"chair/105_1/depths/frame{k:06d}.png", "scale_adjustment": 1.0},
                "viewpoint": viewpoint,
            }
        )
    with gzip.open(category / "frame_annotations.jgz", "wt") as file:
        json.dump(annotations, file)
    return category


def test_co3d_and_its_flow(tmp_path: Path) -> None:
    made = made_scene()
    sequences = [opened(write_co3d(tmp_path, made))]
    check(sequences[0], made, depth_error=2e-3)
    example = LabelledClips(sequences).read(0, [0, 1, 2], np.random.default_rng(0), 6)
    for (i, j), label in zip(example.pairs, example.labels, strict=True):
        truth, covisible = made.flow(i, j)
        wrong = np.linalg.norm(label.displacement - truth, axis=-1)[
            covisible & (label.covisibility > 0.5)
        ]
        assert np.median(wrong) < 0.1


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    assert find_sequences(tmp_path) == []
    category = write_co3d(tmp_path, made_scene())
    (category / "105_1" / "depths" / "frame000001.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"frame000001\.png"):
        opened(category).labelled(1)
    (category / "frame_annotations.jgz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="frame_annotations"):
        opened(category)
    write_tum(tmp_path / "rgbd_dataset_freiburg3_desk", made_scene())
    rgb = tmp_path / "rgbd_dataset_freiburg3_desk" / "rgb.txt"
    rgb.write_text(rgb.read_text() + "yesterday rgb/x.png\n")
    with pytest.raises(InputError, match=r"rgb\.txt:6"):
        opened(rgb.parent)


def test_a_sequence_without_truth_still_has_its_frames(tmp_path: Path) -> None:
    """What `flow3r run` needs: every image, also those that truth does not reach."""
    made = made_scene()
    folder = tmp_path / "rgbd_dataset_freiburg3_desk"
    write_tum(folder, made)
    save_rgb(folder / "rgb" / "nobody_knows_where.png", made.rgb[0])
    for name in ("groundtruth.txt", "depth.txt"):
        (folder / name).unlink()
    (found,) = find_sequences(tmp_path)
    (sequence,) = found.sequences()
    frames = list(sequence.frames())
    assert [frame.id for frame in frames] == [0, 1, 2, 3]
    assert frames[3].stamp_ns == 1305031199000000000
    with pytest.raises(InputError, match="no frame has a true pose"):
        sequence.with_truth()


def test_tum_stamps_never_pass_through_a_float(tmp_path: Path) -> None:
    """A double of 1.3e9 seconds is good for 0.2 us: one nanosecond decides between two poses."""
    made = made_scene()
    folder = tmp_path / "rgbd_dataset_freiburg3_desk"
    write_tum(folder, made)
    name = (folder / "rgb.txt").read_text().splitlines()[1].split()[1]
    (folder / "rgb.txt").write_text(f"1305031102.175304001 {name}\n")
    (folder / "groundtruth.txt").write_text(
        "1305031102.175303999 1 0 0 0 0 0 1\n1305031102.175304002 2 0 0 0 0 0 1\n"
    )
    shot = opened(folder).shots[0]
    assert shot.stamp_ns == 1305031102175304001
    assert shot.pose is not None
    assert shot.pose[0, 3] == 2.0


@pytest.mark.parametrize(
    "name",
    ["sintel", "bonn", "tum_dynamics", "kitti", "euroc", "scannet", "7scenes", "nrgbd", "co3d"],
)
def test_the_root_of_a_download_is_recognised(tmp_path: Path, name: str) -> None:
    """The readers of `run` and training find what the benchmark finds."""
    SAMPLES[name][0](tmp_path)
    (found,) = find_sequences(tmp_path)
    (sequence,) = found.sequences()
    (scored,) = BENCHMARKS[name].load(tmp_path)
    assert sequence.name == scored.name
    assert set(scored.shots[0].image.parts) == set(sequence.with_truth().shots[0].image.parts)
    assert next(sequence.frames()).rgb.ndim == 3


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("kitti", "calib.txt", "P0: 1 2 3\nP2: 0 0 0 0 0 0 0 0 0 0 0 0\n"),
        ("kitti", "times.txt", "noon\n"),
        ("euroc", "sensor.yaml", "T_BS: [1, 2]\n"),
        ("euroc", "sensor.yaml", "{: no yaml"),
        ("scannet", "intrinsic_color.txt", "1 2 3\n"),
        ("scannet", "3.txt", "1 2 3\n"),
        ("nrgbd", "poses.txt", "x"),
        ("sintel", "frame_0002.cam", "PIEH"),
        ("7scenes", "frame-000002.pose.txt", ""),
        ("tum_dynamics", "depth.txt", "1311868164.25\n"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(
    tmp_path: Path, name: str, file: str, text: str
) -> None:
    SAMPLES[name][0](tmp_path)
    next(tmp_path.rglob(file)).write_text(text)
    (found,) = find_sequences(tmp_path)
    with pytest.raises(InputError, match=file.replace(".", r"\.")) as caught:
        found.sequences()
    assert "\n" not in str(caught.value)
